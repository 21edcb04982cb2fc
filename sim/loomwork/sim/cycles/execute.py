# SPDX-License-Identifier: Apache-2.0
"""EXECUTE: when each pass enters the array, and each block is finished.

From rtl/sequencer.py, passes.py, weights.py, execute.py and accumulator.py; walk.py has the way to the array.
"""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.rtl.accumulator import HALVES, REUSE_CYCLES
from loomwork.rtl.align import Align
from loomwork.rtl.execute import TILES_AHEAD, entry_cycles
from loomwork.rtl.feed import read_cycles
from loomwork.rtl.pe import PE
from loomwork.rtl.ports import feed_latency
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.lanes import Lane
from loomwork.sim.cycles.reads import QUEUE_CYCLES
from loomwork.sim.cycles.timeline import Clock, Process, Search, Timeline
from loomwork.sim.cycles.walk import Walk
from loomwork.sim.cycles.words import Words

PREPARE_CYCLES = 6
"""From a command to the cut of its first segment."""
PARAMETER_BUFFERS = 2


def data_cycles(config: Config) -> int:
    """From the beginning of a pixel to its data."""
    return read_cycles(config) + feed_latency(config)


def feed_cycles(config: Config) -> int:
    """From the beginning of a pixel to its bytes in front of the array."""
    return data_cycles(config) + Align.latency + QUEUE_CYCLES


def finish_cycles(config: Config) -> int:
    """From a pixel that is admitted to the array to its sums, through the array and the accumulators of all columns."""
    return entry_cycles(config) + config.rows + PE.latency + config.cols + REUSE_CYCLES - 1


