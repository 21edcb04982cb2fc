# SPDX-License-Identifier: Apache-2.0
"""The PE against its model."""

import random

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator, SimulatorContext

from loomwork.rtl.pe import PE, psum_shape
from loomwork.rtl.technology import PORTABLE

SEED = 20250302
ROW = 5


class Fixture(wiring.Component):
    """One PE as a component."""

    activation: Signal
    swap: Signal
    weight: Signal
    load: Signal
    above: Signal
    right: Signal
    psum: Signal

    def __init__(self):
        super().__init__(
            {
                "activation": In(signed(8)),
                "swap": In(1),
                "weight": In(signed(8)),
                "load": In(1),
                "above": In(psum_shape(ROW - 1)),
                "right": Out(signed(8)),
                "psum": Out(psum_shape(ROW)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        right, psum = PE(ROW, 0).add_to(
            m,
            PORTABLE.multiplier(m),
            activation=self.activation,
            swap=self.swap,
            weight=self.weight,
            load=self.load,
            psum_above=self.above,
        )
        m.d.comb += [self.right.eq(right), self.psum.eq(psum)]
        return m


def test_agrees_with_the_model():
    rng = random.Random(SEED)
    dut = Fixture()

    async def bench(ctx: SimulatorContext):
        shadow = active = 0
        # What the model needs: (activation, active weight), and the sum above, of each cycle.
        operands: list[tuple[int, int]] = []
        above: list[int] = []
        for cycle in range(400):
            swap, load = int(cycle == 2 or rng.random() < 0.2), int(cycle == 0 or rng.random() < 0.3)
            weight = rng.choice([-128, 127, rng.randint(-128, 127)])
            activation = rng.choice([-128, 127, rng.randint(-128, 127)])
            above.append(rng.choice([-(2**14) * ROW, 2**14 * ROW, rng.randint(-(2**14), 2**14)]))
            ctx.set(dut.activation, activation)
            ctx.set(dut.swap, swap)
            ctx.set(dut.weight, weight)
            ctx.set(dut.load, load)
            ctx.set(dut.above, above[-1])
            if swap:
                active = shadow
            if load:
                shadow = weight
            operands.append((activation, active))
            await ctx.tick()
            assert ctx.get(dut.right) == activation
            if cycle >= PE.latency:
                assert ctx.get(dut.psum) == PE.model(*operands[cycle - PE.latency], above[cycle])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_partial_sums_fit_their_shape():
    for row in range(64):
        width = psum_shape(row).width
        assert (row + 1) * 128 * 128 <= 2 ** (width - 1) - 1
