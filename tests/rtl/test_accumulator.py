# SPDX-License-Identifier: Apache-2.0
"""The accumulators against int32 arrays."""

import dataclasses

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.config import TINY
from loomwork.rtl.accumulator import REUSE_CYCLES, Accumulator, AccumulatorColumn
from loomwork.rtl.ports import ACCUMULATOR_LATENCY

SEED = 20250305
COLS = TINY.cols


class Bench:
    """Feeds blocks of sums [passes][pixels][cols] and reads them back.

    drain_from: cycle before which nothing is read. follows: pixels are read as soon as they may be, the last ones not
    before the whole block. stall: share of cycles in which the array has no pixel.
    After a run: by block, the cycles in which it was reserved, found ready, and read first; by cycle, `progress`, and
    what it should be: the pixels of an only pass that are in the memories of all columns; and `ready`, with what
    `next_ready` said of it in the cycle before.
    """

    def __init__(self, blocks: list[np.ndarray], drain_from: int = 0, *, follows: bool = False, stall: float = 0.0):
        self.blocks, self.drain_from, self.follows, self.stall = blocks, drain_from, follows, stall
        self.rng = np.random.default_rng(SEED)
        self.results: list[np.ndarray] = []
        self.reserved: list[int] = []
        self.ready: list[int] = []
        self.first_read: list[int] = []
        self.progress: list[int] = []
        self.is_ready: list[bool] = []
        self.announced: list[bool] = []
        self.changes: dict[int, int | None] = {}
        self.last_tag = [0] * len(blocks)
        self.sums: dict[int, np.ndarray] = {}

    def run(self) -> None:
        self.dut = Accumulator(TINY)
        self.cycle = 0
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self.count, background=True)
        simulator.add_testbench(self.watch, background=True)
        simulator.add_testbench(self.fill)
        simulator.add_testbench(self.skew, background=True)
        simulator.add_testbench(self.drain)
        simulator.run()

    async def count(self, ctx: SimulatorContext):
        while True:
            await ctx.tick()
            self.cycle += 1

    @property
    def right_progress(self) -> list[int]:
        """What `progress` should have been in each cycle."""
        values, count = [], 0
        for cycle in range(len(self.progress)):
            change = self.changes.get(cycle, 0)
            count = 0 if change is None else count + change
            values.append(count)
        return values

    async def watch(self, ctx: SimulatorContext):
        while True:
            self.progress.append(ctx.get(self.dut.read.progress))
            _, _, announced = await ctx.tick().sample(self.dut.read.next_ready)
            self.announced.append(bool(announced))
            self.is_ready.append(bool(ctx.get(self.dut.read.ready)))

    async def fill(self, ctx: SimulatorContext):
        """Tags of all blocks, and their sums into `sums` by cycle."""
        dut = self.dut
        for number, block in enumerate(self.blocks):
            while not ctx.get(dut.available):
                await ctx.tick()
            ctx.set(dut.reserve, 1)
            self.reserved.append(self.cycle)
            await ctx.tick()
            ctx.set(dut.reserve, 0)
            passes, pixels, _ = block.shape
            for p, pixel in np.ndindex(passes, pixels):
                ctx.set(dut.tag.valid, 1)
                ctx.set(dut.tag.start, int(pixel == 0))
                ctx.set(dut.tag.overwrite, int(p == 0))
                ctx.set(dut.tag.closes, int(p == passes - 1))
                ctx.set(dut.tag.last, int((p, pixel) == (passes - 1, pixels - 1)))
                self.sums[self.cycle] = block[p, pixel]
                self.last_tag[number] = self.cycle
                is_last = (p, pixel) == (passes - 1, pixels - 1)
                self.changes[self.cycle + COLS - 1 + REUSE_CYCLES] = None if is_last else int(passes == 1)
                await ctx.tick()
                ctx.set(dut.tag.valid, 0)
                while self.rng.random() < self.stall:
                    await ctx.tick()
                if pixel == pixels - 1 and pixels < REUSE_CYCLES:
                    await ctx.tick().repeat(REUSE_CYCLES - pixels)

    async def skew(self, ctx: SimulatorContext):
        """Sums to the columns, each one cycle later than the column before; noise in between."""
        noise = np.random.default_rng(SEED)
        while True:
            for col in range(COLS):
                row = self.sums.get(self.cycle - col, noise.integers(-500, 500, COLS))
                ctx.set(self.dut.psums[col], int(row[col]))
            await ctx.tick()

    async def drain(self, ctx: SimulatorContext):
        """Read each block as soon as it may be read, and release it with the last pixel."""
        read = self.dut.read
        for block in self.blocks:
            pixels = block.shape[1]
            found: list[list[int]] = []
            asked, under_way = 0, [False] * ACCUMULATOR_LATENCY
            while len(found) < pixels:
                if under_way.pop(0):
                    found.append([ctx.get(read.data[col]) for col in range(COLS)])
                is_ready = bool(ctx.get(read.ready))
                is_there = is_ready or (self.follows and asked < ctx.get(read.progress))
                asks = is_there and asked < pixels and self.cycle >= self.drain_from
                if asks and asked == 0:
                    self.first_read.append(self.cycle)
                if asks and asked == pixels - 1:
                    assert is_ready, "`progress` never counts the last pixel: the block is whole with it"
                    self.ready.append(self.cycle)
                ctx.set(read.enable, int(asks))
                ctx.set(read.pixel, asked if asks else int(self.rng.integers(pixels)))
                asked += asks
                ctx.set(read.release, int(asks and asked == pixels))
                under_way.append(asks)
                await ctx.tick()
            ctx.set(read.release, 0)
            self.results.append(np.array(found))


