# SPDX-License-Identifier: Apache-2.0
"""LOAD, STREAM and STORE: the units that move data between external memory and the core."""

from collections.abc import Sequence

from loomwork.arch.config import Config
from loomwork.rtl.burst import burst_limit
from loomwork.rtl.ports import window_latency
from loomwork.rtl.scratchpad_reader import MIN_QUEUE_WORDS, QUEUE_BEATS
from loomwork.rtl.stream_reader import COMMANDS_AHEAD as STREAMS_AHEAD
from loomwork.sim.cycles.accesses import Accesses, Cursor, give_way
from loomwork.sim.cycles.banks import transfer_words
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.lanes import Lane
from loomwork.sim.cycles.reads import CHECK_CYCLES, QUEUE_CYCLES, Reader, beat_cycles
from loomwork.sim.cycles.timeline import Clock, Process, Search, Timeline

ADDRESS_CYCLES = 3
"""From the placement of a transfer to the first word address (rtl/transfer.py `ScratchpadWords`)."""


def spans_of(command: Step, config: Config) -> list[tuple[int, int]]:
    """Offset and bytes of the spans of a LOAD or a STORE: its rows, or one when they lie end to end."""
    operands = command.operands
    rows, stride, row_bytes = operands["rows"], operands["row_stride"], operands["words"] * config.rows
    if stride == row_bytes:
        return [(operands["offset"], rows * row_bytes)]
    return [(operands["offset"] + row * stride, row_bytes) for row in range(rows)]


def row_cycles(config: Config) -> int:
    """From a LOAD or a STORE to its first span at the check, beyond one (rtl/transfer.py `MemoryRows`)."""
    return 2 * config.deep_pipeline


def judge_cycles(config: Config) -> int:
    """From the run of a span until it is known that it was legal (rtl/memory_window.py)."""
    return int(config.deep_pipeline)


