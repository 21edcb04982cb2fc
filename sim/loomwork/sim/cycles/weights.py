# SPDX-License-Identifier: Apache-2.0
"""The weight loader: when the weights of each pass are there, and the parameters of each block (rtl/weights.py)."""

from collections.abc import Sequence

from loomwork.arch.config import Config
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.lanes import Waiting
from loomwork.sim.cycles.reads import Reader
from loomwork.sim.cycles.timeline import Clock, Process, Timeline

PARAMETER_BUFFERS = 2


class WeightLoader:
    """Takes words of `cols` bytes from the STREAM queue: `rows` for each pass, then the parameters of a finished block.

    cut: a pass is known, so that the loader may finish its tile. begun: a pass begins, so that the next tile may be
    loaded. freed: a buffer of parameters is no longer in use.
    present: the tile of a pass is complete. parameters: those of a block are (only blocks that have any).
    """

    def __init__(self, clock: Clock, config: Config, shapes: Sequence[Shape], reader: Reader) -> None:
        self._config = config
        self._shapes = shapes
        self._reader = reader
        self.cut = Timeline(clock)
        self.begun = Timeline(clock)
        self.freed = Timeline(clock)
        self.present = Timeline(clock)
        self.parameters = Timeline(clock)
        # The next word, counted within its burst; a word is used in the cycle after it left the queue at the earliest.
        self._burst = 0
        self._word = self._words = 0
        self._arrival = 0
        self._used = -1

    def run(self) -> Process:
        """The process."""
        rows, number = self._config.rows, 0
        cut, begun, present = self.cut, self.begun, self.present
        for shape in self._shapes:
            passes = len(shape.segments)
            for _ in range(shape.blocks):
                for _ in range(passes):
                    if number:
                        while len(begun.times) < number:
                            yield begun
                        yield from self._take(rows, begun.times[number - 1] + 1)
                    else:
                        yield from self._take(rows, 0)
                    # The last row waits until the sequencer has said what follows.
                    while len(cut.times) <= number:
                        yield cut
                    self._used = max(self._used, cut.times[number])
                    present.add(self._used)
                    number += 1
                if shape.params:
                    block = len(self.parameters.times) - PARAMETER_BUFFERS
                    free = 0
                    if block >= 0:
                        while len(self.freed.times) <= block:
                            yield self.freed
                        free = self.freed.times[block]
                    yield from self._take(shape.params, free)
                    self.parameters.add(self._used + 1)

    def _take(self, words: int, begin: int) -> Waiting:
        """Use so many words, the first one not before `begin`, one per cycle as far as they are there."""
        reader, popped = self._reader, self._reader.popped
        used = max(self._used, begin - 1)
        left = words
        while left:
            if self._word == self._words:
                while len(reader.bursts.times) <= self._burst:
                    yield reader.bursts
                first, end, self._arrival = reader.burst(self._burst)
                self._burst += 1
                self._word, self._words = 0, end - first
            count = min(left, self._words - self._word)
            arrival = self._arrival + self._word
            # The register in front of the array takes a word when its predecessor is used.
            taken = max(arrival, self._used)
            used = max(used, arrival) + 1
            popped.add(taken)
            if count > 1:
                popped.extend(range(used, used + count - 1))
            used += count - 1
            self._used = used
            self._word += count
            left -= count
        return used
