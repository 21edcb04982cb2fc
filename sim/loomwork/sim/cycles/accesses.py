# SPDX-License-Identifier: Apache-2.0
"""Accesses to the scratchpad, and those that have to wait for them (rtl/scratchpad.py).

Feed goes before drain and drain before store when they read, drain before load when they write.
"""

from array import array
from collections.abc import Callable, Generator, Sequence

from loomwork.sim.cycles.timeline import Clock, Wait

_RUN = 4
"""Numbers of a run in `Accesses.runs`: its first cycle, the one behind its last, its first access, and the group."""


class Accesses:
    """The accesses of one port.

    lookahead: an access is known that many cycles before it is made. memories: those that each access of a group takes
    (banks.py), by the number of the group; asked only when somebody wants to know.
    """

    def __init__(self, lookahead: int, memories: Callable[[int], bytes]) -> None:
        self.lookahead = lookahead
        self.memories = memories
        self.known = 0  # everything before this cycle is known
        self.runs = array("q")

    def add(self, cycle: int, first: int, count: int, group: int) -> None:
        """Accesses `first` .. `first + count - 1` of a group are made, one per cycle from `cycle` on."""
        if count > 0:
            self.known = cycle + count
            self.runs.extend((cycle, cycle + count, first, group))


class Cursor:
    """Looks up the accesses of one port, cycle after cycle."""

    def __init__(self, accesses: Accesses) -> None:
        self.accesses = accesses
        self._run = 0
        self._begin = self._end = self._shift = 0
        self._memories = b""

    def at(self, cycle: int) -> int:
        """The memories that are taken in a cycle; in ascending order, and only when that is known."""
        if cycle >= self._end:
            runs = self.accesses.runs
            while self._run < len(runs) and runs[self._run + 1] <= cycle:
                self._run += _RUN
            if self._run == len(runs):
                return 0
            self._begin, self._end, first, group = runs[self._run : self._run + _RUN]
            self._shift, self._memories = first - self._begin, self.accesses.memories(group)
        return self._memories[cycle + self._shift] if cycle >= self._begin else 0


def give_way(
    clock: Clock,
    others: Sequence[Cursor],
    wanted: bytes,
    cycle: int,
    made: Callable[[int, int], None],
    earliest: Sequence[int] | None = None,
    patience: int = 0,
) -> Generator[Wait, None, int]:
    """Make accesses to the memories `wanted`, one per cycle from `cycle` on, each as soon as no other one takes them.

    earliest: of each access, a cycle before which it is not asked for.
    made: told of each run without a gap: its first cycle, and how many accesses.
    patience: cycles by which `made` may be told later than the access is made.
    Returns the cycle behind the last access.
    """
    first = number = 0
    while number < len(wanted):
        memories = wanted[number]
        if earliest is not None and earliest[number] > cycle:
            if number > first:
                made(cycle - number + first, number - first)
                first = number
            cycle = earliest[number]
        taken = 0
        for other in others:
            accesses = other.accesses
            if cycle >= accesses.known and cycle > clock.now + accesses.lookahead:
                if number > first:
                    made(cycle - number + first, number - first)
                    first = number
                # Now it would be enough to know what comes before, but then every access would have to wait.
                yield cycle + patience
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
