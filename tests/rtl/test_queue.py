# SPDX-License-Identifier: Apache-2.0
"""The queues, cycle by cycle beside the one of Amaranth's library."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.sim import Simulator, SimulatorContext

from loomwork.rtl.queue import BlockQueue, PingPongQueue, Queue
from tests.rtl.unit_driver import assert_refused

WIDTH = 16
CYCLES = 1000


@pytest.mark.parametrize("kind", [Queue, BlockQueue, PingPongQueue])
@pytest.mark.parametrize("depth", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize(("writes", "reads"), [(1.0, 0.3), (0.3, 1.0), (0.6, 0.6), (1.0, 1.0)])
def test_every_cycle_is_as_in_amaranths_buffered_queue(
    kind: type[Queue | BlockQueue | PingPongQueue], depth: int, writes: float, reads: float
):
    m = Module()
    m.submodules.queue = queue = kind(WIDTH, depth)
    m.submodules.model = model = SyncFIFOBuffered(width=WIDTH, depth=depth)
    rng = random.Random(depth)
    passed = 0

    async def testbench(ctx: SimulatorContext):
        nonlocal passed
        for cycle in range(CYCLES):
            # The one with two output registers holds one entry more.
            may_write = kind is not PingPongQueue or ctx.get(model.w_rdy)
            valid, ready = rng.random() < writes and may_write, rng.random() < reads
            ctx.set(queue.i.payload, cycle)
            ctx.set(model.w_data, cycle)
            ctx.set(queue.i.valid, valid)
            ctx.set(model.w_en, valid)
            ctx.set(queue.o.ready, ready)
            ctx.set(model.r_en, ready)
            room = ctx.get(queue.i.ready)
            assert room == ctx.get(model.w_rdy) or (room and kind is PingPongQueue), cycle
            assert ctx.get(queue.o.valid) == ctx.get(model.r_rdy), cycle
            assert ctx.get(queue.occupied) == (ctx.get(model.level) != 0), cycle
            if ctx.get(queue.o.valid):
                assert ctx.get(queue.o.payload) == ctx.get(model.r_data), cycle
                passed += ready
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert passed > CYCLES * min(writes, reads) / 3


def test_a_depth_of_one_is_refused():
    assert_refused(lambda: Queue(WIDTH, 1), "depth of a queue must be at least 2, not 1")
