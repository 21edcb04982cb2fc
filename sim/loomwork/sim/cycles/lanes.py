# SPDX-License-Identifier: Apache-2.0
"""Fetch, decoder and dispatch: when each unit can take its commands (rtl/fetch.py, decoder.py, dispatch.py)."""

from collections.abc import Sequence
from typing import Protocol

from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, TICKET_UNITS, Unit
from loomwork.rtl.ports import COMMANDS_IN_UNIT
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.timeline import Clock, Process, Search, Timeline


class Lane:
    """The queue of one unit (rtl/dispatch.py `Lane`): commands in order, each when its tickets are there.

    entered: a command is put into the queue. shifted: it moves to the register at the queue's end, from where it is
    offered in the next cycle. started, done: the unit takes it, and reports it finished.
    """

    def __init__(self, clock: Clock, unit: Unit, commands: Sequence[Step], depth: int) -> None:
        self.unit = unit
        self.commands = commands
        self.depth = depth
        self.entered = Timeline(clock)
        self.shifted = Timeline(clock)
        self.started = Timeline(clock)
        self.done = Timeline(clock)
        self._busy_until: list[int] = []
        self._tickets_there: list[int] = []
        self._done_by: dict[Unit, Timeline] = {}

    def connect(self, lanes: dict[Unit, "Lane"]) -> None:
        """Make the other units' tickets known."""
        self._done_by = {unit: lanes[unit].done for unit in TICKET_UNITS}

    def shift(self) -> Process:
        """The process that moves commands on in the queue."""
        entered, started = self.entered, self.started
        for number in range(len(self.commands)):
            if len(entered.times) <= number:
                yield entered, number + 1
            cycle = entered.times[number] + 1
            if number:
                if len(started.times) < number:
                    yield started, number
                cycle = max(cycle, started.times[number - 1])
            self.shifted.add(cycle)

    def take(self, ready: int) -> Search:
        """The cycle in which the unit, ready for it from cycle `ready` on, takes its next command."""
        number = len(self.started.times)
        if len(self.shifted.times) <= number:
            yield self.shifted, number + 1
        shifted = self.shifted.times[number]
        start = max(ready, shifted + 1)
        if number >= COMMANDS_IN_UNIT:
            if len(self.done.times) <= number - COMMANDS_IN_UNIT:
                yield self.done, number - COMMANDS_IN_UNIT + 1
            start = max(start, self.done.times[number - COMMANDS_IN_UNIT] + 1)
        tickets = 0
        for unit, count in self.commands[number].waits:
            done = self._done_by[unit]
            if len(done.times) < count:
                yield done, count
            tickets = max(tickets, done.times[count - 1] + 1)
        self._tickets_there.append(tickets)
        start = max(start, tickets)
        self.started.add(start)
        return start

    def finish(self, done: int, busy_until: int = 0) -> None:
        """The next command is reported finished; the unit is busy with it until then, or longer."""
        self._busy_until.append(max(done, busy_until))
        self.done.add(done)

    def usage(self) -> tuple[int, int]:
        """Cycles in which the unit was busy, and in which it was not because its next command waited for a ticket."""
        busy = waited = until = 0
        for shifted, tickets, start, end in zip(
            self.shifted.times, self._tickets_there, self.started.times, self._busy_until, strict=True
        ):
            waited += max(0, tickets - max(shifted, until) - 1)
            busy += max(0, end - max(start, until))
            until = max(until, end)
        return busy, waited


class Beats(Protocol):
    """What fetch has read ahead, as reads.Reader has it."""

    popped: Timeline

    def arrival(self, beat: int) -> Search:
        """The cycle in which `beat` is at the queue's end, if all before have left it."""
        ...


class Dispatcher:
    """Takes commands from the beats that fetch has read ahead and puts them into the lanes, one after the other.

    end: cycle in which END is reached; 0 as long as it is not known. waited: cycles in which a command waited for room.
    """

    def __init__(
        self, clock: Clock, config: Config, commands: Sequence[Step], lanes: dict[Unit, Lane], fetch: Beats
    ) -> None:
        self._commands = commands
        self._lanes = lanes
        self._fetch = fetch
        self._beats = max(1, COMMAND_BYTES // config.bus_bytes)
        self._per_beat = max(1, config.bus_bytes // COMMAND_BYTES)
        # The decoder looks at a command in cycles of its own, and takes the next one when this one is gone.
        self._looks = 2 if config.deep_pipeline else 0
        self._leaves = int(config.deep_pipeline)
        self._decoded = Timeline(clock)
        self._handed = Timeline(clock)
        self.end = self.waited = 0

    def decode(self) -> Process:
        """The process of the decoder, which takes a command when the one before leaves it."""
        decoded, handed, fetched = self._decoded, self._handed, self._fetch
        taken = -1  # the latest beat leaves fetch
        for number in range(len(self._commands)):
            early, last = self._beats_of(number)
            for beat in early:
                arrival = yield from fetched.arrival(beat)
                taken = max(taken + 1, arrival)
                fetched.popped.add(taken)
            arrival = yield from fetched.arrival(last)
            taken = max(taken + 1, arrival)
            if number:
                if len(handed.times) < number:
                    yield handed, number
                taken = max(taken, handed.times[-1] + self._leaves)
            if (number + 1) % self._per_beat == 0:
                fetched.popped.add(taken)
            decoded.add(taken + self._looks)

    def hand_out(self) -> Process:
        """The process that puts commands into the lanes, as soon as there is room."""
        decoded, counts = self._decoded, dict.fromkeys(Unit, 0)
        for number, command in enumerate(self._commands):
            if len(decoded.times) <= number:
                yield decoded, number + 1
            handed = decoded.times[number] + 1
            if command.unit is Unit.CONTROL:
                self.end = handed
                return
            lane = self._lanes[command.unit]
            blocker = counts[command.unit] - (lane.depth - 1)
            counts[command.unit] += 1
            if blocker >= 0:
                if len(lane.shifted.times) <= blocker:
                    yield lane.shifted, blocker + 1
                handed = max(handed, lane.shifted.times[blocker] + 1)
            self.waited += handed - decoded.times[number] - 1
            lane.entered.add(handed)
            self._handed.add(handed)

    def _beats_of(self, number: int) -> tuple[range, int]:
        """The beats of a command: those that are gathered before it is complete, and the last one."""
        if self._per_beat > 1:
            return range(0), number // self._per_beat
        return range(number * self._beats, (number + 1) * self._beats - 1), (number + 1) * self._beats - 1
