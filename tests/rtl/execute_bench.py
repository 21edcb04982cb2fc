# SPDX-License-Identifier: Apache-2.0
"""A test bench for EXECUTE: behavioural scratchpad, weight stream and drain, and an integer convolution."""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.command import Command, encode
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import Params, params_words
from loomwork.arch.reduction import depthwise_passes, passes
from loomwork.arch.skip import skip_operands
from loomwork.rtl.execute import Execute
from loomwork.rtl.ports import ACCUMULATOR_LATENCY, feed_latency

SEED = 20250301
BANK_WORDS = 512
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
PLAIN = {
    "base": 0, "pitch": 4, "height": 8, "row_bytes": 16, "x_start": 0, "x_step": 4, "y_start": 0, "y_step": 1,
    "tap_count": 1, "tap_step": 0, "row_step": 1, "length": 4, "kernel_rows": 1, "tile_width": 4, "tile_height": 4,
    "blocks": 1, "block_step": 0, "pad": 0, "params": Params.UNIFORM,
    "ring": 0,
}  # fmt: skip


@dataclass
class Job:
    """One CONVOLVE, or DEPTHWISE, with its input tensor: what the stream must bring, what must come out.

    executed: of each pass of a block, whether it is executed; the weights of the others are zero, and a SKIP leaves
    them out. Without it there is no SKIP.
    weights: [blocks][taps][kernel_rows * length][cols] int8; of a DEPTHWISE
    [blocks][tap groups][kernel_rows][taps][cols]. sums: [blocks][pixels][cols] int32.
    """

    config: Config
    operands: dict[str, int]
    rng: np.random.Generator
    executed: tuple[bool, ...] = ()
    weights: np.ndarray = field(init=False)
    params: np.ndarray = field(init=False)
    image: np.ndarray = field(init=False)

    def __post_init__(self):
        o, cols = self.operands, self.config.cols
        kernel = (o["kernel_rows"], o["taps"]) if self.depthwise else (o["kernel_rows"] * o["length"],)
        self.weights = self.rng.integers(-128, 128, (o["blocks"], o["tap_count"], *kernel, cols))
        if self.executed:
            self.weights[:, ~self.is_executed()] = 0
        self.params = self.rng.integers(0, 256, (o["blocks"], params_words(Params(o["params"])), cols))
        image = self.rng.integers(-128, 128, (o["height"], o["row_bytes"]))
        # Of the rows of a ring that have the same place, only the last one is there.
        latest = {self.place(y): y for y in range(o["height"])}
        self.image = image[[latest[self.place(y)] for y in range(o["height"])]]

    def is_executed(self) -> np.ndarray:
        """[taps][kernel_rows * length], of a DEPTHWISE [tap groups][kernel_rows]: the pass of a weight is executed."""
        o, config = self.operands, self.config
        if self.depthwise:
            sizes = [len(rows) for rows in depthwise_passes(config.depthwise_groups, o["kernel_rows"], o["row_step"])]
        else:
            cut = passes(config.rows, o["kernel_rows"], o["length"], o["row_step"])
            sizes = [sum(s.length for s in segments) for segments in cut]
        return np.repeat(self.executed, sizes * o["tap_count"]).reshape(o["tap_count"], -1)

    def stream(self) -> list[bytes]:
        """The words of weights and parameters, in the order of use."""
        words: list[bytes] = []
        for block, params in enumerate(self.params):
            number = 0
            for tap in range(self.operands["tap_count"]):
                for tile in self.depthwise_tiles(block, tap) if self.depthwise else self.tiles(block, tap):
                    if not self.executed or self.executed[number]:
                        words += [row.tobytes() for row in tile]
                    number += 1
            words += [bytes(word.tolist()) for word in params]
        return words

    def tiles(self, block: int, tap: int) -> Iterator[np.ndarray]:
        """The weights [rows][cols] of each pass of a CONVOLVE."""
        o, rows = self.operands, self.config.rows
        for segments in passes(rows, o["kernel_rows"], o["length"], o["row_step"]):
            tile = np.zeros((rows, self.config.cols), np.int8)
            for s in segments:
                first = s.kernel_row * o["length"] + s.start
                tile[s.row : s.row + s.length] = self.weights[block, tap, first : first + s.length]
            yield tile

    def depthwise_tiles(self, block: int, tap: int) -> Iterator[np.ndarray]:
        """The weights [rows][cols] of each pass of a DEPTHWISE; unused rows must not matter but for being zero."""
        o, config = self.operands, self.config
        for kernel_rows in depthwise_passes(config.depthwise_groups, o["kernel_rows"], o["row_step"]):
            tile = np.zeros((config.rows, config.cols), np.int8)
            for group, kernel_row in enumerate(kernel_rows):
                first = group * config.depthwise_taps
                tile[first : first + o["taps"]] = self.weights[block, tap, kernel_row]
            yield tile

    def sums(self) -> np.ndarray:
        """The convolution, byte by byte, from the description of the command."""
        if self.depthwise:
            return self.depthwise_sums()
        o = self.operands
        result = np.zeros((o["blocks"], self.pixels, self.config.cols), np.int64)
        for block, tap, pixel in np.ndindex(o["blocks"], o["tap_count"], result.shape[1]):
            oy, ox = divmod(pixel, o["tile_width"])
            x = o["x_start"] + block * o["block_step"] + tap * o["tap_step"] + ox * o["x_step"]
            for k, i in np.ndindex(o["kernel_rows"], o["length"]):
                y = o["y_start"] + oy * o["y_step"] + k * o["row_step"]
                inside = 0 <= y < o["height"] and 0 <= x + i < o["row_bytes"]
                value = self.image[y, x + i] if inside else o["pad"]
                result[block, pixel] += value * self.weights[block, tap, k * o["length"] + i]
        return result

    def depthwise_sums(self) -> np.ndarray:
        o = self.operands
        result = np.zeros((o["blocks"], self.pixels, self.config.cols), np.int64)
        for block, group, pixel, ky, k, c in np.ndindex(
            o["blocks"], o["tap_count"], self.pixels, o["kernel_rows"], o["taps"], self.config.cols
        ):
            oy, ox = divmod(pixel, o["tile_width"])
            y = o["y_start"] + oy * o["y_step"] + ky * o["row_step"]
            x = o["x_start"] + block * o["block_step"] + group * o["tap_step"]
            x += (ox * o["x_stride"] + k) * o["x_step"] + c
            inside = 0 <= y < o["height"] and 0 <= x < o["row_bytes"]
            value = self.image[y, x] if inside else o["pad"]
            result[block, pixel, c] += value * self.weights[block, group, ky, k, c]
        return result

    def place(self, y: int) -> tuple[int, int]:
        """Bank and first word of an image row."""
        o = self.operands
        group = y // BANKS
        if o["ring"] and group >= o["ring"]:
            group -= o["ring"]
        return y % BANKS, o["base"] + group * o["pitch"]

    def store(self, scratchpad: np.ndarray, owned: np.ndarray) -> None:
        """Put the image into `scratchpad` [BANKS][words][rows] and mark its words in `owned` [BANKS][words]."""
        rows = self.config.rows
        for y, line in enumerate(self.image):
            bank, first = self.place(y)
            words = -(-len(line) // rows)
            scratchpad[bank].reshape(-1)[first * rows : first * rows + len(line)] = line
            owned[bank, first : first + words] = True

    @property
    def depthwise(self) -> bool:
        return "taps" in self.operands

    @property
    def commands(self) -> list[int]:
        """In bits."""
        commands = [Command("DEPTHWISE" if self.depthwise else "CONVOLVE", self.operands)]
        if self.executed:
            commands.insert(0, Command("SKIP", skip_operands(self.executed)))
        return [int.from_bytes(encode(command), "little") for command in commands]

    @property
    def pixels(self) -> int:
        return self.operands["tile_width"] * self.operands["tile_height"]


def pass_count_of(config: Config, operands: dict[str, int]) -> int:
    """Passes of a block."""
    o = {**PLAIN, **operands}
    if "taps" in o:
        return o["tap_count"] * len(list(depthwise_passes(config.depthwise_groups, o["kernel_rows"], o["row_step"])))
    return o["tap_count"] * len(list(passes(config.rows, o["kernel_rows"], o["length"], o["row_step"])))


def make_jobs(
    config: Config, seed: int, operands: list[dict[str, int]], executed: Sequence[tuple[bool, ...]] = ()
) -> list[Job]:
    """Jobs with their tensors one behind the other in the scratchpad; `base` and `pitch` are made to fit.

    executed: see `Job`, one for each when there are any.
    """
    rng = np.random.default_rng(seed)
    jobs: list[Job] = []
    base = 0
    for values, passes_executed in zip(operands, executed or [()] * len(operands), strict=True):
        values = {**PLAIN, **values}
        if "taps" in values:
            del values["length"]
        values["pitch"] = max(values["pitch"], -(-values["row_bytes"] // config.rows))
        values["base"] = base
        base += -(-values["height"] // BANKS) * values["pitch"]
        jobs.append(Job(config, values, rng, passes_executed))
    assert base <= BANK_WORDS
    return jobs


def random_operands(rng: random.Random, config: Config) -> dict[str, int]:
    rows = config.rows
    width = rng.randint(1, 6)
    return {
        "pitch": rng.randint(0, 8),
        "height": rng.randint(1, 9),
        "row_bytes": rng.randint(1, 5 * rows),
        "x_start": rng.randint(-2 * rows - 1, 3 * rows),
        "x_step": rng.randint(0, rows + 2),
        "y_start": rng.randint(-5, 6),
        "y_step": rng.randint(0, 9),
        "tap_count": rng.choice([1, 1, 2, 3]),
        "tap_step": rng.randint(0, 2 * rows),
        "row_step": rng.randint(1, 9),
        "length": rng.choice([1, 2, 3, rows, rng.randint(1, 2 * rows)]),
        "kernel_rows": rng.randint(1, 6),
        "tile_width": width,
        "tile_height": rng.randint(1, min(4, 16 // width)),
        "blocks": rng.choice([1, 1, 2, 3]),
        "block_step": rng.randint(0, rows),
        "pad": rng.randint(-128, 127),
        "params": rng.choice(list(Params)),
        "ring": rng.choice([0, 0, 1, 2]),
    }


def random_depthwise(rng: random.Random, config: Config) -> dict[str, int]:
    return {
        **random_operands(rng, config),
        "x_step": rng.choice([config.cols, rng.randint(0, config.rows + 2)]),
        "block_step": config.cols,
        "taps": rng.randint(1, config.depthwise_taps),
        "x_stride": rng.choice([1, 1, 2, 5]),
        "shared": 0,
    }


def random_padded(rng: random.Random, config: Config) -> dict[str, int]:
    """A DEPTHWISE of whole rows of an image of `cols` channels, with padding that rows have in common."""
    columns, taps, stride = rng.randint(1, 5), rng.randint(2, config.depthwise_taps), rng.choice([1, 1, 2])
    pad = rng.randint(1, taps - 1)
    width = max(1, min(-(-(columns + pad) // stride), 6))
    behind = (width - 1) * stride + taps - 1 - pad - (columns - 1)
    return {
        **random_depthwise(rng, config),
        "row_bytes": columns * config.cols,
        "x_start": -pad * config.cols,
        "x_step": config.cols,
        "tap_count": 1,
        "blocks": 1,
        "taps": taps,
        "x_stride": stride,
        "shared": max(0, min(pad, behind, taps - 1)),
        "tile_width": width,
        "tile_height": rng.randint(1, min(4, 16 // width)),
    }


class Bench:
    """An Execute between its neighbours, which are not ready in a share `stall` of all cycles.

    blocks: sums [pixels][cols] as the drain got them. params: words with index and last. active, done: cycles.
    errors: (cycle, code). waits: cycles counted. last_read: cycle of the last scratchpad read. early: pixels that the
    drain read before their block was ready.
    """

    def __init__(self, config: Config, jobs: list[Job], seed: int = SEED, stall: float = 0.0):
        self.config, self.jobs, self.seed, self.stall = config, jobs, seed, stall
        self.rng = random.Random(seed)
        self.dut = Execute(config)
        self.halt_at = self.reset_at = -1
        self.drain_from = 0
        self.scratchpad = np.random.default_rng(seed).integers(-128, 128, (BANKS, BANK_WORDS, config.rows), np.int8)
        self.owned = np.zeros((BANKS, BANK_WORDS), bool)
        for job in jobs:
            job.store(self.scratchpad, self.owned)
        self.restart()

    def restart(self) -> None:
        """All work is still to be done."""
        self.words = deque(word for job in self.jobs for word in job.stream())
        self.commands = deque(command for job in self.jobs for command in job.commands)
        self.command_count = len(self.commands)
        self.pixels = deque(job.pixels for job in self.jobs for _ in range(job.operands["blocks"]))
        self.reads: deque[list[bytes]] = deque([[]] * feed_latency(self.config))
        self.drained = deque([0] * ACCUMULATOR_LATENCY)
        self.asked = self.taken = 0
        self.last_read = -1
        self.early = 0
        self.block: list[list[int]] = []
        self.blocks: list[list[list[int]]] = []
        self.params: list[tuple[bytes, int, int]] = []
        self.active: list[int] = []
        self.done: list[int] = []
        self.errors: list[tuple[int, int]] = []
        self.waits = {"wait_weights": 0, "wait_accumulator": 0}

    @property
    def finished(self) -> bool:
        params = sum(job.params.shape[0] * job.params.shape[1] for job in self.jobs)
        return (
            not self.pixels
            and not any(self.drained)
            and len(self.params) == params
            and len(self.done) == self.command_count
        )

    def run(self, cycles: int = 20000) -> None:
        """Simulate until all is drained, or for so many cycles."""
        reset = Signal()
        simulator = Simulator(ResetInserter(reset)(self.dut))
        simulator.add_clock(1e-6)

        async def bench(ctx: SimulatorContext):
            dut = self.dut
            for self.cycle in range(cycles):
                ctx.set(dut.halt, int(0 <= self.halt_at <= self.cycle))
                ctx.set(reset, int(self.cycle == self.reset_at))
                assert ctx.get(dut.unit.busy) or self.taken == len(self.done)
                self.scratchpad_step(ctx)
                self.drain_step(ctx)
                self.stream_step(ctx)
                if ctx.get(dut.array_active):
                    self.active.append(self.cycle)
                if ctx.get(dut.unit.done):
                    self.done.append(self.cycle)
                if code := ctx.get(dut.unit.error):
                    self.errors.append((self.cycle, code))
                for name in self.waits:
                    self.waits[name] += ctx.get(getattr(dut, name))
                if self.finished:
                    assert not ctx.get(dut.unit.busy)
                    return
                if self.cycle == self.reset_at:
                    self.restart()
                await ctx.tick()

        simulator.add_testbench(bench)
        simulator.run()

    def goes(self) -> bool:
        return self.rng.random() >= self.stall

    def scratchpad_step(self, ctx: SimulatorContext) -> None:
        """Deliver the words of two cycles ago, accept the reads of now. What was not asked for is noise."""
        read, rows = self.dut.read, self.config.rows
        ctx.set(read.data.as_value(), int.from_bytes(b"".join(self.reads.popleft()), "little"))
        all_memories = ctx.get(read.memories)
        windows: list[bytes] = []
        for bank in range(BANKS):
            window = self.rng.randbytes(2 * rows)
            if memories := all_memories >> 2 * bank & 3:
                self.last_read = self.cycle
                first = ctx.get(read.word[bank])
                count = 2 if memories == 3 else 1
                assert memories == 3 or memories == 1 << first % 2
                assert self.owned[bank, first : first + count].all(), "read outside the tensor"
                window = self.scratchpad[bank, first : first + count].tobytes() + window[count * rows :]
            windows.append(window)
        self.reads.append(windows)

    def stream_step(self, ctx: SimulatorContext) -> None:
        """Commands, weights and parameters."""
        dut = self.dut
        ctx.set(dut.params.ready, int(self.goes()))
        if self.commands and self.goes():
            ctx.set(dut.unit.command.payload, self.commands[0])
            ctx.set(dut.unit.command.valid, 1)
            if ctx.get(dut.unit.command.ready):
                self.commands.popleft()
                self.taken += 1
        else:
            ctx.set(dut.unit.command.valid, 0)
        word = self.words[0] if self.words and self.goes() else b""
        ctx.set(dut.weights.valid, int(bool(word)))
        ctx.set(dut.weights.payload.as_value(), int.from_bytes(word or self.rng.randbytes(2), "little"))
        if word and ctx.get(dut.weights.ready):
            self.words.popleft()
        if ctx.get(dut.params.valid) and ctx.get(dut.params.ready):
            payload = dut.params.payload
            word = ctx.get(payload.word.as_value()).to_bytes(self.config.cols, "little")
            self.params.append((word, ctx.get(payload.index), ctx.get(payload.last)))

    def drain_step(self, ctx: SimulatorContext) -> None:
        """Read a half pixel by pixel, as soon as each may be read, and release it with the last one."""
        port = self.dut.accumulator
        size = self.drained.popleft()
        if size:
            self.block.append([ctx.get(port.data[col]) for col in range(self.config.cols)])
            if len(self.block) == size:
                self.blocks.append(self.block)
                self.block = []
        is_there = ctx.get(port.ready) or self.asked < ctx.get(port.progress)
        asks = bool(is_there) and self.goes() and self.cycle >= self.drain_from
        self.early += asks and not ctx.get(port.ready)
        size = self.pixels[0] if asks else 0
        if asks:
            ctx.set(port.pixel, self.asked)
            self.asked = (self.asked + 1) % size
        releases = asks and self.asked == 0
        if releases:
            assert ctx.get(port.ready)
            self.pixels.popleft()
        ctx.set(port.enable, int(asks))
        ctx.set(port.release, int(releases))
        self.drained.append(size)

    def check(self) -> None:
        """Sums and parameters of all jobs."""
        assert self.finished, f"{len(self.blocks)} blocks and {len(self.done)} commands in {self.cycle + 1} cycles"
        expected = [block for job in self.jobs for block in job.sums()]
        for number, (found, right) in enumerate(zip(self.blocks, expected, strict=True)):
            np.testing.assert_array_equal(np.array(found), right, err_msg=f"block {number}, seed {self.seed}")
        words = [
            (bytes(word.tolist()), index, int(index == len(block) - 1))
            for job in self.jobs
            for block in job.params
            for index, word in enumerate(block)
        ]
        assert self.params == words
