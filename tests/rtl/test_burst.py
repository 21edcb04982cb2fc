# SPDX-License-Identifier: Apache-2.0
"""Bursts: joined end to end they are the run, and each keeps the rules."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import SimulatorContext

from loomwork.arch.config import BASE, FORMAL, LARGE, NANO, PRESETS, SMALL, Config
from loomwork.rtl.burst import BurstSplitter, burst_limit
from tests.rtl.unit_driver import assert_refused, simulate


@pytest.mark.parametrize(
    ("config", "max_beats"), [(BASE, 32), (FORMAL, 8), (SMALL, 64), (replace(BASE, address_bits=40), 16), (SMALL, 1)]
)
def test_cuts_runs(config: Config, max_beats: int):
    rng = random.Random(20250104)
    dut = BurstSplitter(config, max_beats)
    bus = config.bus_bytes
    runs = [
        (
            bus * rng.randrange((1 << config.address_bits) // bus >> 8),
            rng.choice([1, 2, 7, max_beats, rng.randint(1, 300)]),
        )
        for _ in range(60)
    ]
    bursts: list[tuple[int, int]] = []
    cycles = 0

    async def send(ctx: SimulatorContext):
        for address, beats in runs:
            padded = beats + address // bus % max_beats
            ctx.set(
                dut.i.payload,
                {"address": address, "beats": beats, "padded": padded, "single": padded <= max_beats},
            )
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def receive(ctx: SimulatorContext):
        nonlocal cycles
        total = sum(beats for _, beats in runs)
        while sum(beats for _, beats in bursts) < total:
            ctx.set(dut.o.ready, cycles < 200 or rng.random() < 0.5)
            _, _, valid, ready, address, length = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload.address, dut.o.payload.length
            )
            assert valid or cycles == 0, "there is a burst in every cycle"
            cycles += 1
            if valid and ready:
                bursts.append((address, length + 1))

    simulate(dut, receive, beside=send)
    assert all(1 <= beats <= max_beats for _, beats in bursts)
    assert all(address // 4096 == (address + beats * bus - 1) // 4096 for address, beats in bursts)
    joined = [address + bus * number for address, beats in bursts for number in range(beats)]
    assert joined == [address + bus * number for address, beats in runs for number in range(beats)]
    # As few bursts as boundaries at multiples of the longest one allow.
    longest = max_beats * bus
    assert len(bursts) == sum((a + n * bus - 1) // longest - a // longest + 1 for a, n in runs)


def test_the_longest_burst_is_a_quarter_of_the_queue_and_at_most_1024_bytes():
    assert {name: burst_limit(config, config.stream_beats) for name, config in PRESETS.items()} == {
        "formal": 8,
        "nano": 16,
        "tiny": 16,
        "small": 32,
        "mid": 32,
        "base": 32,
        "large": 32,
    }
    assert burst_limit(LARGE, 1024) == 32
    assert burst_limit(NANO, 1024) == 64


@pytest.mark.parametrize("max_beats", [0, 3, 128])
def test_other_lengths_are_refused(max_beats: int):
    assert_refused(
        lambda: BurstSplitter(BASE, max_beats), f"a power of two and at most 64 .1024 bytes., not {max_beats}"
    )
