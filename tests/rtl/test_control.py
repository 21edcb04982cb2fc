# SPDX-License-Identifier: Apache-2.0
"""Start, end, errors, watchdog and soft reset."""

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.registers import ErrorCode
from loomwork.rtl.control import QUIET_CYCLES, Control


def simulate(testbench) -> None:
    """Run a test bench on both kinds."""
    for late in (False, True):
        dut = Control(11, late=late)
        assert dut.fault_latency == 2 + late
        _simulate(dut, testbench)


def _simulate(dut: Control, testbench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def run(ctx: SimulatorContext):
        ctx.set(dut.bus_idle, 1)
        await testbench(ctx, dut)

    simulator.add_testbench(run)
    simulator.run()


async def pulse(ctx: SimulatorContext, signal) -> None:
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


async def start(ctx: SimulatorContext, dut: Control) -> None:
    """Start, and come back in the cycle behind `go`."""
    await pulse(ctx, dut.start)
    assert ctx.get(dut.clear)
    assert ctx.get(dut.busy)
    await ctx.tick()  # units are reset
    assert not ctx.get(dut.clear)
    assert not ctx.get(dut.go)
    await ctx.tick()
    assert ctx.get(dut.go)
    assert not ctx.get(dut.clear)
    await ctx.tick()
    assert not ctx.get(dut.go)
    assert ctx.get(dut.running)


async def fail(ctx: SimulatorContext, dut: Control, place: int, code: ErrorCode, index: int) -> None:
    ctx.set(dut.faults[place], {"code": code, "index": index})
    await ctx.tick()
    ctx.set(dut.faults[place], {"code": 0, "index": 0})


async def soft_reset(ctx: SimulatorContext, dut: Control) -> int:
    """Reset with an idle bus. Returns in the cycle of `clear` the cycles that took."""
    await pulse(ctx, dut.reset)
    for cycles in range(50):
        if ctx.get(dut.clear):
            assert ctx.get(dut.soft_clear)
            await ctx.tick()
            assert not ctx.get(dut.busy)
            return cycles
        assert ctx.get(dut.busy)
        await ctx.tick()
    raise AssertionError("no reset")


def test_runs_until_the_end_and_the_last_burst():
    async def testbench(ctx: SimulatorContext, dut: Control):
        for _ in range(2):
            await start(ctx, dut)
            assert not ctx.get(dut.done)
            ctx.set(dut.bus_idle, 0)
            ctx.set(dut.ended, 1)
            await ctx.tick().repeat(3)
            assert ctx.get(dut.busy)
            ctx.set(dut.bus_idle, 1)
            assert ctx.get(dut.done_event)
            await ctx.tick()
            assert (ctx.get(dut.done), ctx.get(dut.busy), ctx.get(dut.done_event)) == (1, 0, 0)
            ctx.set(dut.ended, 0)

    simulate(testbench)


def test_first_error_wins_and_stops():
    async def testbench(ctx: SimulatorContext, dut: Control):
        await start(ctx, dut)
        ctx.set(dut.faults[5], {"code": ErrorCode.WINDOW, "index": 11})
        ctx.set(dut.faults[6], {"code": ErrorCode.BUS_READ, "index": 22})
        ctx.set(dut.faults[9], {"code": ErrorCode.BUS_WRITE, "index": 1})
        await ctx.tick()
        ctx.set(dut.faults[4], {"code": ErrorCode.SCRATCHPAD, "index": 2})
        await ctx.tick().repeat(dut.fault_latency - 1)
        assert ctx.get(dut.error_event)
        assert not ctx.get(dut.halt)
        await fail(ctx, dut, 0, ErrorCode.SCRATCHPAD, 33)
        assert ctx.get(dut.halt)
        assert (ctx.get(dut.error), ctx.get(dut.busy), ctx.get(dut.done), ctx.get(dut.running)) == (1, 0, 0, 0)
        assert ctx.get(dut.error_code) == ErrorCode.WINDOW
        assert ctx.get(dut.error_index) == 11
        assert not ctx.get(dut.error_event)
        # START has no effect before a soft reset.
        await pulse(ctx, dut.start)
        await ctx.tick().repeat(5)
        assert ctx.get(dut.halt)
        assert ctx.get(dut.error_code) == ErrorCode.WINDOW

    simulate(testbench)


def test_an_error_beats_the_end_of_the_program():
    async def testbench(ctx: SimulatorContext, dut: Control):
        await start(ctx, dut)
        # Who sees faults a cycle later hears of the end a cycle later, too.
        ctx.set(dut.ended, dut.fault_latency == 2)
        await fail(ctx, dut, 2, ErrorCode.BUS_WRITE, 4)
        ctx.set(dut.ended, 1)
        for _ in range(dut.fault_latency):
            assert not ctx.get(dut.done)
            await ctx.tick()
        assert (ctx.get(dut.error), ctx.get(dut.done)) == (1, 0)

    simulate(testbench)


def test_soft_reset_waits_for_the_bus_and_clears_the_error():
    async def testbench(ctx: SimulatorContext, dut: Control):
        await start(ctx, dut)
        await fail(ctx, dut, 0, ErrorCode.BUS_READ, 5)
        await ctx.tick().repeat(dut.fault_latency)
        ctx.set(dut.bus_idle, 0)
        await pulse(ctx, dut.reset)
        for _ in range(40):
            assert ctx.get(dut.busy)
            assert not ctx.get(dut.clear)
            await ctx.tick()
        assert ctx.get(dut.halt)
        assert ctx.get(dut.error)
        ctx.set(dut.bus_idle, 1)
        await ctx.tick().repeat(QUIET_CYCLES - 1)
        ctx.set(dut.bus_idle, 0)  # a request that was on its way
        await ctx.tick()
        ctx.set(dut.bus_idle, 1)
        for _ in range(QUIET_CYCLES):
            assert not ctx.get(dut.clear)
            await ctx.tick()
        assert ctx.get(dut.clear)
        await ctx.tick()
        assert (ctx.get(dut.error), ctx.get(dut.busy), ctx.get(dut.halt), ctx.get(dut.done)) == (0, 0, 0, 0)
        assert ctx.get(dut.error_code) == ErrorCode.NONE
        assert ctx.get(dut.error_index) == 0
        await start(ctx, dut)

    simulate(testbench)


@pytest.mark.parametrize("delay", range(5))
def test_soft_reset_aborts_a_program(delay: int):
    """However soon after START the request comes."""

    async def testbench(ctx: SimulatorContext, dut: Control):
        await pulse(ctx, dut.start)
        await ctx.tick().repeat(delay) if delay else None
        await soft_reset(ctx, dut)
        assert not ctx.get(dut.running)
        await ctx.tick().repeat(20)
        assert not ctx.get(dut.busy)
        assert not ctx.get(dut.done)

    simulate(testbench)


def test_soft_reset_when_idle_clears_done():
    async def testbench(ctx: SimulatorContext, dut: Control):
        await start(ctx, dut)
        ctx.set(dut.ended, 1)
        await ctx.tick()
        assert ctx.get(dut.done)
        await soft_reset(ctx, dut)
        assert not ctx.get(dut.done)

    simulate(testbench)


def test_start_and_reset_together_is_a_reset():
    async def testbench(ctx: SimulatorContext, dut: Control):
        ctx.set(dut.start, 1)
        await soft_reset(ctx, dut)
        ctx.set(dut.start, 0)

    simulate(testbench)


def test_watchdog_counts_cycles_without_progress():
    async def testbench(ctx: SimulatorContext, dut: Control):
        ctx.set(dut.watchdog, 20)
        ctx.set(dut.stuck_index, 99)
        await start(ctx, dut)
        for _ in range(5):
            await ctx.tick().repeat(19)
            await pulse(ctx, dut.progress)
        assert not ctx.get(dut.error)
        cycles = 0
        while not ctx.get(dut.error):
            await ctx.tick()
            cycles += 1
            assert cycles < 30
        assert cycles >= 20
        assert ctx.get(dut.error_code) == ErrorCode.WATCHDOG
        assert ctx.get(dut.error_index) == 99

    simulate(testbench)


def test_watchdog_zero_is_never():
    async def testbench(ctx: SimulatorContext, dut: Control):
        await start(ctx, dut)
        await ctx.tick().repeat(2000)
        assert not ctx.get(dut.error)

    simulate(testbench)
