# SPDX-License-Identifier: Apache-2.0
"""Performance counters."""

import random

from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.registers import COUNTERS
from loomwork.rtl.counters import Counters


def test_counts_each_event_while_enabled_and_clears():
    dut = Counters()
    rng = random.Random(3)
    names = [name for name, _ in COUNTERS]

    async def testbench(ctx: SimulatorContext):
        for _ in range(2):
            expected = dict.fromkeys(names, 0)
            for _ in range(200):
                events = {name: rng.getrandbits(1) for name in names}
                enable = rng.random() < 0.7
                ctx.set(dut.events, events)
                ctx.set(dut.enable, enable)
                await ctx.tick()
                for name in names:
                    expected[name] += enable and events[name]
            ctx.set(dut.enable, 0)
            await ctx.tick().repeat(2)
            assert {name: ctx.get(dut.values[name]) for name in names} == expected
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            await ctx.tick()
            assert not any(ctx.get(dut.values[name]) for name in names)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
