# SPDX-License-Identifier: Apache-2.0
"""EXECUTE: when each pass enters the array (rtl/sequencer.py, passes.py, walk.py, feed.py, execute.py)."""

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
from loomwork.sim.cycles.weights import WeightLoader

PREPARE_CYCLES = 6
"""From a command to the cut of its first segment."""
READ_CYCLES = Window.latency + SCRATCHPAD_LATENCY
"""From the position of a pixel to its data."""
FEED_CYCLES = READ_CYCLES + Align.latency + QUEUE_CYCLES
"""From the position of a pixel to its bytes in front of the array."""


class Execute:
    """Feed, array and accumulators.

    blocks: cycles from which on the finished accumulators of each block can be read. released: the drain has launched
    the last read of a block.
    active: cycles in which pixels entered the array. waited_weights, waited_accumulator: as the counters of the same
    names (arch/registers.py).
    """

    def __init__(
        self, clock: Clock, config: Config, lane: Lane, shapes: Sequence[Shape], loader: WeightLoader, feed: Feed
    ) -> None:
        self._config = config
        self._lane = lane
        self._shapes = shapes
        self._loader = loader
        self._feed = feed
        self.blocks = Timeline(clock)
        self.released = Timeline(clock)
        self.active = self.waited_weights = self.waited_accumulator = 0
        # Passes of which some pixel may still be asked for: number of its first pixel, and when that entered the array.
        self._recent: deque[tuple[int, int]] = deque([(0, -PIXELS_AHEAD)])

    def _entered(self, pixel: int) -> int:
        """When a pixel entered the array; asked for in ascending order. Before the first one: long ago."""
        recent = self._recent
        while len(recent) > 1 and recent[1][0] <= pixel:
            recent.popleft()
        return recent[0][1] + pixel - recent[0][0] if pixel >= 0 else -PIXELS_AHEAD

    def run(self) -> Process:
        """The process."""
        config, loader, released = self._config, self._loader, self.released
        present, begun = loader.present, loader.begun
        finish_cycles = config.rows + PE.latency + config.cols + REUSE_CYCLES - 1  # through array and accumulators
        number = pixel = block = 0
        taken = position = ended = again = -1
        for command, shape in zip(self._lane.commands, self._shapes, strict=True):
            start = yield from self._lane.take(taken + 1)
            columns, segments = shape.columns, shape.segments
            last_pass = shape.blocks * len(segments) - 1
            self.active += columns * (last_pass + 1)
            valid = self._cut(number, start + PREPARE_CYCLES, segments[0])
            for place in range(last_pass + 1):
                index = place % len(segments)
                # The walk takes a pass when it leaves the last pixel of the one before.
                taken = max(valid, position)
                first = max(taken, self._entered(pixel - PIXELS_AHEAD)) + 1
                if place < last_pass:
                    valid = self._cut(number + 1, taken, segments[(index + 1) % len(segments)])
                self._feed.begin(first, command, shape, place)
                begin = max(first + FEED_CYCLES, ended + 1)
                while len(present.times) <= number:
                    yield present
                if present.times[number] > begin:
                    self.waited_weights += present.times[number] - begin
                    begin = present.times[number]
                if index == 0:
                    if block >= HALVES:
                        while len(released.times) <= block - HALVES:
                            yield released
                        half = released.times[block - HALVES] + 2
                        if half > begin:
                            self.waited_accumulator += half - begin
                            begin = half
                    block += 1
                begin = max(begin, again)
                begun.add(begin)
                self._recent.append((pixel, begin))
                pixel += columns
                ended = begin + columns - 1
                again = begin + REUSE_CYCLES
                # The other pixels get the places of this pass's first ones.
                self._feed.go_on(max(first + PIXELS_AHEAD, begin + 1), command, shape, place)
                position = max(first + columns - 1, self._entered(pixel - 1 - PIXELS_AHEAD) + 1)
                if index == len(segments) - 1:
                    self.blocks.add(ended - shape.tail + finish_cycles)
                number += 1
            self._lane.finish(start, position + READ_CYCLES, ended)

    def _cut(self, number: int, begin: int, segments: int) -> int:
        """Say when pass `number`, whose first segment may be cut in cycle `begin`, is ready for the walk."""
        valid = begin + segments
        if number >= TILES_AHEAD:
            valid = max(valid, self._loader.present.times[number - TILES_AHEAD] + 2)
        self._loader.cut.add(valid)
        return valid
