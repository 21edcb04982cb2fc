# SPDX-License-Identifier: Apache-2.0
"""Independent checks of tickets: what commands touch, from their operands alone, and in which order they run."""

import heapq
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from loomwork.arch.command import Command
from loomwork.arch.config import Config
from loomwork.arch.isa import TICKET_UNITS, Combine, Source, Unit

Words = set[tuple[int, int]]
"""Scratchpad words as (bank, word)."""


@dataclass
class Touch:
    """Scratchpad words that a command reads and writes."""

    reads: Words = field(default_factory=set)
    writes: Words = field(default_factory=set)


class HazardError(AssertionError):
    """Two commands may touch the same word at the same time, or in the wrong order."""


def touches(commands: Sequence[Command], config: Config) -> list[Touch]:
    """What each command reads and writes, byte for byte as docs/microarchitecture.md has it."""
    result: list[Touch] = []
    combine: Command | None = None
    for command in commands:
        touch = Touch()
        match command.mnemonic:
            case "LOAD":
                touch.writes = _transfer(command)
            case "STORE":
                touch.reads = _transfer(command)
            case "CONVOLVE":
                touch.reads = _convolve(command, range(command["tile_width"]), command["length"], config)
            case "DEPTHWISE":
                columns = range((command["tile_width"] - 1) * command["x_stride"] + command["taps"])
                touch.reads = _convolve(command, columns, config.cols, config)
            case "COMBINE":
                combine = command
            case "DRAIN":
                _drain(touch, command, combine, config)
            case _:
                pass
        result.append(touch)
    return result


