# SPDX-License-Identifier: Apache-2.0
"""DRAIN: when each block is taken from the accumulators, and the last byte written (rtl/drain/)."""

from math import ceil

from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Params, Source
from loomwork.rtl.drain.lane import Lane as DrainLane
from loomwork.rtl.drain.shifter import Extractor, Inserter
from loomwork.rtl.ports import SCRATCHPAD_LATENCY
from loomwork.sim.cycles.accesses import Accesses, Cursor, give_way
from loomwork.sim.cycles.banks import drain_reads, drain_writes
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.execute import Execute
from loomwork.sim.cycles.lanes import Lane
from loomwork.sim.cycles.reads import QUEUE_CYCLES
from loomwork.sim.cycles.timeline import Clock, Process, Search
from loomwork.sim.cycles.walk import Walk

BEGIN_CYCLES = 4
"""From the beginning of a DRAIN to its first step in front of the launch: walker and address pipeline."""


class Drain:
    """Carries out REQUANT, COMBINE and DRAIN in order.

    reads, writes: of the scratchpad; STORE and LOAD give way to them.
    waited_accumulator, waited_bank: as the counters of the same names (arch/registers.py).
    """

    def __init__(self, clock: Clock, config: Config, lane: Lane, execute: Execute, walk: Walk) -> None:
        self._config = config
        self._lane = lane
        self._execute = execute
        self._read_cycles = SCRATCHPAD_LATENCY + Extractor(8, config.requant_lanes, config.rows).latency
        insert_cycles = Inserter(9, config.requant_lanes, config.rows).latency
        self._write_cycles = {
            mode: self._read_cycles + cycles + QUEUE_CYCLES + insert_cycles
            for mode, cycles in DrainLane.latency.items()
        }
        self._clock = clock
        self._feed = [Cursor(walk.reads)]
        # A launch is known in its own cycle at the latest.
        self.reads = Accesses(-1, self._memories_read)
        self.writes = Accesses(min(self._write_cycles.values()) - 1, self._memories_written)
        self._block = self._parameters = 0
        self.waited_accumulator = self.waited_bank = 0
        self._combine: Step | None = None
        # Every block: its command, the COMBINE in force, and which block of its command it is.
        self._drained: list[tuple[Step, Step | None, int]] = []
        self._reads = self._behind = 0  # how many reads of the latest one are made, and the cycle behind the last
        self._read_cache: dict[int, bytes] = {}
        self._write_cache: dict[int, bytes] = {}

    def run(self) -> Process:
        """The process."""
        lane = self._lane
        ready = idle = 0
        mode = Combine.NONE
        for command in lane.commands:
            start = yield from lane.take(ready)
            begin = start + 1
            if command.mnemonic == "COMBINE":
                self._combine = command
            if command.mnemonic != "DRAIN":
                begin = max(begin, idle)
                lane.finish(begin)
                ready = begin + 1
                continue
            combine = Combine(command.operands["combine"])
            from_scratchpad = command.operands["source"] == Source.SCRATCHPAD
            if from_scratchpad or combine is Combine.ADD or combine is not mode:
                begin = max(begin, idle)
            mode = combine
            last = yield from self._launch(command, begin + BEGIN_CYCLES)
            lane.finish(last + self._write_cycles[mode])
            idle = last + self._write_cycles[mode] + 1
            ready = last + 1

    def _launch(self, command: Step, cycle: int) -> Search:
        """Launch the steps, the first one not before `cycle`. Returns the last one's cycle."""
        config, operands = self._config, command.operands
        from_scratchpad = operands["source"] == Source.SCRATCHPAD
        pixels = operands["width"] * operands["height"] * operands["pool_width"] * operands["pool_height"]
        reads = from_scratchpad or operands["combine"] == Combine.ADD
        channels, released = operands["channels"], 0
        write_cycles = self._write_cycles[Combine(operands["combine"])]
        blocks, parameters, freed = self._execute.finished, self._execute.parameters, self._execute.freed
        for block in range(ceil(channels / config.cols)):
            steps = pixels * ceil(min(channels, config.cols) / config.requant_lanes)
            channels -= config.cols
            if not from_scratchpad:
                if len(blocks.times) <= self._block:
                    yield blocks, self._block + 1
                self._block += 1
                finished = blocks.times[self._block - 1]
                # In the cycle of a release the accumulators do not yet show the state of the next half.
                self.waited_accumulator += max(0, max(finished, released) - cycle)
                cycle = max(cycle, finished, released)
            if operands["params"] != Params.UNIFORM:
                if len(parameters.times) <= self._parameters:
                    yield parameters, self._parameters + 1
                cycle = max(cycle, parameters.times[self._parameters])
                self._parameters += 1
            self._drained.append((command, self._combine, block))
            number = len(self._drained) - 1
            if reads:
                begin, wanted = cycle, self._memories_read(number)
                self._reads, self._behind = 0, cycle
                cycle = yield from give_way(self._clock, self._feed, wanted, cycle, self._launch_reads)
                self.waited_bank += cycle - begin - len(wanted)
            else:
                self.writes.add(cycle + write_cycles, 0, steps, number)
                cycle += steps
            if not from_scratchpad:
                self._execute.released.add(cycle - 1)
            if operands["params"] != Params.UNIFORM:
                freed.add(cycle + self._read_cycles)
            released = cycle + 1
        return cycle - 1

    def _launch_reads(self, cycle: int, count: int) -> None:
        """So many reads of the block are made, one per cycle from `cycle` on; the first one has waited until then."""
        number = len(self._drained) - 1
        for waiting in range(self._behind, cycle):
            self.reads.add(waiting, self._reads, 1, number)
        self.reads.add(cycle, self._reads, count, number)
        combine = Combine(self._drained[number][0].operands["combine"])
        self.writes.add(cycle + self._write_cycles[combine], self._reads, count, number)
        self._reads += count
        self._behind = cycle + count

    def _memories_read(self, number: int) -> bytes:
        if number not in self._read_cache:
            self._read_cache = {number: drain_reads(*self._drained[number], self._config)}
        return self._read_cache[number]

    def _memories_written(self, number: int) -> bytes:
        if number not in self._write_cache:
            command, _, block = self._drained[number]
            writes = drain_writes(command, block, self._config)
            if command.operands["source"] == Source.SCRATCHPAD and command.operands["combine"] == Combine.ADD:
                # A step of two reads is launched with the second one.
                writes = bytes(byte for memories in writes for byte in (0, memories))
            self._write_cache = {number: writes}
        return self._write_cache[number]
