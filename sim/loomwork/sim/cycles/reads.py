# SPDX-License-Identifier: Apache-2.0
"""The read side of the bus: window check, burst splitter, arbitration and external memory.

From rtl/window_reader.py, memory_window.py, burst.py, read_master.py. Memory answers the bursts in the order of their
addresses, a beat per cycle, the first one `latency` cycles after its address.
"""

from bisect import bisect_right
from collections import deque

from loomwork.arch.config import Config
from loomwork.rtl.burst import burst_limit
from loomwork.sim.cycles.timeline import Clock, Process, Search, Timeline

CHECK_CYCLES = 2
"""From a span to its run of beats."""
ADDRESS_CYCLES = 1
"""From a request to its address on the bus."""
ARRIVAL_CYCLES = 1
"""From a beat on the bus to its reader."""
SLICE_PLACES = 2
"""Bursts between a splitter and the bus, with `deep_pipeline`; each is there for a cycle at least."""
QUEUE_CYCLES = 2
"""From the input of a SyncFIFOBuffered to its output."""


def beat_cycles(config: Config) -> int:
    """From a beat at its reader to the end of the reader's queue, and of the slice behind that."""
    return QUEUE_CYCLES + config.deep_pipeline


class ReadBus:
    """Grants one burst per cycle: reader 0 first, the others by turns (rtl/read_master.py).

    beats: that were read. idle: cycle from which on nothing is under way.
    """

    def __init__(self, clock: Clock, latency: int) -> None:
        self._clock = clock
        self._latency = max(latency, 1)  # memory answers in the next cycle at the earliest
        self._asking: dict[int, tuple[int, int]] = {}  # by reader: since when, for how many beats
        self._free = 0  # when the data channel is free
        self._next_grant = 0
        self._latest = 2
        self._grants: list[Timeline] = []
        self._arrivals: list[int] = []
        self.beats = 0
        self.idle = 0

    def attach(self) -> tuple[int, Timeline]:
        """Add a reader: its number, and the cycles in which it gets its bursts."""
        self._grants.append(Timeline(self._clock))
        self._arrivals.append(0)
        return len(self._grants) - 1, self._grants[-1]

    def ask(self, number: int, cycle: int, beats: int) -> None:
        """Reader `number` asks for its next burst from `cycle` on."""
        self._asking[number] = cycle, beats
        self._call(max(cycle, self._next_grant))

    def arrival(self, number: int) -> int:
        """The cycle in which the first beat of the burst granted last reaches reader `number`."""
        return self._arrivals[number]

    def _call(self, cycle: int) -> None:
        self._clock.call(cycle, self._arbitrate, cycle)

    def _arbitrate(self, cycle: int) -> None:
        """Grant a burst in `cycle`, when all who ask by then are known; and go on as long as somebody waits."""
        waiting = [number for number, (since, _) in self._asking.items() if since <= cycle]
        if not waiting or self._next_grant > cycle:
            return
        number = waiting[0]
        if len(waiting) > 1:
            number = min(waiting, key=lambda reader: (reader != 0, reader == self._latest))
        _, beats = self._asking.pop(number)
        self._latest = number or self._latest
        self._next_grant = cycle + 1
        first = max(cycle + ADDRESS_CYCLES + self._latency, self._free)
        self._free = first + beats
        self.beats += beats
        self.idle = self._free + ARRIVAL_CYCLES
        self._arrivals[number] = first + ARRIVAL_CYCLES
        self._grants[number].add(cycle)
        if self._asking:
            self._call(cycle + 1)


