# SPDX-License-Identifier: Apache-2.0
"""The window check against plain integers."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import SimulatorContext

from loomwork.arch.config import BASE, FORMAL, Config
from loomwork.arch.isa import READABLE_WINDOWS, WRITABLE_WINDOWS, Window
from loomwork.rtl.memory_window import LENGTH_BITS, OFFSET_BITS, WindowCheck
from tests.rtl.unit_driver import simulate

HUGE = (1 << OFFSET_BITS) - 16
WIDE = replace(BASE, name="wide", address_bits=64)
SHORT = replace(BASE, name="short", address_bits=24)
LATE = replace(BASE, name="late", deep_pipeline=True)
MAX_BEATS = 16


def cases(rng: random.Random, config: Config, windows: dict[int, tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """(window, offset, length, misaligned): legal ones, just not legal ones, and enormous ones."""
    bus = config.bus_bytes
    result = [
        (0, HUGE, 16, 0),
        (0, 0, (1 << LENGTH_BITS) - 1, 0),
        (0, HUGE, (1 << LENGTH_BITS) - 1, 0),
        (0, (1 << 32) - bus, bus, 0),
        (0, 1 << 32, bus, 0),
        (0, (1 << 32) - bus, 2 * bus, 0),
        (0, 0, bus, 1),
    ]
    for _ in range(200):
        window = rng.choice([*range(8), 2, 3, 3, 4, 4])
        size = windows.get(window, (0, 4096))[1]
        offset = bus * rng.randint(0, size // bus)
        length = size - offset + rng.choice([0, 0, 0, -1, -bus, -rng.randint(0, size), 1, bus])
        result.append((window, offset, max(1, length), rng.random() < 0.05))
    return result


@pytest.mark.parametrize("allowed", [READABLE_WINDOWS, WRITABLE_WINDOWS], ids=["read", "write"])
@pytest.mark.parametrize("config", [FORMAL, BASE, WIDE, SHORT, LATE], ids=lambda config: config.name)
def test_passes_exactly_what_lies_inside(config: Config, allowed: Sequence[Window]):
    rng = random.Random(20250105)
    reset = Signal()
    dut = WindowCheck(config, allowed, MAX_BEATS)
    bus = config.bus_bytes
    end_of_addresses = 1 << config.address_bits
    windows = {int(window): (0x10000 * (window + 1), rng.choice([48, 4096, 5008])) for window in Window}
    # Two that end at the end of the address space, one that goes beyond it.
    windows[Window.COMMANDS] = (end_of_addresses - 8192, (1 << 32) - 1)
    windows[Window.CONSTANTS] = (end_of_addresses - 4096, 4096)
    windows[Window.OUTPUTS] = (end_of_addresses - 4096, 8192)
    verdicts: list[bool] = []

    async def main(ctx: SimulatorContext):
        for window, (base, size) in windows.items():
            ctx.set(dut.windows[window].base, base)
            ctx.set(dut.windows[window].size, size)
        ctx.set(dut.o.ready, 1)
        for window, offset, length, misaligned in cases(rng, config, windows):
            base, size = windows.get(window, (0, 0))
            end = offset + length
            legal = window in allowed and not misaligned and end <= size and base + end <= end_of_addresses
            verdicts.append(legal)
            ctx.set(dut.i.payload, {"window": window, "offset": offset, "length": length, "misaligned": misaligned})
            ctx.set(dut.i.valid, 1)
            assert ctx.get(dut.i.ready)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            assert ctx.get(dut.busy)
            assert not ctx.get(dut.o.valid)
            await ctx.tick()
            assert ctx.get(dut.o.valid) == legal, (window, offset, length)
            if legal:
                beats = -(-length // bus)
                padded = beats + (base + offset) // bus % MAX_BEATS
                assert ctx.get(dut.o.payload.address) == base + offset
                assert ctx.get(dut.o.payload.beats) == beats
                assert ctx.get(dut.o.payload.padded) == padded
                assert ctx.get(dut.o.payload.single) == (padded <= MAX_BEATS)
            if config.deep_pipeline:
                assert ctx.get(dut.busy), "it is judged in the next cycle"
                assert not ctx.get(dut.fault)
                await ctx.tick()
                assert not ctx.get(dut.o.valid)
            assert not ctx.get(dut.busy)
            assert ctx.get(dut.fault) == (not legal), (window, offset, length)
            if legal:
                await ctx.tick()
            else:
                assert not ctx.get(dut.i.ready), "nothing passes behind an illegal span"
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)

    simulate(ResetInserter(reset)(dut), main)
    assert 20 < sum(verdicts) < len(verdicts) - 20, sum(verdicts)


@pytest.mark.parametrize("config", [BASE, LATE], ids=lambda config: config.name)
def test_one_span_per_cycle_and_none_behind_an_illegal_one(config: Config):
    dut = WindowCheck(config, READABLE_WINDOWS, MAX_BEATS)
    passed: list[int] = []

    async def send(ctx: SimulatorContext):
        ctx.set(dut.windows[0].size, 4096)
        for number in range(60):
            offset = 4096 if number == 50 else 16 * number
            ctx.set(dut.i.payload, {"window": 0, "offset": offset, "length": 16, "misaligned": 0})
            ctx.set(dut.i.valid, 1)
            for _ in range(100):
                _, _, ready = await ctx.tick().sample(dut.i.ready)
                if ready:
                    break

    async def receive(ctx: SimulatorContext):
        rng = random.Random(20250106)
        for cycle in range(200):
            ctx.set(dut.o.ready, cycle < 22 or rng.random() < 0.5)
            _, _, valid, ready, address = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload.address)
            assert valid or cycle not in range(2, 22)
            if valid and ready:
                passed.append(address)

    simulate(dut, receive, beside=send)
    assert passed == [16 * number for number in range(50)]
