# SPDX-License-Identifier: Apache-2.0
"""Sequencer and feed together against a byte-by-byte description: bytes, marks, reads and back-pressure."""

import itertools
import random
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.command import Command, encode
from loomwork.arch.config import BANKS, FORMAL, SMALL, TINY, Config
from loomwork.arch.isa import Params
from loomwork.arch.reduction import depthwise_passes, passes
from loomwork.rtl.feed import PIXELS_AHEAD, Feed
from loomwork.rtl.ports import WORD_ADDRESS_BITS, feed_latency
from loomwork.rtl.sequencer import PassSequencer

SEED = 20250307
BANK_WORDS = 256
MARKS = ("start", "end", "opens", "closes", "depthwise", "output", "last")
Pixel = tuple[tuple[int, ...], tuple[int, ...]]
"""Bytes, and marks in the order of MARKS."""


TALL = replace(SMALL, name="tall", rows=16)
LATE = replace(SMALL, name="late", deep_pipeline=True)


def random_operands(rng: random.Random, config: Config) -> dict[str, int]:
    """A command with its tensor anywhere in the scratchpad, and windows that leave it on all sides."""
    rows = config.rows
    row_bytes = rng.randint(1, 5 * rows)
    pitch = -(-row_bytes // rows) + rng.randint(0, 2)
    height = rng.randint(1, 12)
    return {
        "base": rng.choice([0, BANK_WORDS - pitch * -(-height // BANKS), rng.randint(0, 100)]),
        "pitch": pitch,
        "height": height,
        "row_bytes": row_bytes,
        "x_start": rng.randint(-3 * rows, 3 * rows),
        "x_step": rng.randint(0, rows + 2),
        "y_start": rng.randint(-9, 9),
        "y_step": rng.randint(0, 15),
        "tap_count": rng.randint(1, 3),
        "tap_step": rng.randint(0, 2 * rows),
        "row_step": rng.choice([1, 2, 3, 4, 5, 6, 63]),
        "length": rng.choice([1, 2, rng.randint(1, 3 * rows)]),
        "kernel_rows": rng.randint(1, 7),
        "tile_width": rng.randint(1, 4),
        "tile_height": rng.randint(1, 4),
        "blocks": rng.randint(1, 2),
        "block_step": rng.randint(0, rows),
        "pad": rng.randint(-128, 127),
        "params": rng.choice(list(Params)),
        "ring": rng.choice([0, 0, 1, 2]),
    }


def random_depthwise(rng: random.Random, config: Config) -> dict[str, int]:
    """Likewise a DEPTHWISE."""
    operands = random_operands(rng, config)
    del operands["length"]
    taps = rng.randint(1, config.depthwise_taps)
    return operands | {"taps": taps, "x_stride": rng.choice([1, 1, 2, 3, 15]), "shared": rng.randint(0, taps - 1)}


def encoded(o: dict[str, int]) -> int:
    return int.from_bytes(encode(Command("DEPTHWISE" if "taps" in o else "CONVOLVE", o)), "little")


def first_word(o: dict[str, int], y: int) -> int:
    """Where an image row begins in its bank."""
    group = y // BANKS
    return o["base"] + (group - o["ring"] if o["ring"] and group >= o["ring"] else group) * o["pitch"]


def expected_columns(config: Config, o: dict[str, int], scratchpad: np.ndarray) -> list[Pixel]:
    """Bytes and marks of every input column: of `rows` bytes for the first kernel row of a pass, then its others."""
    rows, cols = config.rows, config.cols
    parallel = min(config.depthwise_groups, {0: 1, 2: 2}.get(o["row_step"] % 4, 4))
    cut = range(0, o["kernel_rows"], parallel)
    count = (o["tile_width"] - 1) * o["x_stride"] + o["taps"]
    pixels: list[Pixel] = []
    for block, tap, first, oy, column in itertools.product(
        range(o["blocks"]), range(o["tap_count"]), cut, range(o["tile_height"]), range(count)
    ):
        if column >= count - o["shared"] and oy < o["tile_height"] - 1:
            continue  # the next row's first columns stand for it
        values = [[o["pad"]] * size for size in (rows, *[cols] * (config.depthwise_groups - 1))]
        for kernel_row in range(first, min(first + parallel, o["kernel_rows"])):
            y = o["y_start"] + oy * o["y_step"] + kernel_row * o["row_step"]
            x = o["x_start"] + block * o["block_step"] + tap * o["tap_step"] + column * o["x_step"]
            for i in range(cols):
                if 0 <= y < o["height"] and 0 <= x + i < o["row_bytes"]:
                    word = first_word(o, y) * rows
                    values[kernel_row - first][i] = int(scratchpad[y % BANKS].reshape(-1)[word + x + i])
        output = column % o["x_stride"] == 0 and column // o["x_stride"] < o["tile_width"]
        last = output and column // o["x_stride"] == o["tile_width"] - 1 and oy == o["tile_height"] - 1
        marks = (
            int((oy, column) == (0, 0)),
            int((oy, column) == (o["tile_height"] - 1, count - 1)),
            int((tap, first) == (0, 0)),
            int((tap, first) == (o["tap_count"] - 1, cut[-1])),
        )
        bytes_of_rows = tuple(value & 0xFF for part in values for value in part)
        pixels.append((bytes_of_rows, (*marks, 1, int(output), int(last))))
    return pixels


def expected_pixels(config: Config, o: dict[str, int], scratchpad: np.ndarray) -> list[Pixel]:
    """Bytes and marks of every pixel, from the description of CONVOLVE and of scratchpad addresses."""
    if "taps" in o:
        return expected_columns(config, o, scratchpad)
    rows = config.rows
    cut = list(passes(rows, o["kernel_rows"], o["length"], o["row_step"]))
    pixels: list[Pixel] = []
    for block, tap, number, oy, ox in np.ndindex(
        o["blocks"], o["tap_count"], len(cut), o["tile_height"], o["tile_width"]
    ):
        values = [o["pad"]] * rows
        for segment in cut[number]:
            y = o["y_start"] + oy * o["y_step"] + segment.kernel_row * o["row_step"]
            x = o["x_start"] + block * o["block_step"] + tap * o["tap_step"] + ox * o["x_step"] + segment.start
            for i in range(segment.length):
                if 0 <= y < o["height"] and 0 <= x + i < o["row_bytes"]:
                    first = first_word(o, y) * rows
                    values[segment.row + i] = int(scratchpad[y % BANKS].reshape(-1)[first + x + i])
        marks = (
            int((oy, ox) == (0, 0)),
            int((oy, ox) == (o["tile_height"] - 1, o["tile_width"] - 1)),
            int((tap, number) == (0, 0)),
            int((tap, number) == (o["tap_count"] - 1, len(cut) - 1)),
        )
        pixels.append((tuple(value & 0xFF for value in values), (*marks, 0, 1, marks[1])))
    return pixels


class Bench:
    """A sequencer and a feed between a scratchpad and an array that is not ready in a share `stall` of the cycles."""

    def __init__(self, config: Config, operands: list[dict[str, int]], stall: float, seed: int):
        self.config, self.operands, self.stall = config, operands, stall
        self.rng = random.Random(seed)
        self.scratchpad = np.random.default_rng(seed).integers(-128, 128, (BANKS, BANK_WORDS, config.rows), np.int8)
        self.reads: deque[bytes] = deque([b""] * feed_latency(self.config))
        self.pixels: list[Pixel] = []
        self.tiles: list[int] = []
        self.words: list[int] = []
        self.last_read = 0
        self.done: list[int] = []
        self.runs_on = True

    def run(self, cycles: int, count: int) -> None:
        """Simulate until `count` pixels have come, or for so many cycles."""
        m = Module()
        m.submodules.sequencer = sequencer = PassSequencer(self.config)
        m.submodules.feed = feed = Feed(self.config)
        connect(m, sequencer.passes, feed.passes)
        commands = deque(encoded(o) for o in self.operands)

        async def bench(ctx: SimulatorContext):
            for self.cycle in range(cycles):
                ctx.set(sequencer.command.valid, int(bool(commands)))
                ctx.set(sequencer.command.payload, commands[0] if commands else 0)
                if commands and ctx.get(sequencer.command.ready):
                    commands.popleft()
                ctx.set(sequencer.tiles.ready, int(self.rng.random() >= self.stall / 2))
                if ctx.get(sequencer.tiles.valid) and ctx.get(sequencer.tiles.ready):
                    self.tiles.append(ctx.get(sequencer.tiles.payload))
                self.read(ctx, feed)
                ctx.set(feed.pixels.ready, int(self.rng.random() >= self.stall))
                if ctx.get(feed.pixels.valid) and ctx.get(feed.pixels.ready):
                    payload = feed.pixels.payload
                    marks = tuple(ctx.get(payload.marks[name]) for name in MARKS)
                    values = list(ctx.get(payload.bytes.as_value()).to_bytes(self.config.rows, "little"))
                    if marks[MARKS.index("depthwise")]:
                        size = (self.config.depthwise_groups - 1) * self.config.cols
                        values += ctx.get(payload.buses.as_value()).to_bytes(size, "little")
                    self.pixels.append((tuple(values), marks))
                if ctx.get(feed.done):
                    self.done.append(self.cycle)
                if len(self.pixels) == count:
                    await ctx.tick()
                    self.runs_on = bool(ctx.get(feed.running))
                    return
                await ctx.tick()

        simulator = Simulator(m)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()

    def read(self, ctx: SimulatorContext, feed: Feed) -> None:
        rows = self.config.rows
        ctx.set(feed.read.data.as_value(), int.from_bytes(self.reads.popleft(), "little"))
        windows = bytearray()
        for bank in range(BANKS):
            window = self.rng.randbytes(2 * rows)
            if memories := ctx.get(feed.read.memories) >> 2 * bank & 3:
                self.last_read = self.cycle
                first = ctx.get(feed.read.word[bank])
                count = 2 if memories == 3 else 1
                assert memories == 3 or memories == 1 << first % 2
                self.words.append(first)
                if first + count <= BANK_WORDS:
                    window = self.scratchpad[bank, first : first + count].tobytes() + window[count * rows :]
            windows += window
        self.reads.append(bytes(windows))


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, TALL, LATE], ids=lambda c: c.name)
@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_brings_the_bytes_of_every_pixel(config: Config, stall: float, seed: int):
    rng = random.Random(f"{seed} {stall} {config.name}")
    operands = [random_operands(rng, config) for _ in range(3)]
    for place in (1, 3):
        operands.insert(place, random_depthwise(rng, config))
    bench = Bench(config, operands, stall, seed)
    expected = [pixel for o in operands for pixel in expected_pixels(config, o, bench.scratchpad)]
    bench.run(20000, len(expected))
    assert bench.pixels == expected, f"seed {seed}"
    assert len(bench.done) == len(operands)
    assert bench.done[-1] >= bench.last_read + feed_latency(config)
    assert not bench.runs_on, "running ends with the last pixel"
    assert max(bench.words, default=0) < BANK_WORDS
    tiles: list[int] = []
    for o in operands:
        if "taps" in o:
            cut = len(list(depthwise_passes(config.depthwise_groups, o["kernel_rows"], o["row_step"])))
        else:
            cut = len(list(passes(config.rows, o["kernel_rows"], o["length"], o["row_step"])))
        per_block = o["tap_count"] * cut
        tiles += ([Params.UNIFORM] * (per_block - 1) + [o["params"]]) * o["blocks"]
    assert bench.tiles == tiles


@pytest.mark.parametrize("row_step", [1, 2, 3])
@pytest.mark.parametrize("config", [SMALL, TALL], ids=lambda c: c.name)
def test_kernel_rows_lie_on_both_sides_of_the_end_of_a_ring(config: Config, row_step: int):
    """Every segment of a pass crosses the end, at a pixel of its own; commands that follow each other without a gap
    have a ring and none, or another one.
    """
    rng = random.Random(SEED)
    shape = {
        "pitch": 2, "height": 16, "row_bytes": 2 * config.rows, "x_start": 0, "x_step": 1, "y_start": -1, "y_step": 1,
        "tap_count": 1, "row_step": row_step, "kernel_rows": 4, "tile_width": 2, "tile_height": 9, "blocks": 1,
    }  # fmt: skip
    operands: list[dict[str, int]] = []
    for base, ring in ((0, 1), (200, 0), (100, 2), (0, 3), (220, 1), (3, 2)):
        dense = random_operands(rng, config) | shape | {"length": 2, "base": base, "ring": ring}
        columns = random_depthwise(rng, config) | shape | {"base": base, "ring": ring, "taps": 2, "x_stride": 1}
        operands += [dense, columns]
    # Only the first two laps of a ring are there.
    operands = [o | {"height": min(o["height"], 8 * o["ring"])} if o["ring"] else o for o in operands]
    bench = Bench(config, operands, 0.0, SEED)
    expected = [pixel for o in operands for pixel in expected_pixels(config, o, bench.scratchpad)]
    bench.run(4000, len(expected))
    assert bench.pixels == expected


def test_reads_no_further_than_there_is_room():
    """An array that never takes a pixel: the feed stops, and nothing is lost."""
    inside = {"x_start": 0, "y_start": 0, "y_step": 1, "row_step": 1, "height": 12, "base": 0}
    operands = random_operands(random.Random(SEED), TINY) | inside | {"tile_width": 8, "tile_height": 4, "blocks": 2}
    bench = Bench(TINY, [operands], 1.0, SEED)
    bench.run(100, -1)
    assert bench.words
    assert bench.last_read < 60
    bench = Bench(TINY, [operands], 0.0, SEED)
    expected = expected_pixels(TINY, operands, bench.scratchpad)
    bench.run(2000, len(expected))
    assert bench.pixels == expected
    assert len(expected) > PIXELS_AHEAD


def test_a_word_address_beyond_the_port_is_not_wrapped():
    """Largest base, pitch and row: the word is outside every scratchpad, whatever its low bits are."""
    operands = random_operands(random.Random(SEED), TINY) | {
        "base": 0xFFFF, "pitch": 0xFFF, "height": 0xFFF, "row_bytes": 0xFFFF,
        "x_start": 0, "y_start": 0xFF0, "y_step": 0,
    }  # fmt: skip
    bench = Bench(TINY, [operands], 0.0, SEED)
    bench.run(60, -1)
    assert bench.words
    assert set(bench.words) == {2**WORD_ADDRESS_BITS - 1}


def first_read(config: Config, delay: int) -> int:
    """Cycle in which a second command reads first. The pixels of the first one fill the queue; one of them leaves
    `delay` cycles before the second command comes.
    """
    inside = {
        "x_start": 0,
        "y_start": 0,
        "x_step": 1,
        "y_step": 0,
        "height": 1,
        "row_bytes": 64,
        "pitch": 16,
        "base": 0,
    }
    one_pass = {"length": 1, "kernel_rows": 1, "tap_count": 1, "blocks": 1, "tile_height": 1, "ring": 0}
    operands = random_operands(random.Random(SEED), config) | inside | one_pass | {"tile_width": PIXELS_AHEAD}
    m = Module()
    m.submodules.sequencer = sequencer = PassSequencer(config)
    m.submodules.feed = feed = Feed(config)
    connect(m, sequencer.passes, feed.passes)
    leaves, reads = 100, list[int]()

    async def bench(ctx: SimulatorContext):
        ctx.set(sequencer.tiles.ready, 1)
        ctx.set(sequencer.command.payload, encoded(operands))
        for cycle in range(leaves + 60):
            ctx.set(sequencer.command.valid, cycle in (0, leaves + delay))
            ctx.set(feed.pixels.ready, cycle == leaves)
            if cycle == leaves:
                assert ctx.get(feed.pixels.valid)
            if ctx.get(feed.read.memories) and cycle > leaves:
                reads.append(cycle)
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(reads) == 1, "there is room for one"
    return reads[0]


@pytest.mark.parametrize("config", [TINY, LATE], ids=lambda config: config.name)
def test_a_place_that_is_left_is_there_at_once_and_stays(config: Config):
    """A pixel begins when its command is there, but not before it has a place; neither costs the other a cycle."""
    cycles = [first_read(config, delay) for delay in range(-20, 10)]
    steps = [after - before for before, after in itertools.pairwise(cycles)]
    assert steps == sorted(steps)
    assert set(steps) == {0, 1}
