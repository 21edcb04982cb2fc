# SPDX-License-Identifier: Apache-2.0
"""The place for one more, against a list."""

import random

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.rtl.skid import Skid

CYCLES = 1000


@pytest.mark.parametrize(("writes", "reads"), [(1.0, 0.3), (0.3, 1.0), (0.6, 0.6), (1.0, 1.0)])
def test_it_keeps_one_entry_adds_no_cycle_and_does_not_pass_on_ready(writes: float, reads: float):
    skid = Skid(16)
    rng = random.Random(CYCLES)
    kept: list[int] = []

    async def testbench(ctx: SimulatorContext):
        for cycle in range(CYCLES):
            valid, ready = rng.random() < writes, rng.random() < reads
            ctx.set(skid.i.payload, cycle)
            ctx.set(skid.i.valid, valid)
            for whether in (not ready, ready):  # `i.ready` does not depend on it
                ctx.set(skid.o.ready, whether)
                assert ctx.get(skid.i.ready) == (not kept), cycle
            there = kept or ([cycle] if valid else [])
            assert ctx.get(skid.o.valid) == bool(there), cycle
            if there:
                assert ctx.get(skid.o.payload) == there[0], cycle
            kept[:] = [] if ready else there
            await ctx.tick()

    simulator = Simulator(skid)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
