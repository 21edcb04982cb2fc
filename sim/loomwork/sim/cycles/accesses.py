# SPDX-License-Identifier: Apache-2.0
"""Accesses to the scratchpad, and those that have to wait for them (rtl/scratchpad.py).

Feed goes before drain when they read, drain before load when they write.
"""

from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from loomwork.sim.cycles.timeline import Clock, Wait

Key = TypeVar("Key")


class Accesses(Generic[Key]):
    """The accesses of one port, which are never refused, and of one other port that gives way to it.

    lookahead: an access is known that many cycles before it is made. memories: of each access of a run, the memories
    it takes (banks.py), found by the run's key only when somebody asks.
    """

    def __init__(self, clock: Clock, lookahead: int, memories: Callable[[Key], bytes]) -> None:
        self._clock = clock
        self._lookahead = lookahead
        self._memories = memories
        self._runs: deque[tuple[int, int, int, Key]] = deque()
        self._known = 0  # everything before this cycle is known

    def add(self, cycle: int, first: int, count: int, key: Key) -> None:
        """Accesses `first` .. `first + count - 1` of those of `key` are made, one per cycle from `cycle` on."""
        if count > 0:
            self._known = cycle + count
            self._runs.append((cycle, self._known, first, key))

    def give_way(self, wanted: bytes, cycle: int) -> Generator[Wait, None, list[tuple[int, int]]]:
        """When the other port makes its accesses: one per cycle from `cycle` on, each as soon as its memories are free.

        It asks in order. Returns runs without a gap, each with the number of its first access and its cycle; last of
        all the number of accesses and the cycle behind them.
        """
        runs, made = self._runs, [(0, cycle)]
        begin = end = shift = 0
        busy = b""
        for number, memories in enumerate(wanted):
            since = cycle
            while True:
                if cycle >= self._known and cycle > self._clock.now + self._lookahead:
                    yield cycle - self._lookahead
                    continue
                if cycle >= end:
                    while runs and runs[0][1] <= cycle:
                        runs.popleft()
                    if runs:
                        begin, end, first, key = runs[0]
                        shift, busy = first - begin, self._memories(key)
                if not begin <= cycle < end or not busy[cycle + shift] & memories:
                    break
                cycle += 1
            if cycle != since:
                made.append((number, cycle))
            cycle += 1
        made.append((len(wanted), cycle))
        return made
