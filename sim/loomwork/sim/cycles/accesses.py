# SPDX-License-Identifier: Apache-2.0
"""Accesses to the scratchpad, and those that have to wait for them (rtl/scratchpad.py).

Feed goes before drain and drain before store when they read, drain before load when they write.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

from loomwork.sim.cycles.timeline import Clock, Wait

Key = TypeVar("Key")


class Accesses(Generic[Key]):
    """The accesses of one port.

    lookahead: an access is known that many cycles before it is made. memories: of each access of a run, the memories
    it takes (banks.py), found by the run's key only when somebody asks.
    """

    def __init__(self, lookahead: int, memories: Callable[[Key], bytes]) -> None:
        self.lookahead = lookahead
        self.memories = memories
        self.known = 0  # everything before this cycle is known
        self.runs: list[tuple[int, int, int, Key]] = []

    def add(self, cycle: int, first: int, count: int, key: Key) -> None:
        """Accesses `first` .. `first + count - 1` of those of `key` are made, one per cycle from `cycle` on."""
        if count > 0:
            self.known = cycle + count
            self.runs.append((cycle, cycle + count, first, key))


class Cursor:
    """Looks up the accesses of one port, cycle after cycle."""

    def __init__(self, accesses: Accesses[Any]) -> None:
        self.accesses = accesses
        self._run = 0
        self._begin = self._end = self._shift = 0
        self._memories = b""

    def at(self, cycle: int) -> int:
        """The memories that are taken in a cycle; in ascending order, and only when that is known."""
        if cycle >= self._end:
            runs = self.accesses.runs
            while self._run < len(runs) and runs[self._run][1] <= cycle:
                self._run += 1
            if self._run == len(runs):
                return 0
            self._begin, self._end, first, key = runs[self._run]
            self._shift, self._memories = first - self._begin, self.accesses.memories(key)
        return self._memories[cycle + self._shift] if cycle >= self._begin else 0


def give_way(
    clock: Clock, others: Sequence[Cursor], wanted: bytes, cycle: int, made: Callable[[int, int], None]
) -> Generator[Wait, None, int]:
    """Make accesses to the memories `wanted`, one per cycle from `cycle` on, each as soon as no other one takes them.

    made: told of each run without a gap: its first cycle, and how many accesses.
    Returns the cycle behind the last access.
    """
    first = number = 0
    while number < len(wanted):
        memories = wanted[number]
        taken = 0
        for other in others:
            accesses = other.accesses
            if cycle >= accesses.known and cycle > clock.now + accesses.lookahead:
                if number > first:
                    made(cycle - number + first, number - first)
                    first = number
                yield cycle - accesses.lookahead
                break
            taken |= other.at(cycle) & memories
        else:
            if taken:
                if number > first:
                    made(cycle - number + first, number - first)
                    first = number
            else:
                number += 1
            cycle += 1
    if number > first:
        made(cycle - number + first, number - first)
    return cycle
