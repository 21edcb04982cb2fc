# SPDX-License-Identifier: Apache-2.0
"""The place for one more, and both kinds of slices, against a list."""

import random

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.rtl.skid import PingPong, Skid, Slice

CYCLES = 1000
RATES = pytest.mark.parametrize(("writes", "reads"), [(1.0, 0.3), (0.3, 1.0), (0.6, 0.6), (1.0, 1.0)])


def simulate(dut: Skid | Slice | PingPong, testbench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@RATES
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

    simulate(skid, testbench)


@RATES
@pytest.mark.parametrize("kind", [Slice, PingPong])
def test_a_slice_gives_each_entry_in_the_next_cycle_and_passes_nothing_on(
    kind: type[Slice | PingPong], writes: float, reads: float
):
    dut = kind(16)
    rng = random.Random(CYCLES)
    entries: list[int] = []

    async def testbench(ctx: SimulatorContext):
        for cycle in range(CYCLES):
            valid, ready = rng.random() < writes, rng.random() < reads
            ctx.set(dut.i.payload, cycle)
            # Neither output depends on an input of the same cycle.
            for whether in (not valid, valid):
                for taken in (not ready, ready):
                    ctx.set(dut.i.valid, whether)
                    ctx.set(dut.o.ready, taken)
                    assert ctx.get(dut.i.ready) == (len(entries) < 2), cycle
                    assert ctx.get(dut.o.valid) == bool(entries), cycle
            if entries:
                assert ctx.get(dut.o.payload) == entries[0], cycle
            enters = valid and len(entries) < 2
            if entries and ready:
                entries.pop(0)
            if enters:
                entries.append(cycle)
            await ctx.tick()

    simulate(dut, testbench)
