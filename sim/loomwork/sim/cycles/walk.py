# SPDX-License-Identifier: Apache-2.0
"""The walk of the feed: when the pixels of each pass are begun, and what they read (rtl/walk.py, feed.py).

A pixel is begun when there is a place for it behind the pipeline; the array gives back one place with each pixel that
it takes. "Pixel" also means an input column of a DEPTHWISE.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from loomwork.arch.config import Config
from loomwork.rtl.feed import PIXELS_AHEAD, read_cycles
from loomwork.sim.cycles.accesses import Accesses
from loomwork.sim.cycles.banks import pass_reads
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.convolution import Shape


class Walk:
    """Goes from pass to pass: `begin`, then `go_on` when it is known when the array takes the pass.

    taken: the pass is taken from the sequencer. first, last: its first and its last pixel are begun.
    reads: of the scratchpad; all others give way to them.
    """

    def __init__(self, config: Config, commands: Sequence[Step], shapes: Sequence[Shape | None]) -> None:
        self.taken = self.first = self.last = -1
        self._config = config
        self._work = [(command, shape) for command, shape in zip(commands, shapes, strict=True) if shape]
        self._passes = [0, *accumulate(shape.blocks * len(shape.segments) for _, shape in self._work)]
        self._number = 0  # of the pass
        self._pixel = 0  # number of the pass's first one
        # Passes with pixels of which the places may still be used: number of the first pixel, and when it was taken.
        self._recent: deque[tuple[int, int]] = deque([(-PIXELS_AHEAD, -PIXELS_AHEAD)], maxlen=PIXELS_AHEAD + 2)
        self._cache: dict[tuple[int, int, int], bytes] = {}
        # Whether a pixel is begun is known in that cycle, and it reads some cycles later.
        self._read_cycles = read_cycles(config)
        self.reads = Accesses(self._read_cycles - 1, self._memories)

    def begin(self, valid: int, columns: int) -> None:
        """Begin as many pixels of the next pass as there are places for. valid: the sequencer offers the pass."""
        # It is taken when the last pixel of the one before is left.
        self.taken = max(valid, self.last)
        self.first = max(self.taken, self._left(self._pixel - PIXELS_AHEAD)) + 1
        self.reads.add(self.first + self._read_cycles, 0, min(columns, PIXELS_AHEAD), self._number)

    def go_on(self, entered: int, columns: int) -> None:
        """Begin the other pixels. entered: the array takes the first one, and from then on one per cycle."""
        self._recent.append((self._pixel, entered))
        self._pixel += columns
        if columns > PIXELS_AHEAD:
            # They get the places of this pass's first ones.
            following = max(self.first + PIXELS_AHEAD, entered + 1)
            self.reads.add(following + self._read_cycles, PIXELS_AHEAD, columns - PIXELS_AHEAD, self._number)
            self.last = following + columns - PIXELS_AHEAD - 1
        else:
            self.last = max(self.first + columns - 1, self._left(self._pixel - 1 - PIXELS_AHEAD) + 1)
        self._number += 1

    def _left(self, pixel: int) -> int:
        """When the array took a pixel, and gave back its place; long ago before the first one."""
        for first, entered in reversed(self._recent):
            if first <= pixel:
                return entered + pixel - first
        raise AssertionError("every pass has a pixel at least")

    def _memories(self, number: int) -> bytes:
        place = bisect_right(self._passes, number) - 1
        command, shape = self._work[place]
        operands = command.operands
        block, place = divmod(number - self._passes[place], len(shape.segments))
        tap, number = divmod(shape.passes[place], shape.tap_passes)
        if not operands["block_step"]:
            block = 0  # every block reads the same
        if (command.index, block, place) not in self._cache:
            self._cache[command.index, block, place] = pass_reads(
                command, block=block, tap=tap, number=number, shape=shape, config=self._config
            )
        return self._cache[command.index, block, place]
