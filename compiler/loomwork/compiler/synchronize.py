# SPDX-License-Identifier: Apache-2.0
"""Tickets: what each command has to wait for, from the scratchpad words that commands touch.

Order that needs no ticket: the commands of one unit begin in program order, its reads and writes reach the scratchpad
in that order, so that only a read of what the same unit wrote has to wait (for the unit to be finished with it).
EXECUTE and DRAIN meet in the accumulators, STREAM and EXECUTE in the weight queue, by handshake. In external memory
every map has a place of its own, where each byte is stored once: a LOAD waits for the last STORE into its rows.

Tickets count modulo 1024 and hold while the counter is less than 512 ahead (arch/isa.py), which limits how far a unit
may run ahead of one that has yet to look at a ticket. Every REFRESH-th command of a unit therefore waits until all
others are done with what was issued before the unit's previous such command, and no ticket is older than REFRESH
commands. Then, for a command with `n` commands of unit V before it, V cannot begin command `n + 2 * REFRESH` before
that command is finished, and its ticket for V is at least `n - REFRESH`: the counter is less than `3 * REFRESH = 384`
ahead. (It is never behind by more than a queue holds: the command that a ticket names was dispatched before.)
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loomwork.arch.command import Command
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import TICKET_BITS, TICKET_UNITS, Unit
from loomwork.compiler.task import Region, Task

WINDOW = 1 << (TICKET_BITS - 1)
"""How far a counter may be ahead of a ticket."""
REFRESH = WINDOW // 4


class _LastUse:
    """For every scratchpad word, the number of the last command of each unit that read or wrote it (0: none)."""

    def __init__(self, config: Config) -> None:
        shape = (len(TICKET_UNITS), BANKS * config.bank_words)
        self._bank_words = config.bank_words
        self._read = np.zeros(shape, dtype=np.int32)
        self._written = np.zeros(shape, dtype=np.int32)
        self._stored: dict[tuple[str, int], int] = {}

    def needed(self, task: Task) -> list[int]:
        """For each unit, the last command that must be finished before `task` may begin."""
        needed = np.zeros(len(TICKET_UNITS), dtype=np.int32)
        own = task.command.insn.unit
        for region in task.reads:
            needed = np.maximum(needed, self._written[:, self._words(region)].max(axis=1))
        for region in task.writes:
            words = self._words(region)
            before = np.maximum(self._written[:, words].max(axis=1), self._read[:, words].max(axis=1))
            before[own] = 0
            needed = np.maximum(needed, before)
        if task.external is not None and own is Unit.LOAD:
            rows = range(task.external.first, task.external.end)
            stored = (self._stored.get((task.external.map, row), 0) for row in rows)
            needed[Unit.STORE] = max(needed[Unit.STORE], *stored, 0)
        return [int(value) for value in needed]

    def record(self, task: Task, number: int) -> None:
        """Note what `task`, command `number` of its unit, touches."""
        unit = task.command.insn.unit
        for region in task.reads:
            self._read[unit, self._words(region)] = number
        for region in task.writes:
            self._written[unit, self._words(region)] = number
        if task.external is not None and unit is Unit.STORE:
            rows = range(task.external.first, task.external.end)
            self._stored.update(((task.external.map, row), number) for row in rows)

    def _words(self, region: Region) -> np.ndarray:
        return region.addresses(self._bank_words)


def synchronize(tasks: Sequence[Task], config: Config) -> list[Command]:
    """Give every command the waits it needs and that other waits do not imply already."""
    uses = _LastUse(config)
    counts = dict.fromkeys(Unit, 0)
    # What is certainly finished when the latest command of a unit begins, and when its k-th command began.
    known = {unit: np.zeros(len(TICKET_UNITS), dtype=np.int64) for unit in Unit}
    history: dict[Unit, list[np.ndarray]] = {unit: [] for unit in TICKET_UNITS}
    issued: dict[Unit, list[dict[Unit, int]]] = {unit: [] for unit in TICKET_UNITS}
    positions: dict[Unit, list[int]] = {unit: [] for unit in TICKET_UNITS}
    commands: list[Command] = []
    for task in tasks:
        unit = task.command.insn.unit
        needed: dict[Unit, int] = dict(zip(TICKET_UNITS, uses.needed(task), strict=True))
        if unit in issued:
            number = counts[unit] + 1
            if number % REFRESH == 0:
                earlier = issued[unit][number - REFRESH - 1] if number > REFRESH else {}
                for other in TICKET_UNITS:
                    if other is not unit:
                        needed[other] = max(needed[other], earlier.get(other, 0))
        waits: dict[Unit, int] = {}
        fresh_tickets = {other: max(ticket, counts[other] - REFRESH) for other, ticket in needed.items() if ticket}
        # The latest in the program first: it may imply the others, they cannot imply it.
        for other, fresh in sorted(fresh_tickets.items(), key=lambda item: -positions[item[0]][item[1] - 1]):
            if needed[other] <= known[unit][other]:
                continue
            waits[other] = fresh
            known[unit] = np.maximum(known[unit], history[other][fresh - 1])
            known[unit][other] = max(known[unit][other], fresh)
        commands.append(replace(task.command, waits=dict(sorted(waits.items()))))
        counts[unit] += 1
        if unit in issued:
            issued[unit].append({other: counts[other] for other in TICKET_UNITS})
            history[unit].append(known[unit])
            positions[unit].append(len(commands))
            uses.record(task, counts[unit])
    return commands
