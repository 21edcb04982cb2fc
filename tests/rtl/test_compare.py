# SPDX-License-Identifier: Apache-2.0
"""The comparison, of all numbers of some widths."""

import pytest
from amaranth.hdl import Module, Shape, Signal, signed, unsigned
from amaranth.sim import Simulator, SimulatorContext

from loomwork.rtl.compare import is_greater


def numbers(shape: Shape) -> range:
    return range(-(1 << shape.width - 1), 1 << shape.width - 1) if shape.signed else range(1 << shape.width)


@pytest.mark.parametrize(
    ("one", "other"),
    [(signed(4), signed(4)), (signed(5), signed(3)), (unsigned(4), signed(5)), (signed(3), unsigned(4))],
)
def test_it_compares_numbers_with_and_without_sign(one: Shape, other: Shape):
    m = Module()
    a, b, o = Signal(one), Signal(other), Signal()
    m.d.comb += o.eq(is_greater(a, b))

    async def testbench(ctx: SimulatorContext):
        for first in numbers(one):
            for second in numbers(other):
                ctx.set(a, first)
                ctx.set(b, second)
                assert ctx.get(o) == (first > second), (first, second)

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()
