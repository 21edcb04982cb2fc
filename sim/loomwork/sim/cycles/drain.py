# SPDX-License-Identifier: Apache-2.0
"""DRAIN: when each block is taken from the accumulators, and the last byte written (rtl/drain/)."""

from math import ceil

import numpy as np

from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Params, Source
from loomwork.rtl.drain.lane import Lane as DrainLane
from loomwork.rtl.drain.shifter import LEVELS_PER_STAGE
from loomwork.rtl.ports import window_latency
from loomwork.sim.cycles.accesses import Accesses, Cursor, give_way
from loomwork.sim.cycles.banks import drain_pixels, drain_reads, drain_writes
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.execute import Execute
from loomwork.sim.cycles.lanes import Lane
from loomwork.sim.cycles.reads import QUEUE_CYCLES
from loomwork.sim.cycles.timeline import Clock, Process, Search
from loomwork.sim.cycles.walk import Walk

BEGIN_CYCLES = 4
"""From the beginning of a DRAIN to its first step in front of the launch: walker and address pipeline. One more with
`deep_pipeline`."""


class DrainCycles:
    """How long a step of the drain takes. read: from its launch to its value. write: to its bytes, by mode."""

    def __init__(self, config: Config) -> None:
        # Extractor and inserter: stages of so many levels of multiplexers, which shift by up to a word.
        insert = ceil((config.rows - 1).bit_length() / LEVELS_PER_STAGE)
        self.read = window_latency(config) + insert
        self.write = {mode: self.read + cycles + QUEUE_CYCLES + insert for mode, cycles in DrainLane.latency.items()}


