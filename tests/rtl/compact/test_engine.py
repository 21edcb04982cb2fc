# SPDX-License-Identifier: Apache-2.0
"""The compact core's engine with its memory, without the processor: sums of passes, and what a drain writes."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, connect
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.config import BANKS, NANO, SMALL, Config
from loomwork.arch.numerics import Rounding, requantize
from loomwork.rtl.compact.engine import Engine
from loomwork.rtl.compact.layout import Layout, Register, Result
from loomwork.rtl.compact.memory import SharedMemory

NEVER = 2047
"""Rows before the ring ends, where there is none."""
CONFIGS = [replace(config, accumulator_depth=128, scratchpad_kib=8) for config in (NANO, SMALL)]
PITCH = 16


class Bench(Component):
    """Engine and memory; the test is host and processor."""

    def __init__(self, layout: Layout) -> None:
        self.engine, self.memory = Engine(layout), SharedMemory(layout)
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine, m.submodules.memory = self.engine, self.memory
        connect(m, self.engine.memory, self.memory.engine)
        return m


class Driver:
    """Writes registers and memory. busy_host: the host takes the memory from the engine now and then."""

    def __init__(self, ctx: SimulatorContext, bench: Bench, layout: Layout, rng: random.Random) -> None:
        self._ctx, self._bench, self._rng = ctx, bench, rng
        self._rows = layout.config.rows

    async def write(self, register: Register, value: int) -> None:
        engine = self._bench.engine
        self._ctx.set(engine.strobe, 1)
        self._ctx.set(engine.register, register)
        self._ctx.set(engine.data, value & 0xFFFF_FFFF)
        await self._ctx.tick()
        self._ctx.set(engine.strobe, 0)

    async def wait(self) -> int:
        """Until the engine is idle; returns the cycles in which the host let it have the memory."""
        cycles = 0
        self._ctx.set(self._bench.engine.result, Result.BUSY)
        while self._ctx.get(self._bench.engine.found):
            disturbs = self._rng.random() < 0.1
            self._ctx.set(self._bench.memory.host.request, disturbs)
            cycles += not disturbs
            await self._ctx.tick()
        self._ctx.set(self._bench.memory.host.request, 0)
        return cycles

    async def sum(self, number: int, column: int) -> int:
        await self.write(Register.PIXEL, number)
        await self.write(Register.PAD, column << 8)
        for _ in range(2):
            await self._ctx.tick()
        self._ctx.set(self._bench.engine.result, Result.ACCUMULATOR)
        value = self._ctx.get(self._bench.engine.found)
        return value - (1 << 32) if value >> 31 else value

    async def fill(self, memory: np.ndarray) -> None:
        host = self._bench.memory.host
        self._ctx.set(host.write, 1)
        self._ctx.set(host.lanes, (1 << self._rows) - 1)
        for address, word in enumerate(memory.reshape(-1, self._rows)):
            self._ctx.set(host.request, 1)
            self._ctx.set(host.address, address)
            self._ctx.set(host.write_data, int.from_bytes(word.tobytes(), "little"))
            await self._ctx.tick()
        self._ctx.set(host.request, 0)
        self._ctx.set(host.write, 0)

    async def read(self, address: int) -> bytes:
        host = self._bench.memory.host
        self._ctx.set(host.request, 1)
        self._ctx.set(host.address, address)
        await self._ctx.tick()
        self._ctx.set(host.request, 0)
        return self._ctx.get(host.read_data).to_bytes(self._rows, "little")


@dataclass(frozen=True)
class Tile:
    """What a pass, or a drain, goes through."""

    width: int
    height: int
    x: int
    x_step: int
    y: int
    y_step: int
    image_height: int
    row_bytes: int
    base: int
    ring: int

    def place(self, layout: Layout, y: int) -> int:
        """Word of the memory where an image row begins."""
        group = y // BANKS
        if self.ring and group >= self.ring:
            group -= self.ring
        return (
            layout.scratchpad // layout.config.rows + y % BANKS * layout.config.bank_words + self.base + group * PITCH
        )

    async def set(self, driver: Driver, layout: Layout) -> None:
        group = self.y // BANKS
        left = NEVER if not self.ring or group >= self.ring else self.ring - 1 - group
        wrap = PITCH - (BANKS - 1) * layout.config.bank_words
        await driver.write(Register.ROW_ADDRESS, self.place(layout, self.y))
        await driver.write(Register.ROW, (self.y & 0x3FFF) | (self.y % BANKS) << 14 | left << 16)
        await driver.write(Register.WRAP, (wrap & 0xFFFF) | ((wrap - self.ring * PITCH) & 0xFFFF) << 16)
        await driver.write(Register.HEIGHT, self.image_height | self.y_step << 16)
        await driver.write(Register.X, self.x)
        await driver.write(Register.X_STEP, self.x_step | self.row_bytes << 16)
        await driver.write(Register.SIZE, self.width | self.height << 16)


def random_tile(rng: random.Random) -> Tile:
    return Tile(
        width=rng.randint(1, 8),
        height=rng.randint(1, 8),
        x=rng.randint(-9, 20),
        x_step=rng.choice([0, 1, 2, 4, 8]),
        y=rng.randint(-3, 8),
        y_step=rng.randint(0, 3),
        image_height=rng.randint(1, 20),
        row_bytes=rng.randint(1, 60),
        base=rng.randint(0, 15),
        ring=rng.choice([0, 2, 3]),
    )


def expected_sums(
    tile: Tile, memory: np.ndarray, layout: Layout, weights: np.ndarray, pad: int, *, diagonal: bool
) -> np.ndarray:
    """`[height, width, cols]`; weights `[passes, rows, cols]`."""
    rows = layout.config.rows
    sums = np.zeros((tile.height, tile.width, rows), dtype=np.int64)
    for number, weight in enumerate(weights):
        for oy, ox in np.ndindex(tile.height, tile.width):
            y, x = tile.y + oy * tile.y_step, tile.x + ox * tile.x_step + number * rows
            pixel = np.full(rows, pad)
            for lane in range(rows):
                if 0 <= y < tile.image_height and 0 <= x + lane < tile.row_bytes:
                    pixel[lane] = memory[tile.place(layout, y) * rows + x + lane]
            sums[oy, ox] += pixel * weight[0] if diagonal else pixel @ weight
    return sums


def simulate(layout: Layout, bench: Bench, run) -> None:
    simulator = Simulator(bench)
    simulator.add_clock(1e-8)
    simulator.add_testbench(run)
    simulator.run()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_passes_add_up_pixels_of_the_image_and_padding(config: Config):
    layout = Layout(config, 2048)
    bench, rng = Bench(layout), random.Random(3)
    memory = np.random.default_rng(3).integers(-128, 128, layout.words * config.rows, dtype=np.int8)
    seen: set[tuple[bool, bool]] = set()

    async def run(ctx: SimulatorContext) -> None:
        driver = Driver(ctx, bench, layout, rng)
        await driver.fill(memory)
        for _ in range(25):
            tile, diagonal = random_tile(rng), rng.random() < 0.4
            passes = 1 if diagonal else rng.randint(1, 3)
            lanes, pad, first, place = rng.randrange(1, 1 << config.rows), rng.randint(-128, 127), 5, rng.randint(0, 90)
            await tile.set(driver, layout)
            await driver.write(Register.PIXEL, first | 1 << 10 | tile.width << 16)
            await driver.write(Register.WEIGHTS, place)
            await driver.write(Register.PAD, pad & 0xFF)
            # The second time adds to the first.
            for again in (0, 1):
                await driver.write(Register.WEIGHTS, place)
                await tile.set(driver, layout)
                await driver.write(Register.PASS, passes | lanes << 10 | diagonal << 30 | (not again) << 31)
                await driver.wait()
            shape = (passes, config.rows, config.cols)
            weights = memory.reshape(-1, config.cols)[place:][: passes * config.rows].reshape(shape).astype(np.int64)
            if not diagonal:
                weights[:, [row for row in range(config.rows) if not lanes >> row & 1]] = 0
            expected = 2 * expected_sums(tile, memory, layout, weights, pad, diagonal=diagonal)
            for number, column in np.ndindex(tile.width * tile.height, config.cols):
                found = await driver.sum(first + number, column)
                assert found == expected[number // tile.width, number % tile.width, column], (tile, number, column)
            seen.add((diagonal, tile.ring > 0))

    simulate(layout, bench, run)
    assert len(seen) == 4


def test_whole_words_take_one_cycle_each_and_passes_follow_each_other():
    config = CONFIGS[0]
    layout = Layout(config, 2048)
    bench = Bench(layout)
    cycles: dict[int, int] = {}

    class Quiet(random.Random):
        def random(self) -> float:
            return 1.0

    async def run(ctx: SimulatorContext) -> None:
        driver = Driver(ctx, bench, layout, Quiet())
        for passes in (2, 10):
            tile = Tile(8, 8, 0, 4, 0, 1, 8, 64, 0, 0)
            await tile.set(driver, layout)
            await driver.write(Register.PIXEL, 1 << 10 | 8 << 16)
            await driver.write(Register.PASS, passes | 0xF << 10 | 1 << 31)
            cycles[passes] = await driver.wait()

    simulate(layout, bench, run)
    assert cycles[10] - cycles[2] == 8 * (8 * 8 + config.rows)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_drain_writes_the_requantized_bytes_of_a_column_and_nothing_else(config: Config):
    layout = Layout(config, 2048)
    bench, rng = Bench(layout), random.Random(11)
    memory = np.random.default_rng(5).integers(-128, 128, layout.words * config.rows, dtype=np.int8)

    async def run(ctx: SimulatorContext) -> None:
        driver = Driver(ctx, bench, layout, rng)
        await driver.fill(memory)
        expected = memory.copy()
        source = Tile(4, 4, 0, config.rows, 0, 1, 4, 4 * config.rows, 0, 0)
        await driver.write(Register.WEIGHTS, 20)
        await source.set(driver, layout)
        await driver.write(Register.PIXEL, 1 << 10 | 4 << 16)
        await driver.write(Register.PASS, 1 | ((1 << config.rows) - 1) << 10 | 1 << 31)
        await driver.wait()
        weights = memory.reshape(-1, config.cols)[20:][: config.rows].astype(np.int64)
        sums = expected_sums(source, memory, layout, weights[np.newaxis], 0, diagonal=False).reshape(16, -1)
        for column in range(config.cols):
            # Every other pixel of every other row.
            target = Tile(2, 2, 13 + column, 17, 9, 1, 1, 0, 10, 0)
            bias, multiplier, shift = rng.randint(-9999, 9999), rng.randrange(2**30, 2**31), -rng.randint(4, 9)
            await target.set(driver, layout)
            await driver.write(Register.PIXEL, 2 << 10 | 8 << 16)
            await driver.write(Register.PAD, column << 8)
            await driver.write(Register.BIAS, bias)
            await driver.write(Register.MULTIPLIER, multiplier)
            await driver.write(Register.SCALE, (shift & 0x3F) | 3 << 8 | (-100 & 0xFF) << 16 | 90 << 24)
            await driver.write(Register.DRAIN, 0)
            await driver.wait()
            for oy, ox in np.ndindex(2, 2):
                scaled = requantize(sums[oy * 8 + ox * 2, column] + bias, multiplier, shift, Rounding.TFLITE)
                byte = target.place(layout, 9 + oy) * config.rows + 13 + column + ox * 17
                expected[byte] = min(max(int(scaled) + 3, -100), 90)
        for address, word in enumerate(expected.reshape(-1, config.rows)):
            assert await driver.read(address) == word.tobytes(), address
        assert np.count_nonzero(expected != memory) > config.cols

    simulate(layout, bench, run)
