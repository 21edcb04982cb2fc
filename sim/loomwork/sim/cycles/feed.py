# SPDX-License-Identifier: Apache-2.0
"""When the feed reads which memories of the scratchpad: it goes before the drain (rtl/scratchpad.py)."""

from collections import deque
from collections.abc import Generator

from loomwork.arch.config import Config
from loomwork.rtl.window import Window
from loomwork.sim.cycles.banks import pass_reads
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.timeline import Clock, Timeline

LOOKAHEAD = Window.latency - 1
"""Cycles from the time in which it must be known that a pixel is begun to the time in which it reads."""


class Feed:
    """Takes note of the pixels that the walk begins, and answers the drain, which asks cycle by cycle."""

    def __init__(self, clock: Clock, config: Config) -> None:
        self._clock = clock
        self._config = config
        # Neighbouring pixels that read one per cycle: cycles, number of the first one, and of which pass.
        self._runs: deque[tuple[int, int, int, Step, Shape, int]] = deque()
        self._known = 0
        self._cache: dict[tuple[int, int, int], bytes] = {}

    def begin(self, cycle: int, first: int, count: int, command: Step, shape: Shape, place: int) -> None:
        """Pixels `first` .. `first + count - 1` of pass `place` of a command are begun, one per cycle from `cycle` on."""
        if count > 0:
            begin = cycle + Window.latency
            self._known = begin + count
            self._runs.append((begin, self._known, first, command, shape, place))

    def wait_for(self, reads: bytes, cycle: int) -> "Generator[Timeline | int, None, tuple[int, int]]":
        """Make reads, one per cycle from `cycle` on, each as soon as the feed leaves its memories free.

        Returns the cycle behind the last one, and how many cycles were lost.
        """
        runs = self._runs
        begin = end = shift = 0
        busy = b""
        lost = 0
        for wanted in reads:
            while True:
                if cycle >= self._known and cycle > self._clock.now + LOOKAHEAD:
                    yield cycle - LOOKAHEAD
                    continue
                if cycle >= end:
                    while runs and runs[0][1] <= cycle:
                        runs.popleft()
                    if not runs:
                        break
                    begin, end, first, command, shape, place = runs[0]
                    shift, busy = first - begin, self._reads(command, shape, place)
                if cycle < begin or not busy[cycle + shift] & wanted:
                    break
                lost += 1
                cycle += 1
            cycle += 1
        return cycle, lost

    def _reads(self, command: Step, shape: Shape, place: int) -> bytes:
        """Memories that each pixel of a pass reads. place: of the pass within its command."""
        operands = command.operands
        block, place = divmod(place, len(shape.segments))
        tap, number = divmod(place, len(shape.segments) // operands["tap_count"])
        key = command.index, block if operands["block_step"] else 0, place
        if key not in self._cache:
            self._cache[key] = pass_reads(
                command,
                block=key[1],
                tap=tap,
                number=number,
                columns=shape.columns // operands["tile_height"],
                config=self._config,
            )
        return self._cache[key]