class Drain:
    """Carries out REQUANT, COMBINE, TABLE and DRAIN in order.

    reads, writes: of the scratchpad; STORE and LOAD give way to them.
    waited_accumulator, waited_bank: as the counters of the same names (arch/registers.py).
    """

    def __init__(self, clock: Clock, config: Config, lane: Lane, execute: Execute, walk: Walk) -> None:
        self._config = config
        self._lane = lane
        self._execute = execute
        self._cycles = DrainCycles(config)
        self._clock = clock
        self._feed = [Cursor(walk.reads)]
        # A launch is known in its own cycle at the latest.
        self.reads = Accesses(-1, self._memories_read)
        self.writes = Accesses(min(self._cycles.write.values()) - 1, self._memories_written)
        self._block = self._parameters = 0
        self.waited_accumulator = self.waited_bank = 0
        self._combine: Step | None = None
        # Every block: its command, the COMBINE in force, and which block of its command it is.
        self._drained: list[tuple[Step, Step | None, int]] = []
        # Of the latest one: reads that are made, the cycle behind them, and when the sums are there, if it matters.
        self._made = self._behind = 0
        self._earliest: list[int] | None = None
        self._read_cache: dict[int, bytes] = {}
        self._write_cache: dict[int, bytes] = {}

    def run(self) -> Process:
        """The process."""
        lane = self._lane
        ready = done = idle = 0  # idle: everything is written
        needed = 0  # both banks of settings are in use until then
        mode = Combine.NONE
        for command in lane.commands:
            start = yield from lane.take(ready)
            begin = start + 1
            if command.mnemonic == "REQUANT":
                # It fills the bank that the results behind the REQUANT before the latest one needed.
                begin, needed = max(begin, needed), idle
                ready = begin + 1
                written = 0
            elif command.mnemonic == "COMBINE":
                self._combine = command
                begin = max(begin, idle)
                ready = begin + 1
                written = 0
            elif command.mnemonic == "TABLE":
                begin = max(begin, idle if mode is Combine.TABLE else 0)
                ready = begin + 1
                written = 0
            else:
                combine = Combine(command.operands["combine"])
                from_scratchpad = command.operands["source"] == Source.SCRATCHPAD
                if from_scratchpad or combine.has_operand or combine is not mode:
                    begin = max(begin, idle)
                mode = combine
                last = yield from self._launch(command, begin + BEGIN_CYCLES + self._config.deep_pipeline)
                written = last + self._cycles.write[mode]
                idle = written + 1
                ready = last + 1
            # One command is reported per cycle, in order, from the cycle behind its beginning on.
            done = max(begin + 1, done + 1, written)
            lane.finish(done + self._config.deep_pipeline)

    def _launch(self, command: Step, cycle: int) -> Search:
        """Launch the steps, the first one not before `cycle`. Returns the last one's cycle."""
        config, operands, execute = self._config, command.operands, self._execute
        from_scratchpad = operands["source"] == Source.SCRATCHPAD
        reads = from_scratchpad or Combine(operands["combine"]).has_operand
        pixels = operands["width"] * operands["height"] * operands["pool_width"] * operands["pool_height"]
        finished, parameters = execute.finished, execute.parameters
        released = 0
        for block in range(ceil(operands["channels"] / config.cols)):
            self._drained.append((command, self._combine, block))
            self._earliest = None
            if not from_scratchpad:
                if len(finished.times) <= self._block:
                    yield finished, self._block + 1
                there = self._find_earliest(command, block)
                # In the cycle of a release the accumulators do not yet show the state of the next half.
                self.waited_accumulator += max(0, max(there, released) - cycle)
                cycle = max(cycle, there, released)
                self._block += 1
            if operands["params"] != Params.UNIFORM:
                if len(parameters.times) <= self._parameters:
                    yield parameters, self._parameters + 1
                cycle = max(cycle, parameters.times[self._parameters])
                self._parameters += 1
            self._made, self._behind = 0, cycle
            if reads:
                wanted = self._memories_read(len(self._drained) - 1)
                cycle = yield from give_way(self._clock, self._feed, wanted, cycle, self._launched, self._earliest)
            else:
                channels = min(operands["channels"] - block * config.cols, config.cols)
                cycle = self._launch_unhindered(cycle, pixels * ceil(channels / config.requant_lanes))
            if not from_scratchpad:
                execute.released.add(cycle - 1)
            if operands["params"] != Params.UNIFORM:
                execute.freed.add(cycle + self._cycles.read)
            released = cycle + 1
        return cycle - 1

    def _find_earliest(self, command: Step, block: int) -> int:
        """When the first sum of the next block is there; leaves in `_earliest` when those of all steps are.

        Those of a block of one pass come one after the other, others all together with the last one.
        """
        sums = self._execute.sums[self._block]
        if sums is None:
            return self._execute.finished.times[self._block]
        earliest = sums[drain_pixels(command, block, self._config)]
        # Steps follow each other at one per cycle: only those that come later than that are waited for.
        lag = np.maximum.accumulate(earliest - np.arange(len(earliest)))
        if lag[-1] > lag[0]:
            self._earliest = (lag + np.arange(len(lag))).tolist()
        return int(earliest[0])

    def _launch_unhindered(self, cycle: int, steps: int) -> int:
        """Launch steps without reads of the scratchpad. Returns the cycle behind the last one."""
        number = 0
        for step, earliest in enumerate(self._earliest or ()):
            if earliest > cycle + step - number:
                if step > number:
                    self._launched(cycle, step - number)
                number, cycle = step, earliest
        self._launched(cycle, steps - number)
        return cycle + steps - number

    def _launched(self, cycle: int, count: int) -> None:
        """So many reads of the latest block are made, or steps launched, one per cycle from `cycle` on.

        The first one has waited until then, for its sum and, if it reads, for the feed.
        """
        number = len(self._drained) - 1
        asked = self._behind
        if self._earliest is not None:
            asked = max(asked, min(cycle, self._earliest[self._made]))
            self.waited_accumulator += asked - self._behind
        self.waited_bank += cycle - asked
        command, _, _ = self._drained[number]
        combine = Combine(command.operands["combine"])
        if combine.has_operand or command.operands["source"] == Source.SCRATCHPAD:
            for waiting in range(asked, cycle):
                self.reads.add(waiting, self._made, 1, number)
            self.reads.add(cycle, self._made, count, number)
        self.writes.add(cycle + self._cycles.write[combine], self._made, count, number)
        self._made += count
        self._behind = cycle + count

    def _memories_read(self, number: int) -> bytes:
        if number not in self._read_cache:
            self._read_cache = {number: drain_reads(*self._drained[number], self._config)}
        return self._read_cache[number]

    def _memories_written(self, number: int) -> bytes:
        if number not in self._write_cache:
            command, _, block = self._drained[number]
            writes = drain_writes(command, block, self._config)
            if command.operands["source"] == Source.SCRATCHPAD and Combine(command.operands["combine"]).has_operand:
                # A step of two reads is launched with the second one.
                writes = bytes(byte for memories in writes for byte in (0, memories))
            self._write_cache = {number: writes}
        return self._write_cache[number]
