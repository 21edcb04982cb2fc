# SPDX-License-Identifier: Apache-2.0
"""The parameter store by itself: when its buffers can be filled, and when they are ready."""

from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.config import TINY
from loomwork.rtl.drain.parameters import Parameters


def simulate(dut: Parameters, testbench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


async def fill(ctx: SimulatorContext, dut: Parameters) -> None:
    """Give one block's parameters, of one word."""
    ctx.set(dut.i.valid, 1)
    ctx.set(dut.i.payload.last, 1)
    assert ctx.get(dut.i.ready)
    await ctx.tick()
    ctx.set(dut.i.valid, 0)


def test_a_buffer_can_be_filled_in_the_cycle_after_it_is_free():
    dut = Parameters(TINY)

    async def testbench(ctx: SimulatorContext):
        await fill(ctx, dut)
        await fill(ctx, dut)
        for buffer in (0, 1, 0):
            assert not ctx.get(dut.i.ready), "both are occupied"
            await ctx.tick()
            ctx.set(dut.free, 1)
            ctx.set(dut.free_buffer, buffer)
            assert not ctx.get(dut.i.ready)
            await ctx.tick()
            ctx.set(dut.free, 0)
            await fill(ctx, dut)

    simulate(dut, testbench)


def test_the_other_buffer_is_not_meant():
    dut = Parameters(TINY)

    async def testbench(ctx: SimulatorContext):
        await fill(ctx, dut)
        await fill(ctx, dut)
        ctx.set(dut.free, 1)
        ctx.set(dut.free_buffer, 1)
        await ctx.tick()
        ctx.set(dut.free, 0)
        assert not ctx.get(dut.i.ready), "the next one in turn is buffer 0"

    simulate(dut, testbench)


def test_buffers_are_ready_in_turn_until_they_are_claimed():
    dut = Parameters(TINY)

    async def testbench(ctx: SimulatorContext):
        assert not ctx.get(dut.ready)
        await fill(ctx, dut)
        for buffer in (0, 1):
            assert ctx.get(dut.ready)
            assert ctx.get(dut.buffer) == buffer
            if buffer == 0:
                await fill(ctx, dut)
                assert ctx.get(dut.ready)
                assert ctx.get(dut.buffer) == buffer
            ctx.set(dut.claim, 1)
            await ctx.tick()
            ctx.set(dut.claim, 0)
        assert not ctx.get(dut.ready)

    simulate(dut, testbench)
