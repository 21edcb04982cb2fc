# SPDX-License-Identifier: Apache-2.0
"""Fetch: commands in order from window COMMANDS, ahead of their use, up to END."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.command import Command, encode
from loomwork.arch.config import BASE, FORMAL, LARGE, TINY, Config
from loomwork.arch.isa import COMMAND_BYTES, Window
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.fetch import PREFETCH_BEATS, Fetch

WIDE_BUS = replace(LARGE, name="wide", rows=64, bus_bytes=64)
LATE = replace(BASE, name="late", deep_pipeline=True)
ADDRESS = 0x3000
END = encode(Command("END"))


@dataclass
class Outcome:
    """What came out of fetch, and what it asked of the bus."""

    commands: list[tuple[int, bytes]] = field(default_factory=list)
    errors: list[tuple[int, int]] = field(default_factory=list)
    bytes_read: list[int] = field(default_factory=list)
    bursts: list[int] = field(default_factory=list)


def run(
    config: Config,
    memory: bytes,
    size: int,
    *,
    patience: float,
    cycles: int,
    bad: Sequence[int] = (),
    base: int = ADDRESS,
    readiness: float = 0.5,
) -> Outcome:
    """Fetch from a window with `size` bytes at `base` that holds `memory`.

    patience, readiness: probability that a command, a burst is taken in a cycle. bad: byte offsets that are
    read with an error.
    """
    dut = Fetch(config)
    rng = random.Random(1)
    outcome = Outcome()
    requests: deque[tuple[int, int]] = deque()
    bus: Any = dut.bus

    async def serve(ctx: SimulatorContext):
        while True:
            ctx.set(bus.request.ready, rng.random() < readiness)
            ctx.set(bus.valid, 0)
            if requests and rng.random() < 0.8:
                offset, left = requests.popleft()
                if left > 1:
                    requests.appendleft((offset + config.bus_bytes, left - 1))
                beat = memory[offset : offset + config.bus_bytes].ljust(config.bus_bytes, b"\xee")
                ctx.set(bus.data, list(beat))
                ctx.set(bus.error, offset in bad)
                ctx.set(bus.valid, 1)
                outcome.bytes_read.append(offset + config.bus_bytes)
            _, _, valid, ready, address, length = await ctx.tick().sample(
                bus.request.valid, bus.request.ready, bus.request.payload.address, bus.request.payload.length
            )
            if valid and ready:
                requests.append((address - base, length + 1))
                outcome.bursts.append(address)

    async def take(ctx: SimulatorContext):
        ctx.set(dut.windows[Window.COMMANDS], {"base": base, "size": size})
        ctx.set(dut.go, 1)
        await ctx.tick()
        ctx.set(dut.go, 0)
        taken = 0
        for _ in range(cycles):
            ctx.set(dut.o.ready, rng.random() < patience and not (config.deep_pipeline and taken))
            _, _, valid, ready, command, index, error, place = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload.command, dut.o.payload.index, dut.error, dut.error_index
            )
            taken = valid and ready
            if taken:
                outcome.commands.append((index, command.to_bytes(COMMAND_BYTES, "little")))
            if error:
                outcome.errors.append((error, place))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(serve, background=True)
    simulator.add_testbench(take)
    simulator.run()
    return outcome


def program(length: int) -> list[bytes]:
    """Random words that are not END, and an END."""
    rng = random.Random(length)
    return [bytes([2 | rng.randrange(16) << 4]) + rng.randbytes(COMMAND_BYTES - 1) for _ in range(length)] + [END]


@pytest.mark.parametrize("config", [FORMAL, TINY, BASE, LARGE, WIDE_BUS, LATE], ids=lambda config: config.name)
@pytest.mark.parametrize("patience", [1.0, 0.1])
def test_commands_come_in_order_up_to_end(config: Config, patience: float):
    commands = program(70)
    memory = b"".join(commands) + bytes(8192)
    cycles = 71 * COMMAND_BYTES // config.bus_bytes * 3 + 300 + int(71 / patience)
    outcome = run(config, memory, len(memory), patience=patience, cycles=cycles)
    assert outcome.commands == list(enumerate(commands))
    assert not outcome.errors
    assert max(outcome.bytes_read) <= len(b"".join(commands)) + PREFETCH_BEATS * config.bus_bytes, "stops asking at END"


@pytest.mark.parametrize("config", [BASE, LATE], ids=lambda config: config.name)
def test_a_burst_that_waits_when_end_is_taken_is_not_asked_for(config: Config):
    commands = program(3)
    memory = b"".join(commands) + bytes(8192)
    outcome = run(config, memory, len(memory), patience=1.0, cycles=2000, readiness=0.02)
    assert outcome.commands == list(enumerate(commands))
    # A quarter of what is read ahead is a burst: the first one has all commands.
    assert outcome.bursts[0] == ADDRESS
    assert len(outcome.bursts) < 3


def test_reads_ahead():
    outcome = run(BASE, b"".join(program(70)), 71 * COMMAND_BYTES, patience=0.0, cycles=200)
    assert not outcome.commands
    assert max(outcome.bytes_read) == PREFETCH_BEATS * BASE.bus_bytes


@pytest.mark.parametrize("config", [FORMAL, BASE, WIDE_BUS, LATE], ids=lambda config: config.name)
@pytest.mark.parametrize("extra", [0, 31])
def test_window_without_end(config: Config, extra: int):
    """All whole commands of the window come, then an error where the next one should be."""
    commands = program(9)[:5]
    memory = b"".join(commands) + bytes(64)
    outcome = run(config, memory, 5 * COMMAND_BYTES + extra, patience=0.5, cycles=400)
    assert outcome.commands == list(enumerate(commands))
    assert outcome.errors == [(ErrorCode.WINDOW, 5)]


@pytest.mark.parametrize("config", [BASE, LATE], ids=lambda config: config.name)
def test_end_as_the_last_command_of_the_window_is_no_error(config: Config):
    outcome = run(config, b"".join(program(5)), 6 * COMMAND_BYTES, patience=1.0, cycles=200)
    assert len(outcome.commands) == 6
    assert not outcome.errors


@pytest.mark.parametrize("size", [0, COMMAND_BYTES - 1])
def test_window_too_small_for_a_command(size: int):
    outcome = run(BASE, END, size, patience=1.0, cycles=100)
    assert outcome.errors == [(ErrorCode.WINDOW, 0)]
    assert not outcome.bytes_read


def test_window_beyond_the_last_address():
    base = (1 << BASE.address_bits) - 4096
    assert len(run(BASE, END, 4096, patience=1.0, cycles=100, base=base).commands) == 1
    outcome = run(BASE, END, 4096 + COMMAND_BYTES, patience=1.0, cycles=100, base=base)
    assert outcome.errors == [(ErrorCode.WINDOW, 0)]
    assert not outcome.bytes_read


def test_bus_error():
    commands = program(9)
    bad = 3 * COMMAND_BYTES + TINY.bus_bytes
    outcome = run(TINY, b"".join(commands), 10 * COMMAND_BYTES, patience=0.7, cycles=400, bad=[bad])
    assert outcome.commands == list(enumerate(commands[:3]))
    assert outcome.errors == [(ErrorCode.BUS_READ, 3)]


def test_bus_error_behind_end_does_not_matter():
    commands = program(2)
    memory = b"".join(commands) + bytes(256)
    outcome = run(TINY, memory, len(memory), patience=0.7, cycles=400, bad=[3 * COMMAND_BYTES])
    assert outcome.commands == list(enumerate(commands))
    assert not outcome.errors
