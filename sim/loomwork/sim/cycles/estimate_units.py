# SPDX-License-Identifier: Apache-2.0
"""For an estimate: array and drain, block by block. The passes of a block have a closed form."""

from collections.abc import Mapping, Sequence
from math import ceil

from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import Combine, Params, Source
from loomwork.rtl.accumulator import HALVES, REUSE_CYCLES
from loomwork.rtl.feed import PIXELS_AHEAD
from loomwork.rtl.ports import PARITIES, feed_latency
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.drain import BEGIN_CYCLES, DrainCycles
from loomwork.sim.cycles.estimate_bus import FAIR_SHARE, Weights
from loomwork.sim.cycles.execute import PARAMETER_BUFFERS, PREPARE_CYCLES, feed_cycles, finish_cycles
from loomwork.sim.cycles.lanes import Lane
from loomwork.sim.cycles.timeline import Clock, Process, Search, Timeline

_MEMORIES = BANKS * PARITIES


class Array:
    """EXECUTE, block by block.

    first_sums: when the first sum of each block of one pass is there; None for other blocks. The other members are as
    those of execute.Execute.
    """

    def __init__(
        self, clock: Clock, config: Config, lane: Lane, shapes: Sequence[Shape | None], weights: Weights
    ) -> None:
        self._config = config
        self._lane = lane
        self._shapes = shapes
        self._weights = weights
        self.finished = Timeline(clock)
        self.first_sums: list[int | None] = []
        self.released = Timeline(clock)
        self.parameters = Timeline(clock)
        self.freed = Timeline(clock)
        self.active = self.waited_weights = self.waited_accumulator = 0
        self._reading = 0.0  # share of the memories that it reads
        self._finish_cycles = finish_cycles(config)
        self._used = -1  # when the latest word of the stream is used
        self._begun, self._ended = -REUSE_CYCLES, -1  # as in execute.Execute
        self._reported = -1  # the latest command is reported finished

    def run(self) -> Process:
        """The process."""
        ready = 0
        for shape in self._shapes:
            if shape is None:
                start = yield from self._lane.take(ready)
                ready = start + 2
                self._finish(start + 1)
                continue
            self.active += shape.columns * shape.blocks * len(shape.segments)
            start = yield from self._lane.take(ready)
            prepared = start + PREPARE_CYCLES + shape.left_out[0] + shape.segments[0] + 1
            yield from self._convolve(shape, prepared + feed_cycles(self._config))
            # The walk leaves the last pass to others a little before the array has it.
            ready = max(start + PREPARE_CYCLES + 1, self._begun - PIXELS_AHEAD)
            self._finish(max(start + 1, self._ended - PIXELS_AHEAD + feed_latency(self._config)), self._ended)

    def _finish(self, done: int, busy_until: int = 0) -> None:
        """The next command is reported: in order."""
        self._reported = max(done, self._reported + 1)
        self._lane.finish(self._reported, busy_until)

    def reading(self, cycle: int) -> float:
        """The share of the scratchpad's memories that the feed takes in a cycle; none when it is done."""
        return self._reading if cycle <= self._ended else 0.0

    def _convolve(self, shape: Shape, begin: int) -> Process:
        config, weights, rows = self._config, self._weights, self._config.rows
        passes, columns = len(shape.segments), shape.columns
        tile_beats = rows * config.cols / config.bus_bytes
        cut = max(*shape.segments, (sum(shape.segments) + sum(shape.left_out)) // passes)
        pitch = max(columns, rows, REUSE_CYCLES, cut + 1, tile_beats * weights.beat_cycles)
        weights.share = min(FAIR_SHARE, tile_beats / pitch)
        self._reading = sum(shape.segments) / passes * columns / pitch / _MEMORIES
        last_sum = int(shape.outputs[-1]) + self._finish_cycles
        words = (passes - 1) * rows + shape.params  # behind the first tile
        for _ in range(shape.blocks):
            free = max(begin, self._ended + 1)
            yield free  # transfers that have begun by then are known
            first = yield from weights.bring(rows)
            there = yield from weights.bring(words)
            # Of a tile the loader takes one row after the other, as they come.
            began = first - ceil(tile_beats * weights.beat_cycles)
            self._used = max(max(self._used, self._begun, began) + rows, first + 1)
            first = max(free, self._used)
            self.waited_weights += first - free
            first = yield from self._reserve(max(first, self._begun + REUSE_CYCLES))
            params = int(shape.params * config.cols / config.bus_bytes)
            last = max(first + ceil((passes - 1) * pitch), there - params)
            self.waited_weights += last - first - (passes - 1) * columns
            if passes > 1:
                self._used = last - int(pitch) + rows
            self._begun, self._ended = last, last + columns - 1
            self.first_sums.append(last + self._finish_cycles if passes == 1 else None)
            self.finished.add(last + last_sum)
            if shape.params:
                yield from self._take_parameters(shape.params)
            weights.use(self._used, pitch / tile_beats)

    def _reserve(self, begin: int) -> Search:
        """When a block that could begin in cycle `begin` may, for there is a free half."""
        blocker = len(self.first_sums) - HALVES
        if blocker < 0:
            return begin
        if len(self.released.times) <= blocker:
            yield self.released, blocker + 1
        free = max(begin, self.released.times[blocker] + 2)
        self.waited_accumulator += free - begin
        return free

    def _take_parameters(self, words: int) -> Process:
        block = len(self.parameters.times) - PARAMETER_BUFFERS
        if block >= 0:
            if len(self.freed.times) <= block:
                yield self.freed, block + 1
            self._used = max(self._used, self.freed.times[block] - 1)
        self._used += words
        self.parameters.add(self._used + 1)


class Drain:
    """REQUANT, COMBINE, TABLE and DRAIN, block by block."""

    def __init__(self, config: Config, lane: Lane, execute: Array) -> None:
        self._config = config
        self._lane = lane
        self._execute = execute
        self._cycles = DrainCycles(config)
        self._block = self._parameters = 0
        self.waited_accumulator = 0

    def run(self) -> Process:
        """The process; see drain.Drain.run."""
        lane, cycles = self._lane, self._cycles
        ready = done = idle = needed = 0
        mode = Combine.NONE
        for command in lane.commands:
            start = yield from lane.take(ready)
            begin, written = start + 1, 0
            if command.mnemonic == "REQUANT":
                begin, needed = max(begin, needed), idle
                ready = begin + 1
            elif command.mnemonic == "COMBINE":
                begin = max(begin, idle)
                ready = begin + 1
            elif command.mnemonic == "TABLE":
                begin = max(begin, idle if mode is Combine.TABLE else 0)
                ready = begin + 1
            else:
                operands = command.operands
                combine = Combine(operands["combine"])
                if operands["source"] == Source.SCRATCHPAD or combine.has_operand or combine is not mode:
                    begin = max(begin, idle)
                mode = combine
                last = yield from self._launch(operands, begin + BEGIN_CYCLES)
                written = last + cycles.write[mode]
                idle = written + 1
                ready = last + 1
            done = max(begin + 1, done + 1, written)
            lane.finish(done)

    def _launch(self, operands: Mapping[str, int], cycle: int) -> Search:
        """Launch the steps, the first one not before `cycle`. Returns the last one's cycle."""
        config, execute = self._config, self._execute
        from_scratchpad = operands["source"] == Source.SCRATCHPAD
        reads = from_scratchpad + Combine(operands["combine"]).has_operand
        pixels = operands["width"] * operands["height"] * operands["pool_width"] * operands["pool_height"]
        channels, cols, lanes = operands["channels"], config.cols, config.requant_lanes
        finished, parameters, parametric = execute.finished, execute.parameters, operands["params"] != Params.UNIFORM
        released = 0
        while channels > 0:
            groups = ceil(min(channels, cols) / lanes)
            channels -= cols
            end = 0
            if not from_scratchpad:
                if len(finished.times) <= self._block:
                    yield finished, self._block + 1
                there = finished.times[self._block]
                first = execute.first_sums[self._block]
                if first is not None:
                    # Those of a block of one pass are taken one after the other, each when it is there.
                    there, end = first, there + groups
                self.waited_accumulator += max(0, max(there, released) - cycle)
                cycle = max(cycle, there, released)
                self._block += 1
            if parametric:
                if len(parameters.times) <= self._parameters:
                    yield parameters, self._parameters + 1
                cycle = max(cycle, parameters.times[self._parameters])
                self._parameters += 1
            # A read waits as long as the feed reads the same memory.
            step = reads / (1 - execute.reading(cycle)) if reads else 1
            behind = cycle + int(pixels * groups * step)
            self.waited_accumulator += max(0, end - behind)
            cycle = max(behind, end)
            if not from_scratchpad:
                execute.released.add(cycle - 1)
            if parametric:
                execute.freed.add(cycle + self._cycles.read)
            released = cycle + 1
        return cycle - 1