def _words(base: int, pitch: int, rows: Iterable[int], words: Iterable[int]) -> Words:
    columns = list(words)
    return {(row % 4, base + row // 4 * pitch + word) for row in rows for word in columns}


def _transfer(c: Command) -> Words:
    return _words(c["base"], c["pitch"], range(c["row"], c["row"] + c["rows"]), range(c["words"]))


def _convolve(c: Command, columns: range, length: int, config: Config) -> Words:
    """`length` bytes at each of `columns` steps, for every block, tap and kernel row."""
    rows = {
        c["y_start"] + oy * c["y_step"] + ky * c["row_step"]
        for oy in range(c["tile_height"])
        for ky in range(c["kernel_rows"])
    }
    starts = {
        c["x_start"] + block * c["block_step"] + tap * c["tap_step"] + ox * c["x_step"]
        for block in range(c["blocks"])
        for tap in range(c["tap_count"])
        for ox in columns
    }
    window = np.arange(length)
    words = set()
    for start in starts:
        seen = start + window
        seen = seen[(seen >= 0) & (seen < c["row_bytes"])]
        words.update(np.unique(seen // config.rows).tolist())
    end = 4 * c["ring"] or 1 << 20
    inside = (row - end if row >= end else row for row in rows if 0 <= row < c["height"])
    return _words(c["base"], c["pitch"], inside, words)


def _drain(touch: Touch, c: Command, combine: Command | None, config: Config) -> None:
    def words_of(first: int, step: int, pixels: Iterable[int]) -> set[int]:
        return {(first + pixel * step + channel) // config.rows for pixel in pixels for channel in range(c["channels"])}

    rows = {c["in_row"] + y * c["pool_y_step"] + py for y in range(c["height"]) for py in range(c["pool_height"])}
    columns = {x * c["pool_x_step"] + px for x in range(c["width"]) for px in range(c["pool_width"])}
    words = words_of(c["in_offset"], c["in_step"], columns)
    if c["source"] == Source.SCRATCHPAD:
        touch.reads |= _words(c["in_base"], c["in_pitch"], rows, words)
    if c["combine"] in (Combine.ADD, Combine.MULTIPLY):
        assert combine is not None
        touch.reads |= _words(combine["operand_base"], combine["operand_pitch"], rows, words)
    rows = range(c["out_row"], c["out_row"] + c["height"])
    words = words_of(c["out_offset"], c["out_step"], range(c["width"]))
    touch.writes |= _words(c["out_base"], c["out_pitch"], rows, words)


def conflicts(commands: Sequence[Command], config: Config) -> set[tuple[int, int]]:
    """Pairs (earlier, later) of positions that must not overlap in time.

    Commands of one unit follow each other as far as reads before writes and writes before writes go. Of several
    earlier accesses to a word by one unit only the last is named: that unit's others are before it.
    """
    pairs: set[tuple[int, int]] = set()
    readers: dict[tuple[Unit, tuple[int, int]], int] = {}
    writers: dict[tuple[Unit, tuple[int, int]], int] = {}
    for position, (command, touch) in enumerate(zip(commands, touches(commands, config), strict=True)):
        own = command.insn.unit
        for unit in TICKET_UNITS:
            pairs |= {(writers[unit, word], position) for word in touch.reads if (unit, word) in writers}
            if unit is not own:
                for earlier in (readers, writers):
                    pairs |= {(earlier[unit, word], position) for word in touch.writes if (unit, word) in earlier}
        readers.update(dict.fromkeys(((own, word) for word in touch.reads), position))
        writers.update(dict.fromkeys(((own, word) for word in touch.writes), position))
    return pairs


def clocks(commands: Sequence[Command]) -> list[dict[Unit, int]]:
    """For each command, how many commands of each unit are certainly finished when it begins."""
    issued = dict.fromkeys(Unit, 0)
    positions: dict[tuple[Unit, int], int] = {}
    begun: list[dict[Unit, int]] = []
    last: dict[Unit, int] = {}
    for position, command in enumerate(commands):
        unit = command.insn.unit
        clock: dict[Unit, int] = dict(begun[last[unit]]) if unit in last else dict.fromkeys(TICKET_UNITS, 0)
        for other, ticket in command.waits.items():
            number = ticket_number(ticket, issued[other])
            source = begun[positions[other, number]]
            clock = {third: max(clock[third], source[third]) for third in TICKET_UNITS}
            clock[other] = max(clock[other], number)
        begun.append(clock)
        last[unit] = position
        issued[unit] += 1
        positions[unit, issued[unit]] = position
    return begun


def ticket_number(ticket: int, issued: int) -> int:
    """Tickets are modulo 1024: the command meant is the latest of those issued."""
    return issued - (issued - ticket) % 1024


def check_hazards(commands: Sequence[Command], config: Config) -> int:
    """Prove with vector clocks that every conflict is ordered; returns how many there are. Raises HazardError."""
    begun, number = clocks(commands), numbers(commands)
    pairs = conflicts(commands, config)
    for earlier, later in sorted(pairs):
        if begun[later][commands[earlier].insn.unit] < number[earlier]:
            raise HazardError(
                f"command {later} ({commands[later].mnemonic}) does not wait for command {earlier} "
                f"({commands[earlier].mnemonic})"
            )
    return len(pairs)


def furthest_ahead(commands: Sequence[Command]) -> int:
    """The most that any counter can be ahead of a ticket before the command that waits for it begins."""
    begun, number = clocks(commands), numbers(commands)
    worst = 0
    for position, command in enumerate(commands):
        for other, ticket in command.waits.items():
            # Until this command is finished, `other` stops at the first of its commands that waits for it.
            finished = sum(c.insn.unit is other for c in commands[:position])
            wanted = ticket_number(ticket, finished)
            for later in range(position + 1, len(commands)):
                if commands[later].insn.unit is other:
                    if begun[later][command.insn.unit] >= number[position]:
                        break
                    finished += 1
            worst = max(worst, finished - wanted)
    return worst


def simulate(commands: Sequence[Command], config: Config, seed: int) -> list[tuple[int, int]]:
    """Run the units concurrently with random durations; returns (begin, end) of every command.

    Tickets are compared modulo 1024, as the hardware does. Raises HazardError when nothing can go on.
    """
    rng = random.Random(seed)
    slowness = {unit: rng.choice([1, 3, 30, 300]) for unit in Unit}
    queues: dict[Unit, deque[int]] = {unit: deque() for unit in Unit}
    running: dict[Unit, int] = {}
    finished = dict.fromkeys(Unit, 0)
    spans = [(0, 0)] * len(commands)
    events: list[tuple[int, int]] = []
    now = dispatched = 0
    while dispatched < len(commands) or events or any(queues.values()):
        moved = True
        while moved:
            moved = False
            if dispatched < len(commands):
                queue = queues[commands[dispatched].insn.unit]
                if len(queue) < config.queue_depth:
                    queue.append(dispatched)
                    dispatched += 1
                    moved = True
            for unit, queue in queues.items():
                if (
                    queue
                    and unit not in running
                    and all(
                        (finished[other] - ticket) % 1024 < 512 for other, ticket in commands[queue[0]].waits.items()
                    )
                ):
                    position = queue.popleft()
                    end = now + 1 + int(rng.expovariate(1) * slowness[unit])
                    spans[position] = (now, end)
                    running[unit] = position
                    heapq.heappush(events, (end, position))
                    moved = True
        if not events:
            raise HazardError(f"at time {now} nothing can go on; {dispatched} of {len(commands)} are dispatched")
        now = events[0][0]
        while events and events[0][0] == now:
            unit = commands[heapq.heappop(events)[1]].insn.unit
            del running[unit]
            finished[unit] += 1
    return spans


def numbers(commands: Sequence[Command]) -> list[int]:
    """The number of each command within its unit, from 1."""
    counts = dict.fromkeys(Unit, 0)
    numbers: list[int] = []
    for command in commands:
        counts[command.insn.unit] += 1
        numbers.append(counts[command.insn.unit])
    return numbers
