# SPDX-License-Identifier: Apache-2.0
"""When the feed reads which memories of the scratchpad."""

from loomwork.arch.config import Config
from loomwork.rtl.feed import PIXELS_AHEAD
from loomwork.rtl.window import Window
from loomwork.sim.cycles.accesses import Accesses
from loomwork.sim.cycles.banks import pass_reads
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.timeline import Clock


class Feed:
    """Takes note of the pixels that the walk begins. reads: what they read; the drain gives way to it."""

    def __init__(self, clock: Clock, config: Config) -> None:
        self._config = config
        self._cache: dict[tuple[int, int, int], bytes] = {}
        # Whether a pixel is begun is known in that cycle, and it reads `Window.latency` cycles later.
        self.reads = Accesses(clock, Window.latency - 1, self._memories)

    def begin(self, cycle: int, command: Step, shape: Shape, place: int) -> None:
        """The first pixels of pass `place` of a command are begun, from `cycle` on: as many as there are places for."""
        self.reads.add(cycle + Window.latency, 0, min(shape.columns, PIXELS_AHEAD), (command, shape, place))

    def go_on(self, cycle: int, command: Step, shape: Shape, place: int) -> None:
        """The others are begun, from `cycle` on."""
        key = (command, shape, place)
        self.reads.add(cycle + Window.latency, PIXELS_AHEAD, shape.columns - PIXELS_AHEAD, key)

    def _memories(self, key: tuple[Step, Shape, int]) -> bytes:
        command, shape, place = key
        operands = command.operands
        block, place = divmod(place, len(shape.segments))
        tap, number = divmod(place, len(shape.segments) // operands["tap_count"])
        if not operands["block_step"]:
            block = 0  # every block reads the same
        if (command.index, block, place) not in self._cache:
            columns = shape.columns // operands["tile_height"]
            self._cache[command.index, block, place] = pass_reads(
                command, block=block, tap=tap, number=number, columns=columns, config=self._config
            )
        return self._cache[command.index, block, place]