class Execute:
    """Sequencer, weight loader, array and accumulators.

    finished: cycles from which on the accumulators of each block can be read. sums: the same for each pixel of a block
    of one pass, which may be read while the others are made; None for other blocks. released: those in which the drain
    launches the last read of a block.
    parameters: those of a block are there. freed: its buffer may be filled again. (Only blocks that have any.)
    active: cycles in which pixels enter the array. waited_weights, waited_accumulator: as the counters of the same
    names (arch/registers.py).
    """

    def __init__(
        self, clock: Clock, config: Config, lane: Lane, shapes: Sequence[Shape | None], words: Words, walk: Walk
    ) -> None:
        self._rows = config.rows
        self._data_cycles, self._feed_cycles = data_cycles(config), feed_cycles(config)
        self._lane = lane
        self._shapes = shapes
        self._words = words
        self._walk = walk
        self._hears = int(config.deep_pipeline)  # cycles until the cutter knows that a pass is taken
        self._sees = int(config.deep_pipeline)  # cycles until the drain knows of a sum, but for the last one of a block
        self.finished = Timeline(clock)
        self.sums: list[NDArray[np.int64] | None] = []
        self.released = Timeline(clock)
        self.parameters = Timeline(clock)
        self.freed = Timeline(clock)
        self.active = self.waited_weights = self.waited_accumulator = 0
        self._finish_cycles = finish_cycles(config)
        self._walked = Timeline(clock)  # the walk takes the last pass of a convolution
        self._reported = -1  # the latest command is reported finished
        self._present = array("q")  # when the weights of each pass are complete
        self._begun, self._ended = -REUSE_CYCLES, -1  # the array takes the first and the last pixel of a pass
        self._blocks = 0

    def take_commands(self) -> Process:
        """The process of the sequencer, which takes a command when the walk has the last pass of the one before.

        A SKIP takes no time, but there is never more than one that is not reported.
        """
        ready = convolutions = 0
        reported = self._lane.done
        before = -1  # number of the SKIP before
        for number, shape in enumerate(self._shapes):
            if shape is None:
                if before >= 0:
                    if len(reported.times) <= before:
                        yield reported, before + 1
                    ready = max(ready, reported.times[before] + 1)
                before = number
                ready = (yield from self._lane.take(ready)) + 2
                continue
            yield from self._lane.take(ready)
            convolutions += 1
            if len(self._walked.times) < convolutions:
                yield self._walked, convolutions
            ready = self._walked.times[-1] + 1

    def run(self) -> Process:
        """The process of the array."""
        started = self._lane.started
        for place, shape in enumerate(self._shapes):
            if shape is None:
                # It is reported when all commands before it are, in the cycle after it is taken at the earliest.
                if len(started.times) <= place:
                    yield started, place + 1
                self._finish(started.times[place] + 1)
                continue
            self.active += shape.columns * shape.blocks * len(shape.segments)
            # The first tile may be loaded before the command comes, but for its last row.
            yield from self._words.take(self._rows, self._begun + 1)
            if len(started.times) <= place:
                yield started, place + 1
            yield from self._convolve(shape, started.times[place] + PREPARE_CYCLES)

    def _convolve(self, shape: Shape, begin: int) -> Process:
        """All passes of a command. begin: the first segment may be cut."""
        rows, words, walk, segments = self._rows, self._words, self._walk, shape.segments
        passes, columns = len(segments), shape.columns
        last = shape.blocks * passes - 1
        valid = self._cut(begin + shape.left_out[0], segments[0], 0)
        for number in range(last + 1):
            known = valid
            walk.begin(valid, columns)
            if number < last:
                # What is left out is cut while the pass in front of it still waits.
                place = (number + 1) % passes
                valid = self._cut(max(walk.taken + self._hears, known + shape.left_out[place]), segments[place], 1)
            else:
                self._walked.add(walk.taken)
            if not number:
                pass  # loaded already
            elif words.there >= rows:
                words.use(rows, self._begun + 1)
            else:
                yield from words.take(rows, self._begun + 1)
            # The last row waits until it is known what follows in the stream.
            present = words.hold(known)
            self._present.append(present)

            begin = max(walk.first + self._feed_cycles, self._ended + 1)
            if present > begin:
                self.waited_weights += present - begin
                begin = present
            if number % passes == 0:
                begin = yield from self._reserve(begin)
            self._begun = begin = max(begin, self._begun + REUSE_CYCLES)
            self._ended = begin + columns - 1
            walk.go_on(begin, columns)
            if number == last:
                self._finish(walk.last + self._data_cycles, self._ended)
            if (number + 1) % passes == 0:
                sums = shape.outputs + (begin + self._finish_cycles)
                finished = int(sums[-1])
                self.sums.append(np.minimum(sums + self._sees, finished) if passes == 1 else None)
                self.finished.add(finished)
                if shape.params:
                    yield from self._take_parameters(shape.params)

    def _finish(self, done: int, busy_until: int = 0) -> None:
        """The next command is reported: one in each cycle, in order."""
        self._reported = max(done, self._reported + 1)
        self._lane.finish(self._reported, busy_until)

    def _cut(self, begin: int, segments: int, ahead: int) -> int:
        """When a pass, whose first segment may be cut in cycle `begin`, is ready for the walk.

        ahead: how many passes in front of it have not got their weights yet.
        """
        blocker = len(self._present) + ahead - TILES_AHEAD
        return max(begin + segments, self._present[blocker] + 2) if blocker >= 0 else begin + segments

    def _reserve(self, begin: int) -> Search:
        """When a block that could begin in cycle `begin` may, for there is a free half."""
        blocker = self._blocks - HALVES
        self._blocks += 1
        if blocker < 0:
            return begin
        if len(self.released.times) <= blocker:
            yield self.released, blocker + 1
        free = self.released.times[blocker] + 2
        self.waited_accumulator += max(0, free - begin)
        return max(begin, free)

    def _take_parameters(self, words: int) -> Process:
        """The parameters of a block follow its last tile, as soon as the drain has no use for those in their buffer."""
        block = len(self.parameters.times) - PARAMETER_BUFFERS
        free = 0
        if block >= 0:
            if len(self.freed.times) <= block:
                yield self.freed, block + 1
            free = self.freed.times[block]
        yield from self._words.take(words, free)
        self.parameters.add(self._words.used + 1)
