# SPDX-License-Identifier: Apache-2.0
"""STORE against the definition of the scratchpad's layout, with an AXI memory that checks the bus."""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import SimulatorContext

from loomwork.arch.command import Command
from loomwork.arch.config import BASE, SMALL, TINY, Config
from loomwork.arch.isa import READABLE_WINDOWS, WRITABLE_WINDOWS, Window
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.ports import window_latency
from loomwork.rtl.scratchpad_reader import QUEUE_BEATS
from loomwork.rtl.store import Store
from loomwork.rtl.write_master import WriteMaster
from tests.rtl.axi_memory import CONFIGS, DECERR, SLVERR, AxiMemory, bursts_of, make_windows, set_windows
from tests.rtl.unit_driver import UnitLog, send_commands, simulate, wait_for, watch_unit

LATE = replace(TINY, name="late", deep_pipeline=True)


@dataclass
class Bench:
    """STORE with a write master, a memory, and a scratchpad whose words are random and made when first read."""

    config: Config
    seed: int
    latency: int = 40
    stall: float = 0.0
    words: dict[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes])
    log: UnitLog = field(default_factory=UnitLog)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.store = Store(self.config)
        self.master = WriteMaster(self.config)
        self.module = m = Module()
        m.submodules.store, m.submodules.master = self.store, self.master
        connect(m, self.store.bus, self.master.writer)
        size = 256 * self.config.rows
        self.memory = AxiMemory(self.config, make_windows(self.rng, size), self.rng, self.latency, self.stall)
        self.before = {window: bytes(region.contents) for window, region in self.memory.regions.items()}

    def word(self, bank: int, word: int) -> bytes:
        return self.words.setdefault((bank, word), self.rng.randbytes(self.config.rows))

    async def serve_words(self, ctx: SimulatorContext) -> None:
        read = self.store.read
        under_way: deque[bytes | None] = deque([None] * (window_latency(self.config) - 1))
        while True:
            ctx.set(read.request.ready, self.rng.random() >= self.stall)
            _, _, valid, ready, bank, word, wide = await ctx.tick().sample(
                *(read.request.valid, read.request.ready),
                *(read.request.payload.bank, read.request.payload.word, read.request.payload.wide),
            )
            if valid and ready:
                assert not wide, "the second word of the window does not matter"
            under_way.append(self.word(bank, word) if valid and ready else None)
            data = under_way.popleft()
            ctx.set(read.data_valid, data is not None)
            garbage = self.rng.randbytes(2 * self.config.rows)
            value = garbage if data is None else data + garbage[: self.config.rows]
            ctx.set(read.data.as_value(), int.from_bytes(value, "little"))

    def has_done(self, commands: int) -> bool:
        return len(self.log.done) == commands

    def run(self, main: Any) -> None:
        async def serve(ctx: SimulatorContext):
            set_windows(ctx, self.store.windows, self.memory.regions)
            await self.memory.serve_writes(ctx, self.master.axi)

        async def watch(ctx: SimulatorContext):
            await watch_unit(ctx, self.store.unit, self.log)

        simulate(self.module, main, serve, watch, self.serve_words)

    def run_commands(self, commands: list[Command], cycles: int = 20000) -> None:
        """Run until all commands are done."""

        async def main(ctx: SimulatorContext):
            for number, command in enumerate(commands):
                await send_commands(ctx, self.store.unit, [command])
                await wait_for(ctx, partial(self.has_done, number + 1), cycles)
                assert not self.memory.outstanding, "done comes behind the last response"
            await ctx.tick().repeat(20)
            assert ctx.get(self.master.idle)
            assert not ctx.get(self.store.unit.busy)

        self.run(main)

    def expected(self, commands: list[Command]) -> dict[Window, bytes]:
        """The windows afterwards, from the definition of the layout in arch/isa.py."""
        after = {window: bytearray(contents) for window, contents in self.before.items()}
        for command in commands:
            for number in range(command["rows"]):
                y = command["row"] + number
                row = b"".join(
                    self.words[y % 4, command["base"] + y // 4 * command["pitch"] + word]
                    for word in range(command["words"])
                )
                start = command["offset"] + number * command["row_stride"]
                after[Window(command["window"])][start : start + len(row)] = row
        return {window: bytes(contents) for window, contents in after.items()}

    def contents(self) -> dict[Window, bytes]:
        return {window: bytes(region.contents) for window, region in self.memory.regions.items()}


def store(**operands: int) -> Command:
    defaults = {"window": Window.OUTPUTS, "offset": 0, "row_stride": 0, "base": 0, "pitch": 0, "row": 0}
    return Command("STORE", {**defaults, "rows": 1, "words": 1, **operands})


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("config", [*CONFIGS, LATE], ids=lambda config: config.name)
def test_copies_rows_from_their_banks(config: Config, stall: float):
    bench = Bench(config, seed=1, latency=9, stall=stall)
    rows = config.rows
    commands = [
        store(base=5, pitch=9, row=3, rows=1, words=100),
        store(offset=104 * rows, row_stride=8 * rows, base=9, pitch=5, row=6, rows=11, words=5),
        store(offset=255 * rows, words=1, base=1000, row=99, pitch=77),
        store(window=Window.WORKSPACE, offset=config.bus_bytes, row_stride=rows + config.bus_bytes, rows=20),
        store(window=Window.WORKSPACE, offset=100 * rows, row_stride=51 * rows, rows=4, words=3, pitch=3),
    ]
    bench.run_commands(commands)
    assert bench.contents() == bench.expected(commands)
    assert not bench.log.errors


@pytest.mark.parametrize("config", [BASE, SMALL, CONFIGS[-1]], ids=lambda config: config.name)
@pytest.mark.parametrize("split", [1, 8, 64])
def test_one_beat_per_cycle_at_40_cycles_latency(config: Config, split: int):
    words = 4096 // config.rows
    bench = Bench(config, seed=2)
    for window, region in bench.memory.regions.items():
        region.contents[:] = bench.before[window] = bytes(4096)
    command = store(row_stride=4096 // split, pitch=words // split, rows=split, words=words // split)
    bench.run_commands([command])
    assert bench.contents() == bench.expected([command])
    assert bench.log.done[0] - bench.log.taken[0] <= 4096 // config.bus_bytes + 40 + 32


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("gap", [0, 1])
def test_rows_that_lie_end_to_end_are_written_in_the_longest_bursts(config: Config, gap: int):
    """gap: bus words between the rows, which then have bursts of their own."""
    bench = Bench(config, seed=8, latency=5)
    stride = 2 * config.rows + gap * config.bus_bytes
    rows = (256 * config.rows - 2 * config.rows) // stride
    commands = [
        store(offset=256 * config.rows - rows * stride, row_stride=stride, rows=rows, words=2, row=1, pitch=2),
        store(window=Window.WORKSPACE, row_stride=7 * config.bus_bytes, rows=1, words=9),
    ]
    bench.run_commands(commands)
    assert bench.contents() == bench.expected(commands)
    longest = min(1024, 64 * config.bus_bytes, QUEUE_BEATS // 4 * config.bus_bytes)
    bases = [bench.memory.regions[Window(command["window"])].base for command in commands]
    bursts = [bursts_of(command, config, base, longest) for command, base in zip(commands, bases, strict=True)]
    assert bench.memory.writes == [*bursts[0], *bursts[1]]
    assert (len(bursts[0]) < rows) == (gap == 0)


@pytest.mark.parametrize(
    "operands",
    [
        {"offset": 1024, "row_stride": 64, "words": 8, "rows": 17},
        {"row_stride": 8 * 2048, "words": 2048, "rows": 2048},
        {"offset": 4, "row_stride": 8, "rows": 3},
        {"offset": 2048 - 8, "words": 2},
        {"offset": (1 << 32) - 8, "words": 2},
        {"offset": 4},
        {"row_stride": 12, "rows": 2},
        *({"window": window} for window in READABLE_WINDOWS if window not in WRITABLE_WINDOWS),
    ],
)
def test_a_row_outside_its_window_never_reaches_the_bus(operands: dict[str, int]):
    bench = Bench(SMALL, seed=3)
    assert len(bench.memory.regions[Window.OUTPUTS].contents) == 2048

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.store.unit, [store(**operands)])
        await wait_for(ctx, lambda: bool(bench.log.errors), 500)
        await ctx.tick().repeat(100)
        assert ctx.get(bench.master.idle)

    bench.run(main)
    assert [code for _, code in bench.log.errors] == [ErrorCode.WINDOW]
    assert not bench.log.done
    assert not bench.memory.writes
    assert bench.contents() == bench.before


@pytest.mark.parametrize("burst", [0, 3])
@pytest.mark.parametrize("response", [SLVERR, DECERR])
def test_a_bus_error_is_reported_and_the_command_never_done(response: int, burst: int):
    bench = Bench(SMALL, seed=4, latency=10)
    bench.memory.faults[bench.memory.regions[Window.OUTPUTS].base + burst * 16 * 8] = response

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.store.unit, [store(words=64)])
        await wait_for(ctx, lambda: bool(bench.log.errors), 500)
        await ctx.tick().repeat(100)

    bench.run(main)
    assert [code for _, code in bench.log.errors] == [ErrorCode.BUS_WRITE]
    assert not bench.log.done


@pytest.mark.parametrize("cycle", [10, 25, 60])
def test_halt_completes_the_bursts_that_have_begun(cycle: int):
    bench = Bench(BASE, seed=5, stall=0.3)

    async def main(ctx: SimulatorContext):
        await send_commands(ctx, bench.store.unit, [store(words=200)])
        await ctx.tick().repeat(cycle)
        ctx.set(bench.store.halt, 1)
        ctx.set(bench.master.halt, 1)
        await ctx.tick()
        for _ in range(1000):
            await ctx.tick()
            if ctx.get(bench.master.idle):
                break
        else:
            raise AssertionError("the bus is never idle")
        assert not bench.memory.outstanding
        beats = bench.memory.write_beats
        assert beats * 16 == sum(length for _, length in bench.memory.writes)
        await ctx.tick().repeat(100)
        assert bench.memory.write_beats == beats

    bench.run(main)
