# SPDX-License-Identifier: Apache-2.0
"""The weight loader: when the weights of each pass are there, and the parameters of each block (rtl/weights.py)."""

from collections.abc import Sequence

from loomwork.arch.config import Config
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.timeline import Clock, Process, Timeline
from loomwork.sim.cycles.words import Words

PARAMETER_BUFFERS = 2


class WeightLoader:
    """Takes words of `cols` bytes from the STREAM queue: `rows` for each pass, then the parameters of a finished block.

    cut: a pass is known, so that the loader may finish its tile. begun: a pass begins, so that the next tile may be
    loaded. freed: a buffer of parameters is no longer in use.
    present: the tile of a pass is complete. parameters: those of a block are (only blocks that have any).
    """

    def __init__(self, clock: Clock, config: Config, shapes: Sequence[Shape], words: Words) -> None:
        self._config = config
        self._shapes = shapes
        self._words = words
        self.cut = Timeline(clock)
        self.begun = Timeline(clock)
        self.freed = Timeline(clock)
        self.present = Timeline(clock)
        self.parameters = Timeline(clock)

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
                        yield from self._words.take(rows, begun.times[number - 1] + 1)
                    else:
                        yield from self._words.take(rows, 0)
                    # The last row waits until the sequencer has said what follows.
                    while len(cut.times) <= number:
                        yield cut
                    self._words.hold_last(cut.times[number])
                    present.add(self._words.used)
                    number += 1
                if shape.params:
                    block = len(self.parameters.times) - PARAMETER_BUFFERS
                    free = 0
                    if block >= 0:
                        while len(self.freed.times) <= block:
                            yield self.freed
                        free = self.freed.times[block]
                    yield from self._words.take(shape.params, free)
                    self.parameters.add(self._words.used + 1)
