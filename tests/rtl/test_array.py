# SPDX-License-Identifier: Apache-2.0
"""The array against a matrix product, with weights loaded at the first and at the last possible moment."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.config import FORMAL, SMALL, TINY, Config
from loomwork.rtl.array import SystolicArray

SEED = 20250303
OBLONG = Config(
    name="oblong",
    rows=8,
    cols=4,
    scratchpad_kib=16,
    accumulator_depth=16,
    bus_bytes=4,
    requant_lanes=2,
    stream_beats=32,
)

TALL = replace(OBLONG, name="tall", rows=16, cols=8, bus_bytes=8)


def schedule(
    rng: np.random.Generator, rows: int, lengths: list[int], *, late: bool
) -> tuple[list[int], dict[int, int]]:
    """Start of each pass of `lengths` pixels, and for each cycle which array row (over all passes) is loaded in it.

    Row r of the next tile is loaded after `start + r`, and before `next start + r`; one row per cycle.
    """
    starts, loads = [rows], {cycle: cycle for cycle in range(rows)}
    for number, length in enumerate(lengths[:-1]):
        start = starts[-1]
        end = start + max(length, rows) + int(rng.integers(0, 3))
        starts.append(end)
        for row in range(rows):
            loads[end + row - (rows - 1) if late else start + 1 + row] = (number + 1) * rows + row
    return starts, loads


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, OBLONG], ids=lambda c: c.name)
@pytest.mark.parametrize("late", [False, True])
def test_sums_of_every_pass(config: Config, late: bool):
    rng = np.random.default_rng(SEED)
    rows, cols = config.rows, config.cols
    lengths = [1, 1, rows, 1, 3 * rows, 2, 1, 1, rows + 1]
    tiles = rng.integers(-128, 128, (len(lengths), rows, cols))
    tiles[4] = -128
    starts, loads = schedule(rng, rows, lengths, late=late)
    pixels = {
        start + number: (tile, rng.choice([-128, 127, int(rng.integers(-128, 128))], rows))
        for tile, (start, length) in enumerate(zip(starts, lengths, strict=True))
        for number in range(length)
    }
    dut = SystolicArray(config, 8)
    found: dict[tuple[int, int], int] = {}
    tags: dict[int, int] = {}

    async def bench(ctx: SimulatorContext):
        for cycle in range(max(pixels) + dut.latency + cols + 1):
            _, pixel = pixels.get(cycle, (0, rng.integers(-128, 128, rows)))
            for row in range(rows):
                ctx.set(dut.pixel[row], int(pixel[row]))
            ctx.set(dut.swap, int(cycle in starts))
            ctx.set(dut.tag, cycle % 256)
            load = loads.get(cycle)
            ctx.set(dut.load, 0 if load is None else 1 << load % rows)
            words = rng.integers(-128, 128, cols) if load is None else tiles[load // rows, load % rows]
            for col in range(cols):
                ctx.set(dut.weights[col], int(words[col]))
                found[cycle, col] = ctx.get(dut.psums[col])
            tags[cycle] = ctx.get(dut.o_tag)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    for cycle, (tile, pixel) in pixels.items():
        sums = [found[cycle + dut.latency + col, col] for col in range(cols)]
        np.testing.assert_array_equal(sums, pixel @ tiles[tile], err_msg=f"pixel of cycle {cycle}, tile {tile}")
        assert sums == dut.model(pixel.tolist(), tiles[tile].tolist())
        assert tags[cycle + dut.latency] == cycle % 256


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, OBLONG, TALL], ids=lambda c: c.name)
@pytest.mark.parametrize("late", [False, True])
def test_sums_when_the_mode_changes_from_pass_to_pass(config: Config, late: bool):
    """Dense and depthwise passes without a bubble; a sum that enters with column `j` takes columns `j`, `j + 1`, ..."""
    rng = np.random.default_rng(SEED)
    rows, cols, groups = config.rows, config.cols, config.depthwise_groups
    taps = rows // groups
    lengths = [rows, 2 * rows, rows + 3, taps, 1, 3 * rows, taps + 1, rows, 1, taps]
    modes = [0, 1, 1, 1, 0, 1, 1, 0, 0, 1]
    tiles = rng.integers(-128, 128, (len(lengths), rows, cols))
    tiles[5] = -128
    starts, loads = schedule(rng, rows, lengths, late=late)
    pixels = rng.integers(-128, 128, (starts[-1] + taps + 1, rows))
    buses = rng.integers(-128, 128, (starts[-1] + taps + 1, groups, cols))
    buses[:, 0] = pixels[:, :cols]
    buses[starts[5] : starts[5] + lengths[5]] = pixels[starts[5] : starts[5] + lengths[5]] = -128
    mode_of = {start + i: modes[n] for n, start in enumerate(starts) for i in range(lengths[n])}
    dut = SystolicArray(config, 1)
    found: dict[tuple[int, int], int] = {}

    async def bench(ctx: SimulatorContext):
        for cycle in range(len(pixels) + dut.latency + cols + 1):
            now = min(cycle, len(pixels) - 1)
            for row in range(rows):
                ctx.set(dut.pixel[row], int(pixels[now, row]))
            for group, col in np.ndindex(groups - 1, cols):
                ctx.set(dut.buses[group][col], int(buses[now, group + 1, col]))
            ctx.set(dut.depthwise, mode_of.get(cycle, int(rng.integers(2))))
            ctx.set(dut.swap, int(cycle in starts))
            load = loads.get(cycle)
            ctx.set(dut.load, 0 if load is None else 1 << load % rows)
            words = rng.integers(-128, 128, cols) if load is None else tiles[load // rows, load % rows]
            for col in range(cols):
                ctx.set(dut.weights[col], int(words[col]))
                found[cycle, col] = ctx.get(dut.psums[col])
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    for number, (start, length, depthwise) in enumerate(zip(starts, lengths, modes, strict=True)):
        weights = tiles[number].reshape(groups, taps, cols)
        for cycle in range(start, start + length - (taps - 1 if depthwise else 0)):
            sums = [found[cycle + dut.latency + col, col] for col in range(cols)]
            columns = buses[cycle : cycle + taps].swapaxes(0, 1)
            expected = (weights * columns).sum(axis=(0, 1)) if depthwise else pixels[cycle] @ tiles[number]
            np.testing.assert_array_equal(sums, expected, err_msg=f"cycle {cycle}, pass {number}")
