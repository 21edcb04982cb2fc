# SPDX-License-Identifier: Apache-2.0
"""For an estimate: what goes over the bus, command by command. No bursts; all share the bus as fluids would."""

from collections import deque
from math import ceil
from typing import Protocol

from loomwork.arch.config import Config
from loomwork.rtl.burst import burst_limit
from loomwork.rtl.fetch import PREFETCH_BEATS
from loomwork.rtl.ports import SCRATCHPAD_LATENCY
from loomwork.rtl.scratchpad_reader import QUEUE_BEATS
from loomwork.rtl.stream_reader import COMMANDS_AHEAD as STREAMS_AHEAD
from loomwork.sim.cycles.lanes import Lane
from loomwork.sim.cycles.reads import ADDRESS_CYCLES as BUS_CYCLES
from loomwork.sim.cycles.reads import ARRIVAL_CYCLES, CHECK_CYCLES, QUEUE_CYCLES
from loomwork.sim.cycles.timeline import Clock, Process, Search, Timeline
from loomwork.sim.cycles.transfers import ADDRESS_CYCLES

FAIR_SHARE = 0.5
"""Of the bus, that weights and transfers get at least when both want all of it: they take turns."""


def read_cycles(latency: int) -> int:
    """From a checked span to its first beat at the end of a reader's queue, when the bus is free."""
    return 1 + BUS_CYCLES + max(latency, 1) + ARRIVAL_CYCLES + QUEUE_CYCLES


class Reading(Protocol):
    """Who reads the scratchpad first. reading: the share of its memories that the feed takes at present."""

    reading: float


class Fetch:
    """Beats of commands, read ahead as far as their queue has room. popped: as of reads.Reader."""

    def __init__(self, clock: Clock, config: Config, latency: int) -> None:
        self.popped = Timeline(clock)
        self._cycles = read_cycles(latency)
        self._burst = burst_limit(config, PREFETCH_BEATS)

    def arrival(self, beat: int) -> Search:
        """The cycle in which `beat` is at the queue's end, if all before have left it."""
        place = beat % self._burst
        missing = beat - place + self._burst - PREFETCH_BEATS
        asked = self.popped.times[missing - 1] if missing > 0 else CHECK_CYCLES + beat - place
        yield from ()
        return asked + self._cycles + place


class Weights:
    """STREAM and its queue. The array asks for the beats of one block after the other.

    share: of the bus, that the array asks for at present.
    """

    def __init__(self, config: Config, lane: Lane, latency: int) -> None:
        self.share = 0.0
        self._config = config
        self._lane = lane
        self._first = CHECK_CYCLES + read_cycles(latency)
        # From a place that is free, when there are as many as a burst needs, to its beat.
        self._turn = read_cycles(latency) + burst_limit(config, config.stream_beats)
        # In each turn come no more beats than the queue holds.
        self.beat_cycles = max(1.0, self._turn / config.stream_beats)
        self._number = -1  # of the STREAM in use
        self._left = 0  # its words that are not yet asked for
        self._ready = 0.0  # when all beats asked for are there
        self._beats = 0  # so many
        self._used: deque[tuple[int, float]] = deque()  # after how many beats, and when
        self._space = 0.0
        self._transfers = 0.0

    def run(self) -> Process:
        """The process of the unit."""
        lane = self._lane
        for number in range(len(lane.commands)):
            ready = 0
            if number >= STREAMS_AHEAD:
                if len(lane.done.times) <= number - STREAMS_AHEAD:
                    yield lane.done, number - STREAMS_AHEAD + 1
                ready = lane.done.times[number - STREAMS_AHEAD]
            yield from lane.take(ready)

    def bring(self, words: int) -> Search:
        """The cycle in which so many more words of `cols` bytes are there."""
        config, lane = self._config, self._lane
        while words:
            if not self._left:
                self._number += 1
                if len(lane.started.times) <= self._number:
                    yield lane.started, self._number + 1
                self._left = lane.commands[self._number].operands["words"]
                self._ready = max(self._ready, lane.started.times[self._number] + self._first)
            count = min(words, self._left)
            words -= count
            self._left -= count
            self._bring_beats(ceil(count * config.cols / config.bus_bytes))
            if not self._left:
                lane.finish(int(self._ready) - QUEUE_CYCLES + 1)
        return int(self._ready)

    def _bring_beats(self, beats: int) -> None:
        self._beats += beats
        depth, used = self._config.stream_beats, self._used
        while used and used[0][0] <= self._beats - depth:
            self._space = used.popleft()[1] + self._turn
        self._ready = max(self._ready + beats * self.beat_cycles + self._transfers, self._space)
        self._transfers = 0.0

    def use(self, cycle: int) -> None:
        """The words asked for so far are used by `cycle`."""
        self._used.append((self._beats, cycle))

    def give_way(self, beats: int) -> None:
        """So many beats of others come in between."""
        self._transfers += beats


class Load:
    """The LOAD unit, as a pipe: a command's beats follow those of the one before."""

    def __init__(self, config: Config, lane: Lane, weights: Weights, latency: int) -> None:
        self._config = config
        self._lane = lane
        self._weights = weights
        self._first = CHECK_CYCLES + 1 + read_cycles(latency)
        self.beats = 0

    def run(self) -> Process:
        """The process."""
        config, weights, lane = self._config, self._weights, self._lane
        ready = written = before = 0
        for number, command in enumerate(lane.commands):
            start = yield from lane.take(ready)
            operands = command.operands
            words = operands["rows"] * operands["words"]
            beats = words * config.rows // config.bus_bytes
            self.beats += beats
            weights.give_way(beats)
            came = max(start + self._first, written + 1) + ceil(beats / (1 - weights.share))
            ready = max(start + operands["rows"] + CHECK_CYCLES, before)
            before, written = written, came - 1
            lane.finish(came)


class Store:
    """The STORE unit, one command at a time."""

    def __init__(self, config: Config, lane: Lane, feed: Reading, latency: int) -> None:
        self._config = config
        self._lane = lane
        self._feed = feed
        self._latency = max(latency, 1)
        self.beats = self.idle = 0

    def run(self) -> Process:
        """The process."""
        config, lane = self._config, self._lane
        ratio = config.rows // config.bus_bytes
        longest = burst_limit(config, QUEUE_BEATS)
        ready = 0
        for command in lane.commands:
            start = yield from lane.take(ready)
            words = command.operands["rows"] * command.operands["words"]
            beats = words * ratio
            self.beats += beats
            slowness = 1 / (1 - self._feed.reading)
            burst = min(beats, longest)
            first = start + ADDRESS_CYCLES + ceil(burst / ratio * slowness) + SCRATCHPAD_LATENCY + 1 + QUEUE_CYCLES
            sent = first + max(beats - 1, ceil((words - burst / ratio) * slowness) + burst - 1)
            self.idle = sent + self._latency + 2
            lane.finish(self.idle + 1)
            ready = self.idle + 2
