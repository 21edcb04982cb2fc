# SPDX-License-Identifier: Apache-2.0
"""STREAM: words of `cols` bytes in order, fetched ahead, with an AXI memory that checks the bus."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import SimulatorContext

from loomwork.arch.command import Command, encode
from loomwork.arch.config import BASE, MID, SMALL, Config
from loomwork.arch.isa import Window
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.read_master import ReadMaster
from loomwork.rtl.stream_reader import StreamReader
from tests.rtl.axi_memory import CONFIGS, SLVERR, AxiMemory, make_windows, set_windows
from tests.rtl.unit_driver import UnitLog, send_commands, simulate, wait_for, watch_unit

READER = 2
SIZE = 8192


@dataclass
class Bench:
    """STREAM with a read master and a memory. words: (cycle, word) as they were taken; taking: probability."""

    config: Config
    seed: int
    latency: int = 40
    stall: float = 0.0
    taking: float = 1.0
    words: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    log: UnitLog = field(default_factory=UnitLog)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.stream = StreamReader(self.config)
        self.master = ReadMaster(self.config, 3)
        self.module = m = Module()
        m.submodules.stream, m.submodules.master = self.stream, self.master
        connect(m, self.stream.bus, self.master.readers[READER])
        self.memory = AxiMemory(self.config, make_windows(self.rng, SIZE), self.rng, self.latency, self.stall)

    async def take_words(self, ctx: SimulatorContext) -> None:
        words = self.stream.words
        cycle = 0
        held = None
        while True:
            ctx.set(words.ready, self.rng.random() < self.taking)
            _, _, valid, ready, word = await ctx.tick().sample(words.valid, words.ready, words.payload.as_value())
            assert held is None or (valid and word == held), "a word must stay until it is taken"
            held = word if valid and not ready else None
            if valid and ready:
                self.words.append((cycle, word.to_bytes(self.config.cols, "little")))
            cycle += 1

    def run(self, main: Any) -> None:
        async def serve(ctx: SimulatorContext):
            set_windows(ctx, self.stream.windows, self.memory.regions)
            await self.memory.serve_reads(ctx, self.master.axi)

        async def watch(ctx: SimulatorContext):
            await watch_unit(ctx, self.stream.unit, self.log)

        simulate(self.module, main, serve, watch, self.take_words)

    def run_commands(self, commands: list[Command], cycles: int = 30000) -> None:
        """Run until all words have come."""
        count = sum(command["words"] for command in commands)

        async def main(ctx: SimulatorContext):
            await send_commands(ctx, self.stream.unit, commands)
            await wait_for(ctx, lambda: len(self.words) == count, cycles)
            await ctx.tick().repeat(60)
            assert not ctx.get(self.stream.unit.busy)

        self.run(main)

    def expected(self, commands: list[Command]) -> list[bytes]:
        cols = self.config.cols
        words: list[bytes] = []
        for command in commands:
            contents = self.memory.regions[Window(command["window"])].contents
            for number in range(command["words"]):
                start = command["offset"] + number * cols
                words.append(bytes(contents[start : start + cols]))
        return words


def stream(words: int, offset: int = 0, window: int = Window.CONSTANTS) -> Command:
    return Command("STREAM", {"window": window, "offset": offset, "words": words})


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(
    "config", [*CONFIGS, replace(MID, name="quarter", cols=4, requant_lanes=4)], ids=lambda c: c.name
)
def test_words_come_in_order_across_commands(config: Config, stall: float):
    bench = Bench(config, seed=1, latency=11, stall=stall, taking=1 - stall)
    bus = config.bus_bytes
    commands: list[Command] = []
    for _ in range(25):
        words = bench.rng.choice([1, 2, 3, 5, 16, bench.rng.randint(1, 150)])
        offset = bus * bench.rng.randint(0, (SIZE - words * config.cols) // bus)
        commands.append(stream(words, offset, bench.rng.choice(list(Window))))
    bench.run_commands(commands)
    assert [word for _, word in bench.words] == bench.expected(commands)
    assert len(bench.log.done) == len(commands)
    assert not bench.log.errors


@pytest.mark.parametrize("config", [BASE, SMALL, MID, CONFIGS[-1]], ids=lambda config: config.name)
def test_full_rate_at_40_cycles_latency(config: Config):
    config = replace(config, stream_beats=128)
    bench = Bench(config, seed=2)
    commands = [stream(4096 // config.cols)]
    bench.run_commands(commands)
    assert [word for _, word in bench.words] == bench.expected(commands)
    cycles = 4096 // min(config.cols, config.bus_bytes)
    assert bench.words[-1][0] - bench.log.taken[0] <= cycles + 40 + 12


@pytest.mark.parametrize("config", [BASE, MID], ids=lambda config: config.name)
def test_commands_follow_each_other_without_a_lost_cycle(config: Config):
    bench = Bench(config, seed=3)
    # Every command takes a whole number of beats.
    per_command = 24 * config.bus_bytes // config.cols
    commands = [stream(per_command, 384 * number) for number in range(12)]
    bench.run_commands(commands)
    assert [word for _, word in bench.words] == bench.expected(commands)
    cycles = [cycle for cycle, _ in bench.words]
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def test_reads_ahead_until_the_queue_is_full_and_says_done():
    bench = Bench(BASE, seed=4, taking=0.0)
    commands = [stream(30, 1024 * number) for number in range(4)]

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.stream.unit, commands)
        await ctx.tick().repeat(400)
        assert len(bench.log.done) == 4
        assert bench.memory.read_beats == 120
        await send_commands(ctx, bench.stream.unit, [stream(100)])
        await ctx.tick().repeat(400)
        assert bench.memory.read_beats <= 128, "beats were requested without room for them"

    bench.run(main)


@pytest.mark.parametrize(
    ("words", "offset"), [(2, SIZE - 16), (1, SIZE), ((1 << 28) - 1, 0), (1, 8), (2, (1 << 32) - 16)]
)
def test_a_command_outside_its_window_never_reaches_the_bus(words: int, offset: int):
    bench = Bench(BASE, seed=5)

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.stream.unit, [stream(200), stream(words, offset)])
        # The next command must not be taken any more.
        ctx.set(bench.stream.unit.command.payload, int.from_bytes(encode(stream(1)), "little"))
        ctx.set(bench.stream.unit.command.valid, 1)
        await wait_for(ctx, lambda: bool(bench.log.errors), 1000)
        await ctx.tick().repeat(100)

    bench.run(main)
    assert [code for _, code in bench.log.errors] == [ErrorCode.WINDOW]
    assert len(bench.log.done) == 1
    assert bench.log.done[0] < bench.log.errors[0][0], "the error must concern the oldest unfinished command"
    assert sum(length for _, length in bench.memory.reads) == 200 * 16
    assert len(bench.log.taken) == 2


@pytest.mark.parametrize(("size", "legal"), [(48, True), (47, False)])
def test_the_whole_last_beat_must_lie_in_the_window(size: int, legal: bool):
    bench = Bench(MID, seed=6)
    commands = [stream(5)]

    async def main(ctx: SimulatorContext):
        ctx.set(bench.stream.windows[Window.CONSTANTS].size, size)
        await send_commands(ctx, bench.stream.unit, commands)
        await ctx.tick().repeat(150)

    bench.run(main)
    assert [word for _, word in bench.words] == (bench.expected(commands) if legal else [])
    assert [code for _, code in bench.log.errors] == ([] if legal else [ErrorCode.WINDOW])


def test_a_bus_error_is_reported_for_the_command_it_belongs_to():
    bench = Bench(SMALL, seed=7, latency=10, taking=0.5)
    bench.memory.faults[bench.memory.regions[Window.CONSTANTS].base + 1024 + 8 * 19] = SLVERR

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.stream.unit, [stream(30), stream(20, 1024), stream(4)])
        await wait_for(ctx, lambda: bool(bench.log.errors), 500)
        await ctx.tick().repeat(100)

    bench.run(main)
    assert [code for _, code in bench.log.errors] == [ErrorCode.BUS_READ]
    assert len(bench.log.done) == 1
    assert bench.log.done[0] < bench.log.errors[0][0]
