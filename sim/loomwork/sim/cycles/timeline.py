# SPDX-License-Identifier: Apache-2.0
"""Time in the cycle model: processes that compute cycle numbers from each other's cycle numbers.

A unit is a generator that computes when things happen, in order, from when other things happened, as in
`end = max(a, b) + 3`. What others need to know of it goes into a `Timeline`. Where an entry is not known yet the
generator yields the timeline, and is resumed when there are more entries. So nothing is simulated cycle by cycle: a
process may run far ahead of another, into the future.

Only where an order in time decides (who gets the bus first) a generator yields a number: it sleeps until everything
before that cycle is known. That works because what happens in a cycle depends on earlier cycles only, so that each
entry becomes known before, or in, its own cycle.
"""

from array import array
from collections.abc import Callable, Generator, Iterable
from heapq import heappop, heappush
from typing import Any, TypeAlias

Process: TypeAlias = "Generator[Timeline | int, None, None]"


class Timeline:
    """Cycles of the successive events of one kind, never decreasing; event `n` is `times[n]`.

    `while len(line.times) <= n: yield line` waits until event `n` is known.
    """

    def __init__(self, clock: "Clock") -> None:
        self.times = array("q")
        self._clock = clock
        self._waiting: list[Process] = []

    def add(self, cycle: int) -> None:
        """Append the next event."""
        self.times.append(cycle)
        if self._waiting:
            self._wake()

    def extend(self, cycles: Iterable[int]) -> None:
        """Append several."""
        self.times.extend(cycles)
        if self._waiting:
            self._wake()

    def wait(self, process: Process) -> None:
        """Resume `process` when there is another event."""
        self._waiting.append(process)

    def _wake(self) -> None:
        self._clock.ready.extend(self._waiting)
        self._waiting.clear()


class Clock:
    """Runs processes. ready: those that can go on now, whatever the cycle."""

    def __init__(self) -> None:
        self.now = 0
        self.ready: list[Process] = []
        self._sleeping: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def start(self, process: Process) -> None:
        """Add a process."""
        self.ready.append(process)

    def call(self, cycle: int, function: Callable[[Any], None], argument: Any) -> None:
        """Call `function` with `argument` when everything before `cycle` is known."""
        self._count += 1
        heappush(self._sleeping, (cycle, self._count, function, argument))

    def run(self) -> None:
        """Run until every process has ended or waits for something that never comes."""
        ready, sleeping = self.ready, self._sleeping
        while True:
            while ready:
                process = ready.pop()
                wanted = next(process, None)
                if wanted is None:
                    continue
                if isinstance(wanted, Timeline):
                    wanted.wait(process)
                else:
                    self.call(wanted, ready.append, process)
            if not sleeping:
                return
            self.now, _, function, argument = heappop(sleeping)
            function(argument)