def make_block(rng: np.random.Generator, passes: int, pixels: int) -> np.ndarray:
    return rng.integers(-(2 ** (TINY.psum_bits - 1)), 2 ** (TINY.psum_bits - 1), (passes, pixels, COLS))


def test_sums_up_the_passes_of_each_block():
    rng = np.random.default_rng(SEED)
    blocks = [make_block(rng, int(rng.integers(1, 5)), int(rng.integers(1, 33))) for _ in range(12)]
    bench = Bench(blocks)
    bench.run()
    for found, block in zip(bench.results, blocks, strict=True):
        np.testing.assert_array_equal(found, block.sum(axis=0))


def test_a_half_is_ready_when_its_last_column_is():
    bench = Bench([make_block(np.random.default_rng(SEED), 1, 1)])
    bench.run()
    # Written REUSE_CYCLES after the sum; the last column's sum comes COLS - 1 cycles after the first's.
    assert bench.ready[0] - bench.last_tag[0] <= COLS - 1 + REUSE_CYCLES + 1


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("drain_from", [0, 150])
def test_pixels_of_an_only_pass_are_read_while_it_lasts(drain_from: int, stall: float):
    """Passes between them, and a drain that comes late: the pixels counted are always those of the next block."""
    rng = np.random.default_rng(SEED + 1)
    blocks = [make_block(rng, passes, int(rng.integers(1, 33))) for passes in (1, 1, 2, 1, 3, 1, 1, 1, 2, 2, 1, 1)]
    bench = Bench(blocks, drain_from, follows=True, stall=stall)
    bench.run()
    for found, block in zip(bench.results, blocks, strict=True):
        np.testing.assert_array_equal(found, block.sum(axis=0))
    assert bench.progress == bench.right_progress
    assert max(bench.progress) > 8
    assert bench.announced == bench.is_ready
    assert {True, False} == set(bench.is_ready)
    if not drain_from:
        lead = [ready - first for first, ready in zip(bench.first_read, bench.ready, strict=True)]
        sizes = [len(block[0]) for block in blocks]
        assert lead[0] >= sizes[0] - 1, "read from its first pixel on"


def test_pixels_of_several_passes_are_not_counted():
    rng = np.random.default_rng(SEED)
    bench = Bench([make_block(rng, passes, 9) for passes in (2, 3, 2)], follows=True)
    bench.run()
    assert not any(bench.progress)


def test_one_pixel_alone_is_not_counted():
    bench = Bench([make_block(np.random.default_rng(SEED), 1, 1)] * 3, follows=True)
    bench.run()
    assert not any(bench.progress)


def test_two_blocks_are_reserved_and_the_third_waits_for_the_drain():
    rng = np.random.default_rng(SEED)
    bench = Bench([make_block(rng, 2, 4) for _ in range(4)], drain_from=100)
    bench.run()
    assert [cycle < 100 for cycle in bench.reserved] == [True, True, False, False]


def test_additions_wrap_at_32_bits():
    """Four pixels in turn, so that each comes again after REUSE_CYCLES."""
    config = dataclasses.replace(TINY, rows=64)
    dut = AccumulatorColumn(config)
    largest = 2 ** (config.psum_bits - 1) - 1
    passes = 2**31 // largest + 1

    async def bench(ctx: SimulatorContext):
        ctx.set(dut.i.valid, 1)
        for number in range(passes):
            for pixel in range(REUSE_CYCLES):
                ctx.set(dut.i.overwrite, int(number == 0))
                ctx.set(dut.i.adds, int(number != 0))
                ctx.set(dut.i.pixel, pixel)
                ctx.set(dut.psum, (largest, -largest - 1, largest, -1)[pixel])
                await ctx.tick()
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.i.adds, 0)
        ctx.set(dut.pixel, 2)
        await ctx.tick().repeat(REUSE_CYCLES + ACCUMULATOR_LATENCY)
        assert ctx.get(dut.data) == passes * largest - 2**32

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
