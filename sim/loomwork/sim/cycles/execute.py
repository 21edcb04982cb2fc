# SPDX-License-Identifier: Apache-2.0
"""EXECUTE: when each pass enters the array, and each block is finished.

From rtl/sequencer.py, passes.py, walk.py, feed.py, weights.py, execute.py and accumulator.py.
"""

from array import array
from collections import deque
from collections.abc import Sequence

from loomwork.arch.config import Config
from loomwork.rtl.accumulator import HALVES, REUSE_CYCLES
from loomwork.rtl.align import Align
from loomwork.rtl.execute import TILES_AHEAD
from loomwork.rtl.feed import PIXELS_AHEAD
from loomwork.rtl.pe import PE
from loomwork.rtl.ports import SCRATCHPAD_LATENCY
from loomwork.rtl.window import Window
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.feed import Feed
from loomwork.sim.cycles.lanes import Lane
from loomwork.sim.cycles.reads import QUEUE_CYCLES
from loomwork.sim.cycles.timeline import Clock, Process, Timeline
from loomwork.sim.cycles.words import Words

PREPARE_CYCLES = 6
"""From a command to the cut of its first segment."""
READ_CYCLES = Window.latency + SCRATCHPAD_LATENCY
"""From the position of a pixel to its data."""
FEED_CYCLES = READ_CYCLES + Align.latency + QUEUE_CYCLES
"""From the position of a pixel to its bytes in front of the array."""
PARAMETER_BUFFERS = 2


class Execute:
    """Sequencer, weight loader, array and accumulators. "Pixel" also means an input column of a DEPTHWISE.

    finished: cycles from which on the accumulators of each block can be read. released: those in which the drain
    launches the last read of a block.
    parameters: those of a block are there. freed: its buffer may be filled again. (Only blocks that have any.)
    active: cycles in which pixels enter the array. waited_weights, waited_accumulator: as the counters of the same
    names (arch/registers.py).
    """

    def __init__(
        self, clock: Clock, config: Config, lane: Lane, shapes: Sequence[Shape], words: Words, feed: Feed
    ) -> None:
        self._config = config
        self._lane = lane
        self._shapes = shapes
        self._words = words
        self._feed = feed
        self.finished = Timeline(clock)
        self.released = Timeline(clock)
        self.parameters = Timeline(clock)
        self.freed = Timeline(clock)
        self.active = self.waited_weights = self.waited_accumulator = 0
        self._walked = Timeline(clock)  # the walk takes the last pass of a command
        # Passes with pixels that may still be asked for: number of its first one, and when that entered the array.
        self._recent: deque[tuple[int, int]] = deque([(0, 0)], maxlen=PIXELS_AHEAD + 2)

    def take_commands(self) -> Process:
        """The process of the sequencer, which takes a command when the walk has the last pass of the one before."""
        ready = 0
        for number in range(len(self._shapes)):
            yield from self._lane.take(ready)
            while len(self._walked.times) <= number:
                yield self._walked
            ready = self._walked.times[number] + 1

    def run(self) -> Process:
        """The process of the array."""
        config, words, started, released = self._config, self._words, self._lane.started, self.released
        rows = config.rows
        finish_cycles = rows + PE.latency + config.cols + REUSE_CYCLES - 1  # through array and accumulators
        present = array("q")  # when the weights of each pass are there
        number = pixel = block = valid = first = 0
        position = ended = begin = -1
        begin = -REUSE_CYCLES
        for place, (command, shape) in enumerate(zip(self._lane.commands, self._shapes, strict=True)):
            columns, segments = shape.columns, shape.segments
            passes = len(segments)
            last = shape.blocks * passes - 1
            self.active += columns * (last + 1)
            for index in range(last + 1):
                # The tile is loaded from the beginning of the pass before on; its last row waits until it is clear
                # what follows in the stream.
                loads = begin + 1 if number else 0
                if index == 0:
                    yield from words.take(rows, loads)
                    while len(started.times) <= place:
                        yield started
                    valid = self._cut(present, started.times[place] + PREPARE_CYCLES, segments[0])
                ready = valid
                # The walk takes the pass when it leaves the last pixel of the one before.
                taken = valid if valid > position else position
                first = max(taken, self._entered(pixel - PIXELS_AHEAD)) + 1
                self._feed.begin(first, command, shape, index)
                if index == last:
                    self._walked.add(taken)
                else:
                    valid = self._cut(present, taken, segments[(index + 1) % passes], 1)
                if index:
                    if words.there >= rows:
                        words.use(rows, loads)
                    else:
                        yield from words.take(rows, loads)
                there = words.hold(ready)
                present.append(there)

                again = begin + REUSE_CYCLES
                begin = max(first + FEED_CYCLES, ended + 1)
                if there > begin:
                    self.waited_weights += there - begin
                    begin = there
                if index % passes == 0:
                    if block >= HALVES:
                        while len(released.times) <= block - HALVES:
                            yield released
                        half = released.times[block - HALVES] + 2
                        if half > begin:
                            self.waited_accumulator += half - begin
                            begin = half
                    block += 1
                if again > begin:
                    begin = again
                self._recent.append((pixel, begin))
                # The other pixels get the places of this pass's first ones.
                self._feed.go_on(max(first + PIXELS_AHEAD, begin + 1), command, shape, index)
                pixel += columns
                number += 1
                ended = begin + columns - 1
                position = max(first + columns - 1, self._entered(pixel - 1 - PIXELS_AHEAD) + 1)
                if index == last:
                    self._lane.finish(started.times[place], position + READ_CYCLES, ended)
                if (index + 1) % passes == 0:
                    self.finished.add(ended - shape.tail + finish_cycles)
                    if shape.params:
                        yield from self._take_parameters(shape.params)

    def _cut(self, present: "array[int]", begin: int, segments: int, ahead: int = 0) -> int:
        """When a pass, whose first segment may be cut in cycle `begin`, is ready for the walk.

        ahead: passes between it and the latest one in `present`.
        """
        blocker = len(present) + ahead - TILES_AHEAD
        return max(begin + segments, present[blocker] + 2) if blocker >= 0 else begin + segments

    def _entered(self, pixel: int) -> int:
        """When a pixel, at most PIXELS_AHEAD before the latest one, entered the array; long ago before the first."""
        if pixel < 0:
            return -PIXELS_AHEAD
        for first, begin in reversed(self._recent):
            if first <= pixel:
                return begin + pixel - first
        raise AssertionError("a pass has a pixel at least")

    def _take_parameters(self, words: int) -> Process:
        """The parameters of a block follow its last tile, as soon as the drain has no use for those in their buffer."""
        block = len(self.parameters.times) - PARAMETER_BUFFERS
        free = 0
        if block >= 0:
            while len(self.freed.times) <= block:
                yield self.freed
            free = self.freed.times[block]
        yield from self._words.take(words, free)
        self.parameters.add(self._words.used + 1)