class Stream:
    """The STREAM unit (rtl/stream_reader.py). words: of each command, how many and behind how many beats."""

    def __init__(self, config: Config, lane: Lane, reader: Reader) -> None:
        self._config = config
        self._lane = lane
        self._reader = reader
        self._ends: list[int] = []

    def run(self) -> Process:
        """The process that takes commands."""
        lane, reader, config = self._lane, self._reader, self._config
        total = 0
        for number, command in enumerate(lane.commands):
            ready = 0
            if number:
                # The checked span in front must have gone to the splitter, or to the place for one before it.
                ready = reader.offered.times[number - 1] + judge_cycles(config)
                if number > 1:
                    if len(reader.split.times) < number - 1:
                        yield reader.split, number - 1
                    ready = max(ready, reader.split.times[number - 2] + 1)
            if number >= STREAMS_AHEAD:
                if len(lane.done.times) <= number - STREAMS_AHEAD:
                    yield lane.done, number - STREAMS_AHEAD + 1
                ready = max(ready, lane.done.times[number - STREAMS_AHEAD])
            start = yield from lane.take(ready)
            length = -(-command.operands["words"] * config.cols // config.bus_bytes) * config.bus_bytes
            total += length // config.bus_bytes
            self._ends.append(total)
            reader.offer(start + CHECK_CYCLES, command.operands["offset"], length)

    def finish(self) -> Process:
        """The process that says when the last beat of each command is in the queue."""
        lane, reader = self._lane, self._reader
        for number in range(len(lane.commands)):
            if len(self._ends) <= number:
                yield reader.offered, number + 1
            last = yield from reader.arrival(self._ends[number] - 1)
            lane.finish(last - beat_cycles(self._config) + 1)


class Load:
    """The LOAD unit (rtl/load.py). drained: writes of the drain, which go first."""

    def __init__(self, clock: Clock, config: Config, lane: Lane, reader: Reader, drained: Accesses) -> None:
        self._config = config
        self._lane = lane
        self._reader = reader
        self._clock = clock
        self._drained = [Cursor(drained)]
        self._placed = Timeline(clock)
        self._addressed = Timeline(clock)
        self._last_address = -1  # when that of the last word of a command is there
        self._to_pop = 0  # words of a burst that are in the queue

    def run(self) -> Process:
        """The process that takes commands and has their rows checked, one after the other."""
        lane, reader, split = self._lane, self._reader, self._reader.split
        span = -1  # number of the latest span
        accepted = checked = 0  # when it came to the check, and to its end
        for number, command in enumerate(lane.commands):
            ready = checked + judge_cycles(self._config) if number else 0
            if number:
                # The queue of placements has one place beside its output.
                if len(self._addressed.times) < number - 1:
                    yield self._addressed, number - 1
                moved = self._placed.times[number - 1] + 1
                if number > 1:
                    moved = max(moved, self._addressed.times[number - 2])
                ready = max(ready, moved + 1)
            start = yield from lane.take(ready)
            self._placed.add(start)
            accepted = start + row_cycles(self._config)
            for row, (offset, length) in enumerate(spans_of(command, self._config)):
                accepted += 1
                span += 1
                # Spans stand behind each other: one at the splitter, one in front of it.
                blocker = span - 1 if row == 0 else span - 2
                if blocker >= 0:
                    if len(split.times) <= blocker:
                        yield split, blocker + 1
                    accepted = max(accepted, split.times[blocker])
                checked = accepted + CHECK_CYCLES
                if span:
                    if len(split.times) < span:
                        yield split, span
                    checked = max(checked, split.times[span - 1] + 1)
                reader.offer(checked, offset, length)

    def finish(self) -> Process:
        """The process that writes the words as their beats come, and gives way to the drain."""
        lane, ratio = self._lane, self._config.rows // self._config.bus_bytes
        write = self._write_beats if ratio == 1 else self._write_words
        behind = 0  # the cycle behind the latest write
        self._last_address = -1
        for number, command in enumerate(lane.commands):
            if len(self._placed.times) <= number:
                yield self._placed, number + 1
            addressed = max(self._placed.times[number] + QUEUE_CYCLES, self._last_address + 1)
            self._addressed.add(addressed)
            behind = yield from write(transfer_words(command), addressed + ADDRESS_CYCLES, behind)
            lane.finish(behind)

    def _write_beats(self, memories: bytes, cycle: int, behind: int) -> Search:
        """Write words of one beat each, burst by burst, the first one not before `cycle`. behind: the cycle behind the
        write before. Returns the one behind the last write.

        A word leaves the queue when the one before is written, whether it is written itself or kept.
        """
        reader, number = self._reader, 0
        self._last_address = cycle
        while number < len(memories):
            beat = len(reader.popped.times)
            arrival = yield from reader.arrival(beat)
            cycle = max(cycle, arrival, behind)
            count = min(len(memories) - number, reader.rest_of_burst(beat))
            burst = memories[number : number + count]
            reader.popped.add(cycle)
            self._to_pop = count - 1
            cycle = behind = yield from give_way(self._clock, self._drained, burst, cycle, self._pop)
            number += count
        if len(memories) > 1:
            self._last_address = reader.popped.times[-2] + 1
        return behind

    def _pop(self, cycle: int, count: int) -> None:
        """Words are written; those behind them leave the queue."""
        count = min(count, self._to_pop)
        self._to_pop -= count
        self._reader.popped.extend(range(cycle + 1, cycle + 1 + count))

    def _write_words(self, memories: bytes, cycle: int, behind: int) -> Search:
        """The same for words of several beats each."""
        reader, ratio = self._reader, self._config.rows // self._config.bus_bytes
        self._to_pop = 0
        popped = -1
        for number in range(len(memories)):
            self._last_address = max(cycle, popped + 1)
            for place in range(ratio):
                arrival = yield from reader.arrival(len(reader.popped.times))
                popped = max(popped + 1, arrival)
                if place == ratio - 1:
                    popped = max(popped, cycle, behind)
                reader.popped.add(popped)
            word = memories[number : number + 1]
            behind = yield from give_way(self._clock, self._drained, word, popped, self._pop)
        return behind


class Store:
    """The STORE unit, one command at a time (rtl/store.py, scratchpad_reader.py, write_master.py).

    others: reads of the scratchpad, which go first.
    beats: that were written. idle: cycle from which on nothing is under way on the bus.
    """

    def __init__(self, clock: Clock, config: Config, lane: Lane, latency: int, others: Sequence[Accesses]) -> None:
        self._clock = clock
        self._config = config
        self._lane = lane
        self._latency = max(latency, 1)
        self._others = [Cursor(accesses) for accesses in others]
        self._reads: list[int] = []  # cycles in which the words of a command are read
        # Nobody needs to know of a read before its command is done, and that takes queue, bus and response.
        self._patience = 2 * QUEUE_CYCLES + self._latency
        self.beats = 0
        self.idle = 0

    def run(self) -> Process:
        """The process."""
        ready = 0
        for command in self._lane.commands:
            start = yield from self._lane.take(ready)
            sent = yield from self._send(command, start)
            # The response, its register, the count of unanswered bursts, the register of `done`.
            self.idle = sent + self._latency + 2
            ready = sent + self._latency + 3
            self._lane.finish(ready)
            ready += 1

    def _send(self, command: Step, start: int) -> Search:
        """When the last beat is on the bus. A word per cycle is read as long as the queue has room."""
        config = self._config
        ratio = config.rows // config.bus_bytes
        longest = burst_limit(config, QUEUE_BEATS)
        # With `deep_pipeline` two places behind the queue take a word a cycle after they were left, and the room that
        # makes is counted another one later.
        depth = max(QUEUE_BEATS // ratio, MIN_QUEUE_WORDS) + 2 * config.deep_pipeline
        memories, reads = transfer_words(command), self._reads
        reads.clear()
        taken: list[int] = []  # when the words leave the queue, or the places behind it
        read = start + ADDRESS_CYCLES + config.deep_pipeline
        requested = start + row_cycles(config) + CHECK_CYCLES + 1  # a burst is at the bus from the next cycle on
        sent = beats = 0
        for offset, length in spans_of(command, config):
            address, left = offset // config.bus_bytes, length // config.bus_bytes
            while left:
                burst = min(left, longest - address % longest)
                needed = -(-(beats + burst) // ratio)
                while len(reads) < needed:
                    words = len(reads)
                    # As many as there is room for; what leaves the queue later makes room for one at a time.
                    end = max(needed, depth) if words < depth else words + 1
                    if words >= depth:
                        read = max(read, taken[words - depth] + 1 + 2 * config.deep_pipeline)
                    read = yield from give_way(
                        self._clock, self._others, memories[words:end], read, self._note, patience=self._patience
                    )
                requested = max(requested, reads[needed - 1] + window_latency(config)) + 1 + config.deep_pipeline
                first = max(sent + 1, requested + config.deep_pipeline + QUEUE_CYCLES)
                sent = first + burst - 1
                # A word leaves the queue with its last beat.
                taken.extend(range(first + (-beats - 1) % ratio, sent + 1, ratio))
                beats += burst
                address += burst
                left -= burst
        self.beats += beats
        return sent

    def _note(self, cycle: int, count: int) -> None:
        """Words are read, one per cycle from `cycle` on."""
        self._reads.extend(range(cycle, cycle + count))
