# SPDX-License-Identifier: Apache-2.0
"""LOAD against the definition of the scratchpad's layout, with an AXI memory that checks the bus."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import SimulatorContext

from loomwork.arch.command import Command, encode
from loomwork.arch.config import BASE, SMALL, Config
from loomwork.arch.isa import Window
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.load import Load
from loomwork.rtl.ports import WORD_ADDRESS_BITS
from loomwork.rtl.read_master import ReadMaster
from tests.rtl.axi_memory import CONFIGS, DECERR, SLVERR, AxiMemory, bursts_of, make_windows, set_windows
from tests.rtl.unit_driver import UnitLog, send_commands, simulate, wait_for, watch_unit

READER = 1
Word = tuple[int, int, int]


@dataclass
class Bench:
    """LOAD with a read master and a memory. writes: (bank, word, data) in the order in which they came."""

    config: Config
    seed: int
    latency: int = 40
    stall: float = 0.0
    writes: list[Word] = field(default_factory=list[Word])
    log: UnitLog = field(default_factory=UnitLog)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.load = Load(self.config)
        self.master = ReadMaster(self.config, 2)
        self.module = m = Module()
        m.submodules.load, m.submodules.master = self.load, self.master
        connect(m, self.load.bus, self.master.readers[READER])
        size = 256 * self.config.rows
        self.memory = AxiMemory(self.config, make_windows(self.rng, size), self.rng, self.latency, self.stall)

    async def take_writes(self, ctx: SimulatorContext) -> None:
        write = self.load.write
        while True:
            ctx.set(write.ready, self.rng.random() >= self.stall)
            _, _, valid, ready, bank, word, data = await ctx.tick().sample(
                write.valid, write.ready, write.payload.bank, write.payload.word, write.payload.data.as_value()
            )
            if valid and ready:
                self.writes.append((bank, word, data))

    def run(self, main: Any) -> None:
        async def serve(ctx: SimulatorContext):
            set_windows(ctx, self.load.windows, self.memory.regions)
            await self.memory.serve_reads(ctx, self.master.axi)

        async def watch(ctx: SimulatorContext):
            await watch_unit(ctx, self.load.unit, self.log)

        simulate(self.module, main, serve, watch, self.take_writes)

    def run_commands(self, commands: list[Command], cycles: int = 20000) -> None:
        """Run until all commands are done, then some cycles more."""

        async def main(ctx: SimulatorContext):
            await send_commands(ctx, self.load.unit, commands)
            await wait_for(ctx, lambda: len(self.log.done) == len(commands), cycles)
            await ctx.tick().repeat(20)
            assert ctx.get(self.master.idle)
            assert not ctx.get(self.load.unit.busy)

        self.run(main)

    def expected(self, command: Command) -> list[Word]:
        """What the command writes, from the definition of the layout in arch/isa.py."""
        contents = self.memory.regions[Window(command["window"])].contents
        rows = self.config.rows
        words: list[Word] = []
        for number in range(command["rows"]):
            y = command["row"] + number
            for word in range(command["words"]):
                start = command["offset"] + number * command["row_stride"] + word * rows
                data = int.from_bytes(contents[start : start + rows], "little")
                words.append((y % 4, command["base"] + y // 4 * command["pitch"] + word, data))
        return words


def load(**operands: int) -> Command:
    defaults = {"window": Window.INPUTS, "offset": 0, "row_stride": 0, "base": 0, "pitch": 0, "row": 0}
    return Command("LOAD", {**defaults, "rows": 1, "words": 1, **operands})


def random_load(rng: random.Random, config: Config, size: int) -> Command:
    """A legal LOAD of up to some hundred words; sometimes one that ends exactly at the end of its window."""
    words, rows = rng.choice(
        [(1, 20), (1, 1), (3, 7), (rng.randint(1, 100), 1), (rng.randint(1, 12), rng.randint(1, 9))]
    )
    length = words * config.rows
    bus = config.bus_bytes
    slack = (size - length) // bus
    stride = bus * rng.randint(0, slack // max(1, rows - 1))
    last = size - length - (rows - 1) * stride
    offset = last if rng.random() < 0.3 else bus * rng.randint(0, last // bus)
    return load(
        window=rng.choice(list(Window)),
        offset=offset,
        row_stride=stride,
        base=rng.randrange(200),
        pitch=rng.randrange(50),
        row=rng.randrange(100),
        rows=rows,
        words=words,
    )


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_copies_rows_to_their_banks(config: Config, stall: float):
    bench = Bench(config, seed=1, latency=7, stall=stall)
    size = len(bench.memory.regions[Window.INPUTS].contents)
    commands = [random_load(bench.rng, config, size) for _ in range(12)]
    bench.run_commands(commands)
    assert bench.writes == [word for command in commands for word in bench.expected(command)]
    assert not bench.log.errors


def test_an_address_too_large_for_any_bank_is_not_wrapped():
    bench = Bench(SMALL, seed=2, latency=3)
    bench.run_commands([load(base=65535, pitch=4095, row=4095, rows=2, words=2, row_stride=8)])
    largest = (1 << WORD_ADDRESS_BITS) - 1
    assert [(bank, word) for bank, word, _ in bench.writes] == [(3, largest), (3, largest), (0, largest), (0, largest)]


@pytest.mark.parametrize("config", [BASE, SMALL, CONFIGS[-1]], ids=lambda config: config.name)
@pytest.mark.parametrize("shape", ["one_row", "short_rows", "rows_of_one_beat"])
def test_one_beat_per_cycle_at_40_cycles_latency(config: Config, shape: str):
    beats_per_word = config.rows // config.bus_bytes
    words = 4096 // config.rows
    split = {"one_row": 1, "short_rows": words // 8, "rows_of_one_beat": words}[shape]
    per_row = words // split
    stride = config.rows * per_row
    bench = Bench(replace(config, stream_beats=128), seed=3)
    bench.memory.regions[Window.INPUTS].contents[:] = bench.rng.randbytes(4096)
    command = load(row_stride=stride, pitch=per_row, rows=split, words=per_row)
    bench.run_commands([command])
    assert bench.writes == bench.expected(command)
    assert bench.log.done[0] - bench.log.taken[0] <= words * beats_per_word + 40 + 12


def test_reads_of_the_next_command_do_not_wait_for_the_words_of_this_one():
    bench = Bench(BASE, seed=4)
    commands = [load(words=32, offset=512 * number) for number in range(4)]
    bench.run_commands(commands)
    assert bench.writes == [word for command in commands for word in bench.expected(command)]
    assert bench.log.done[-1] - bench.log.taken[0] <= 4 * 32 + 40 + 4 * 8


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("gap", [0, 1, -1])
def test_rows_that_lie_end_to_end_are_read_in_the_longest_bursts(config: Config, gap: int):
    """gap: bus words between the rows, which then have bursts of their own; -1: rows overlap."""
    bench = Bench(config, seed=8, latency=5)
    words = 3 if gap < 0 else 2
    stride = words * config.rows + gap * config.bus_bytes
    commands = [
        load(offset=config.rows, row_stride=stride, rows=17, words=words, row=2, pitch=words),
        # Ends with its window.
        load(
            offset=(256 - words) * config.rows - 39 * stride,
            row_stride=stride,
            rows=40,
            words=words,
            row=1,
            pitch=words,
        ),
        load(offset=0, row_stride=7 * config.bus_bytes, rows=1, words=9),
    ]
    bench.run_commands(commands)
    assert bench.writes == [word for command in commands for word in bench.expected(command)]
    longest = min(1024, 64 * config.bus_bytes, config.stream_beats // 4 * config.bus_bytes)
    first = bench.memory.regions[Window.INPUTS].base
    assert bench.memory.reads == [burst for command in commands for burst in bursts_of(command, config, first, longest)]
    if gap == 0:
        assert len(bench.memory.reads) < 17 + 40


@pytest.mark.parametrize(
    ("operands", "bursts"),
    [
        ({"offset": 1024, "row_stride": 64, "words": 8, "rows": 17}, 0),
        ({"offset": 1024, "row_stride": 64, "words": 4, "rows": 17}, 16),
        ({"row_stride": 8 * 2048, "words": 2048, "rows": 2048}, 0),
        ({"offset": 4, "row_stride": 8, "rows": 3}, 0),
        ({"offset": 2048 - 8, "words": 2}, 0),
        ({"offset": 2048, "words": 1}, 0),
        ({"offset": 4}, 0),
        ({"offset": (1 << 32) - 8, "words": 2}, 0),
        ({"offset": 0, "row_stride": 1024, "rows": 3}, 2),
        ({"offset": 0, "row_stride": 4, "rows": 2}, 0),
        ({"offset": 0, "row_stride": (1 << 24) - 8, "rows": 4095}, 1),
    ],
)
def test_a_row_outside_its_window_never_reaches_the_bus(operands: dict[str, int], bursts: int):
    bench = Bench(SMALL, seed=5)
    assert len(bench.memory.regions[Window.INPUTS].contents) == 2048

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.load.unit, [load(words=8), load(**operands)])
        # The next command must not be taken any more.
        ctx.set(bench.load.unit.command.payload, int.from_bytes(encode(load()), "little"))
        ctx.set(bench.load.unit.command.valid, 1)
        await wait_for(ctx, lambda: bool(bench.log.errors), 500)
        await ctx.tick().repeat(100)
        assert ctx.get(bench.master.idle)

    bench.run(main)
    assert [code for _, code in bench.log.errors] == [ErrorCode.WINDOW]
    assert len(bench.log.done) == 1
    assert bench.log.done[0] < bench.log.errors[0][0], "the error must concern the oldest unfinished command"
    assert len(bench.memory.reads) == 1 + bursts
    assert len(bench.log.taken) == 2


@pytest.mark.parametrize("response", [SLVERR, DECERR])
def test_a_bus_error_is_reported_for_the_command_it_belongs_to(response: int):
    bench = Bench(SMALL, seed=6, latency=10)
    region = bench.memory.regions[Window.INPUTS]
    bench.memory.faults[region.base + 512 + 24] = response

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.load.unit, [load(words=40), load(offset=512, words=8), load(words=4)])
        await wait_for(ctx, lambda: bool(bench.log.errors), 500)
        await ctx.tick().repeat(50)

    bench.run(main)
    assert [code for _, code in bench.log.errors] == [ErrorCode.BUS_READ]
    assert len(bench.log.done) == 1
    assert bench.log.done[0] < bench.log.errors[0][0]
    assert len(bench.writes) == 40 + 3


@pytest.mark.parametrize("seed", range(20))
def test_a_bus_error_waits_for_the_last_word_of_the_command_before(seed: int):
    bench = Bench(SMALL, seed=seed, latency=10, stall=0.7)
    region = bench.memory.regions[Window.INPUTS]
    bench.memory.faults[region.base + 512] = SLVERR

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.load.unit, [load(words=4), load(offset=512, words=8)])
        await wait_for(ctx, lambda: bool(bench.log.errors), 500)

    bench.run(main)
    assert len(bench.writes) == 4
    assert len(bench.log.done) == 1
    assert bench.log.done[0] < bench.log.errors[0][0]


@pytest.mark.parametrize("cycle", [5, 60, 75])
def test_halt_completes_what_is_on_the_bus_and_writes_nothing(cycle: int):
    bench = Bench(BASE, seed=7, stall=0.2)
    bench.memory.regions[Window.INPUTS].contents[:] = bench.rng.randbytes(8192)
    seen: list[int] = []

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.load.unit, [load(words=512)])
        await ctx.tick().repeat(cycle)
        ctx.set(bench.load.halt, 1)
        ctx.set(bench.master.halt, 1)
        await ctx.tick().repeat(2)
        seen.append(len(bench.writes))
        for _ in range(1000):
            await ctx.tick()
            if ctx.get(bench.master.idle) and not bench.memory.outstanding:
                break
        else:
            raise AssertionError("the bus is never idle")
        seen.append(len(bench.writes))
        bursts = len(bench.memory.reads)
        await ctx.tick().repeat(100)
        assert len(bench.memory.reads) == bursts

    bench.run(main)
    assert seen[0] == seen[1]
