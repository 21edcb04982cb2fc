# SPDX-License-Identifier: Apache-2.0
"""For an estimate: what goes over the bus, command by command. No bursts; all share the bus as fluids would."""

from collections import deque
from math import ceil
from typing import Protocol

from loomwork.arch.config import Config
from loomwork.rtl.burst import burst_limit
from loomwork.rtl.fetch import PREFETCH_BEATS
from loomwork.rtl.ports import window_latency
from loomwork.rtl.scratchpad_reader import QUEUE_BEATS
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


class Feed(Protocol):
    """Who reads the scratchpad first."""

    def reading(self, cycle: int) -> float:
        """The share of the memories that the feed takes in a cycle, on average."""
        ...


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
        self._beats = 0.0  # so many
        self._used: deque[tuple[float, int]] = deque()  # after how many beats, and when
        self._before, self._space = 0.0, 0.0  # beats of the blocks whose places are free, and when those are filled
        self._transfers: deque[tuple[float, float]] = deque()  # begin and end of those that want all of the bus

    def run(self) -> Process:
        """The process of the unit."""
        lane = self._lane
        for number in range(len(lane.commands)):
            ready = 0
            if number >= 2:
                # The one in front comes to the splitter when the one before that has all its bursts.
                if len(lane.done.times) <= number - 2:
                    yield lane.done, number - 1
                ready = lane.done.times[number - 2] - self._first
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
            self._bring_beats(count * config.cols / config.bus_bytes)
            if not self._left:
                lane.finish(int(self._ready) - QUEUE_CYCLES + 1)
        return int(self._ready)

    def _bring_beats(self, beats: float) -> None:
        self._beats += beats
        depth, used = self._config.stream_beats, self._used
        while used and used[0][0] <= self._beats - depth:
            self._before, cycle = used.popleft()
            self._space = cycle + self._turn
        self._ready = max(self._after_transfers(self._ready, beats * self.beat_cycles), self._space)

    def _after_transfers(self, cycle: float, work: float) -> float:
        """When `work` cycles of the bus are done, begun in `cycle`, while transfers get their share."""
        transfers = self._transfers
        while transfers:
            begin, end = transfers[0]
            if begin >= cycle + work:
                break
            if end > cycle:
                work -= max(0.0, begin - cycle)
                cycle = max(cycle, begin)
                if cycle + work / FAIR_SHARE <= end:
                    return cycle + work / FAIR_SHARE
                work -= (end - cycle) * FAIR_SHARE
                cycle = end
            transfers.popleft()
        return cycle + work

    def use(self, cycle: int, pace: float) -> None:
        """The words of a block, asked for last, are used by `cycle`; a beat of them every `pace` cycles."""
        beats = self._beats - (self._used[-1][0] if self._used else self._before)
        if beats > self._config.stream_beats:
            # The last beats come when the block itself has made room for them.
            self._ready = max(self._ready, cycle - self._config.stream_beats * pace + self._turn)
        self._used.append((self._beats, cycle))

    def give_way(self, begin: float, end: float) -> None:
        """A transfer wants all beats from `begin` to `end`, behind those told before."""
        self._transfers.append((begin, end))


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
        for command in lane.commands:
            start = yield from lane.take(ready)
            operands = command.operands
            words = operands["rows"] * operands["words"]
            beats = words * config.rows // config.bus_bytes
            self.beats += beats
            first = max(start + self._first, written + 1)
            came = first + ceil(beats / (1 - weights.share))
            weights.give_way(first, came)
            ready = max(start + operands["rows"] + CHECK_CYCLES, before)
            before, written = written, came - 1
            lane.finish(came)


class Store:
    """The STORE unit, one command at a time."""

    def __init__(self, config: Config, lane: Lane, feed: Feed, latency: int) -> None:
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
            slowness = 1 / (1 - self._feed.reading(start))
            burst = min(beats, longest)
            read = start + ADDRESS_CYCLES + config.deep_pipeline
            read += ceil(burst / ratio * slowness) + window_latency(config)
            first = read + 1 + QUEUE_CYCLES
            sent = first + max(beats - 1, ceil((words - burst / ratio) * slowness) + burst - 1)
            self.idle = sent + self._latency + 2
            lane.finish(self.idle + 1)
            ready = self.idle + 2