class Reader:
    """One reader of the bus with its queue of `depth` beats (rtl/window_reader.py).

    A user calls `offer` for each span, in order. popped: beats leave the queue, written by the user of the beats.
    """

    def __init__(self, clock: Clock, config: Config, bus: ReadBus, depth: int) -> None:
        self._bus = bus
        self._number, self._granted = bus.attach()
        self._depth = depth
        self._longest = burst_limit(config, depth)
        self._bus_bytes = config.bus_bytes
        self._beat_cycles = beat_cycles(config)
        self._has_slice = config.deep_pipeline
        self._room_cycles = 1 + config.deep_pipeline  # from a beat that leaves the queue to its room
        self._spans: deque[tuple[int, int, int]] = deque()
        self.offered = Timeline(clock)
        self.split = Timeline(clock)
        self.popped = Timeline(clock)
        self.bursts = Timeline(clock)
        self._first_beats: list[int] = []
        self._beats = 0
        self._sliced = Timeline(clock)  # bursts leave the splitter for the slice
        self._lengths: list[int] = []  # of these, in beats
        clock.start(self._run())
        clock.start(self._ask_for_sliced())

    def offer(self, checked: int, offset: int, length: int) -> None:
        """A span of `length` bytes has passed the check: its run is at the splitter from cycle `checked` on."""
        self._spans.append((checked, offset // self._bus_bytes, -(-length // self._bus_bytes)))
        self.offered.add(checked)

    def arrival(self, beat: int) -> Search:
        """The cycle in which `beat` is at the queue's end, if all before have left it."""
        while beat >= self._beats:
            yield self.bursts, len(self.bursts.times) + 1
        burst = bisect_right(self._first_beats, beat) - 1
        return self.bursts.times[burst] + beat - self._first_beats[burst]

    def rest_of_burst(self, beat: int) -> int:
        """Beats of a known burst from `beat` on."""
        burst = bisect_right(self._first_beats, beat)
        return (self._first_beats[burst] if burst < len(self._first_beats) else self._beats) - beat

    def burst(self, number: int) -> tuple[int, int, int]:
        """First beat, the beat behind the last one, and the cycle in which the first is at the queue's end."""
        first = self._first_beats[number]
        more = number + 1 < len(self._first_beats)
        return first, self._first_beats[number + 1] if more else self._beats, self.bursts.times[number]

    def _run(self) -> Process:
        longest, popped, granted = self._longest, self.popped, self._granted
        free = 0  # cycle in which the splitter can take the next run
        number = requested = 0  # spans and beats
        while True:
            if len(self.offered.times) <= number:
                yield self.offered, number + 1
            number += 1
            checked, address, left = self._spans.popleft()
            free = max(free, checked)
            self.split.add(free)
            valid = free + 1
            while left:
                beats = min(left, longest - address % longest)
                # The queue must have room for the longest burst.
                missing = requested + longest - self._depth
                if missing > 0:
                    if len(popped.times) < missing:
                        yield popped, missing
                    valid = max(valid, popped.times[missing - 1] + self._room_cycles)
                if self._has_slice:
                    bursts = len(self._lengths)
                    if bursts >= SLICE_PLACES:
                        if len(granted.times) <= bursts - SLICE_PLACES:
                            yield granted, bursts - SLICE_PLACES + 1
                        valid = max(valid, granted.times[bursts - SLICE_PLACES] + 1)
                    cycle = valid
                    self._lengths.append(beats)
                    self._sliced.add(cycle)
                else:
                    cycle = yield from self._grant(valid, beats)
                requested += beats
                address += beats
                left -= beats
                free, valid = cycle, cycle + 1

    def _ask_for_sliced(self) -> Process:
        """The process that asks for the bursts of the slice, one after the other."""
        number = 0
        while True:
            if len(self._sliced.times) <= number:
                yield self._sliced, number + 1
            yield from self._grant(self._sliced.times[number] + 1, self._lengths[number])
            number += 1

    def _grant(self, valid: int, beats: int) -> Search:
        """The cycle in which a burst that is asked for from `valid` on is granted; note when its beats come."""
        bursts, granted = len(self.bursts.times), self._granted
        self._bus.ask(self._number, valid, beats)
        if len(granted.times) <= bursts:
            yield granted, bursts + 1
        self._first_beats.append(self._beats)
        self._beats += beats
        self.bursts.add(self._bus.arrival(self._number) + self._beat_cycles)
        return granted.times[bursts]
