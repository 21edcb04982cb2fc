# SPDX-License-Identifier: Apache-2.0
"""Time in the cycle model: processes that compute cycle numbers from each other's cycle numbers.

A unit is a generator that computes when things happen, in order, from when other things happened, as in
`end = max(a, b) + 3`. What others need to know of it goes into a `Timeline`. Where an entry is not known yet the
generator yields the timeline and how many entries it needs, and is resumed when there are as many. So nothing is
simulated cycle by cycle: a process may run far ahead of another, into the future.

Only where an order in time decides (who gets the bus first) does somebody wait until everything before a cycle is
known: a generator by yielding the cycle, others by `Clock.call`. That works because what happens in a cycle depends on
earlier cycles only, so that each entry becomes known before, or in, its own cycle.
"""

from array import array
from collections.abc import Callable, Generator, Iterable
from heapq import heappop, heappush
from typing import Any, TypeAlias

Wait: TypeAlias = "tuple[Timeline, int] | int"
"""What a generator waits for: so many entries of a timeline, or a cycle."""
Process: TypeAlias = Generator[Wait, None, None]
Search: TypeAlias = Generator[Wait, None, int]
"""Part of a process that finds out a cycle."""


class Timeline:
    """Cycles of the successive events of one kind, never decreasing; event `n` is `times[n]`.

    `if len(line.times) <= n: yield line, n + 1` waits until event `n` is known.
    """

    def __init__(self, clock: "Clock") -> None:
        self.times = array("q")
        self._clock = clock
        self._waiting: list[tuple[int, Process]] = []

    def add(self, cycle: int) -> None:
        """Append the next event."""
        self.times.append(cycle)
        if self._waiting:
            self.wake()

    def extend(self, cycles: Iterable[int]) -> None:
        """Append several."""
        self.times.extend(cycles)
        if self._waiting:
            self.wake()

    def wait(self, count: int, process: Process) -> None:
        """Resume `process` when there are `count` events."""
        self._waiting.append((count, process))
        self.wake()

    def wake(self) -> None:
        """Resume those whose events are known."""
        known, waiting = len(self.times), self._waiting
        if len(waiting) == 1:
            if waiting[0][0] <= known:
                self._clock.ready.append(waiting.pop()[1])
            return
        ready = [process for count, process in waiting if count <= known]
        if ready:
            self._waiting = [item for item in waiting if item[0] > known]
            self._clock.ready += ready


class Clock:
    """Runs processes. now: everything before this cycle is known. ready: processes that can go on now."""

    def __init__(self) -> None:
        self.now = 0
        self.ready: list[Process] = []
        self._calls: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def start(self, process: Process) -> None:
        """Add a process."""
        self.ready.append(process)

    def call(self, cycle: int, function: Callable[[Any], None], argument: Any) -> None:
        """Call `function` with `argument` when everything before `cycle` is known."""
        self._count += 1
        heappush(self._calls, (cycle, self._count, function, argument))

    def run(self) -> None:
        """Run until every process has ended or waits for something that never comes."""
        ready = self.ready
        while True:
            while ready:
                process = ready.pop()
                wanted = next(process, None)
                if wanted is None:
                    continue
                if isinstance(wanted, int):
                    self.call(wanted, ready.append, process)
                else:
                    wanted[0].wait(wanted[1], process)
            if not self._calls:
                return
            self.now, _, function, argument = heappop(self._calls)
            function(argument)
