# SPDX-License-Identifier: Apache-2.0
"""Queues and tickets: hands each command to its unit when the units it waits for have got far enough."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, INSNS, TICKET_BITS, TICKET_UNITS, Unit
from loomwork.rtl.command import command_layout
from loomwork.rtl.decoder import COMMAND_INDEX_BITS, DECODED
from loomwork.rtl.ports import COMMANDS_IN_UNIT, UnitPort
from loomwork.rtl.queue import Queue

ENGINES = tuple(unit for unit in Unit if unit is not Unit.CONTROL)
"""Units that carry out commands; CONTROL only waits for them."""

DONE = data.StructLayout({unit.name.lower(): 1 for unit in TICKET_UNITS})
"""Units that finish a command in this cycle."""
FINISHED = data.StructLayout({unit.name.lower(): TICKET_BITS for unit in TICKET_UNITS})
"""Commands that each unit has finished since start, modulo 2**TICKET_BITS."""


def queued_bits(unit: Unit) -> int:
    """Bits of a command that are kept for `unit`; those behind are 0 in each of its commands."""
    return max(insn.bits for insn in INSNS if insn.unit is unit)


def unsatisfied_waits(command: Value, finished: data.View, following: data.View, done: data.View) -> Value:
    """The waits in the header of a raw command that are not satisfied in the next cycle: a bit for each ticket unit.

    finished, following: ticket counters now, and one further. done: they go one further.
    """
    end = BY_MNEMONIC["END"]  # has nothing but a header
    header = data.View(command_layout(end.mnemonic), command[: end.bits])
    waits: list[Value] = []
    for unit in TICKET_UNITS:
        name = unit.name.lower()
        # The sign of how far the counter is ahead; both are there when it is known whether it counts.
        now, then = ((counter[name] - header[f"{name}_ticket"])[TICKET_BITS - 1] for counter in (finished, following))
        waits.append(header[f"wait_{name}"] & Mux(done[name], then, now))
    return Cat(*waits)


class Lane(Component):
    """The queue of one unit.

    Whether a command's tickets are there is found out one cycle ahead: in the cycle after a start, the next command is
    not offered. No unit is ready for it by then. In that cycle it moves from the queue's memory into a register, where
    the unit's way begins.

    i: commands of this unit. port: the unit. finished, following: ticket counters of all units, and what they are when
    they have counted once more; done: which of them are counting.
    halt: hand out nothing more.
    oldest: number of the oldest unfinished command; the one that fails when the unit reports an error.
    occupied: there is such a command. waiting: the unit is idle and its next command waits for a ticket.
    started: a command is handed over; started_index: which one.
    """

    i: stream.Interface
    port: Any
    finished: data.View
    following: data.View
    done: data.View
    halt: Signal
    oldest: Signal
    occupied: Signal
    waiting: Signal
    started: Signal
    started_index: Signal

    def __init__(self, unit: Unit, depth: int) -> None:
        self._depth = depth
        self._command_bits = queued_bits(unit)
        layout = data.StructLayout({"command": self._command_bits, "index": COMMAND_INDEX_BITS})
        super().__init__(
            {
                "i": In(stream.Signature(layout)),
                "port": Out(UnitPort()),
                "finished": In(FINISHED),
                "following": In(FINISHED),
                "done": In(DONE),
                "halt": In(1),
                "oldest": Out(COMMAND_INDEX_BITS),
                "occupied": Out(1),
                "waiting": Out(1),
                "started": Out(1),
                "started_index": Out(COMMAND_INDEX_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = Queue(self._command_bits, self._depth)
        command = queue.o.payload
        m.d.comb += [
            queue.i.payload.eq(self.i.payload.command),
            queue.i.valid.eq(self.i.valid),
            self.i.ready.eq(queue.i.ready),
        ]

        count = Signal(range(COMMANDS_IN_UNIT + 1))
        unsatisfied = Signal(len(TICKET_UNITS))
        satisfied, looked_at = Signal(), Signal()
        offered = Signal(self._command_bits, reset_less=True)
        m.d.sync += [
            offered.eq(command),
            unsatisfied.eq(unsatisfied_waits(command, self.finished, self.following, self.done)),
            looked_at.eq(~self.started),
        ]
        m.d.comb += [
            satisfied.eq(looked_at & ~unsatisfied.any()),
            self.port.command.payload.eq(offered),
            self.port.command.valid.eq(queue.o.valid & satisfied & (count != COMMANDS_IN_UNIT) & ~self.halt),
            self.started.eq(self.port.command.valid & self.port.command.ready),
            queue.o.ready.eq(self.started),
            self.waiting.eq(queue.o.valid & ~satisfied & ~self.port.busy),
            self.occupied.eq(queue.occupied | count.any()),
        ]
        m.d.sync += count.eq(count + self.started - self.port.done)
        self._keep_indices(m, there=queue.o.valid | count.any())
        return m

    def _keep_indices(self, m: Module, there: Value) -> None:
        """Keep the numbers of all commands that are not finished, those in the queue and those in the unit alike.

        there: the oldest of them is seen; otherwise `oldest` is the one that was finished last.
        """
        places = 1 << (self._depth + COMMANDS_IN_UNIT - 1).bit_length()
        m.submodules.indices = indices = Memory(shape=COMMAND_INDEX_BITS, depth=places, init=[])
        writing = indices.write_port()
        starting, oldest = indices.read_port(domain="comb"), indices.read_port(domain="comb")
        # Where the oldest one is, and the one that was finished last.
        next_place, last_place = Signal.like(oldest.addr), Signal.like(oldest.addr, init=places - 1)
        m.d.comb += [
            writing.data.eq(self.i.payload.index),
            writing.en.eq(self.i.valid & self.i.ready),
            oldest.addr.eq(Mux(there, next_place, last_place)),
            self.oldest.eq(oldest.data),
            self.started_index.eq(starting.data),
        ]
        m.d.sync += [
            writing.addr.eq(writing.addr + writing.en),
            starting.addr.eq(starting.addr + self.started),
        ]
        with m.If(self.port.done):
            m.d.sync += [next_place.eq(next_place + 1), last_place.eq(next_place)]


class Dispatch(Component):
    """Puts each command into the queue of its unit, hands out the heads of the queues, and counts tickets.

    i: legal commands in program order. load, execute, drain, store, stream: the units. halt: hand out nothing more.
    ended: an END is reached and every unit has finished everything before it; stays so until reset. A cycle later with
    `deep_pipeline`.
    wait_queue: a command waits for room in its queue.
    finished: a command was finished by any unit. stuck_index: about the oldest unfinished command of all (found by
    looking at one queue per cycle).
    <unit>_index: command that fails when the unit reports an error. <unit>_waiting: it waits for a ticket.
    <unit>_started, <unit>_started_index: it takes a command, and which one.
    """

    i: stream.Interface
    halt: Signal
    ended: Signal
    wait_queue: Signal
    finished: Signal
    stuck_index: Signal

    def __init__(self, config: Config) -> None:
        self._depth, self._late = config.queue_depth, config.deep_pipeline
        names = [unit.name.lower() for unit in ENGINES]
        super().__init__(
            {
                "i": In(stream.Signature(DECODED)),
                **{name: Out(UnitPort()) for name in names},
                **{f"{name}_index": Out(COMMAND_INDEX_BITS) for name in names},
                **{f"{name}_waiting": Out(1) for name in names},
                **{f"{name}_started": Out(1) for name in names},
                **{f"{name}_started_index": Out(COMMAND_INDEX_BITS) for name in names},
                "halt": In(1),
                "ended": Out(1),
                "wait_queue": Out(1),
                "finished": Out(1),
                "stuck_index": Out(COMMAND_INDEX_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = {unit: Lane(unit, self._depth) for unit in ENGINES}
        finished, done = Signal(FINISHED), Signal(DONE)
        following = Signal(FINISHED, init=dict.fromkeys(FINISHED.members, 1))
        for unit, lane in lanes.items():
            name = unit.name.lower()
            m.submodules[name] = lane
            connect(m, lane.port, flipped(getattr(self, name)))
            m.d.comb += [
                lane.halt.eq(self.halt),
                lane.finished.eq(finished),
                lane.following.eq(following),
                lane.done.eq(done),
                lane.i.payload.command.eq(self.i.payload.command),
                lane.i.payload.index.eq(self.i.payload.index),
                lane.i.valid.eq(self.i.valid & (self.i.payload.unit == unit)),
                getattr(self, f"{name}_index").eq(lane.oldest),
                getattr(self, f"{name}_waiting").eq(lane.waiting),
                getattr(self, f"{name}_started").eq(lane.started),
                getattr(self, f"{name}_started_index").eq(lane.started_index),
            ]
            if unit in TICKET_UNITS:
                m.d.comb += done[name].eq(lane.port.done)
                with m.If(done[name]):
                    m.d.sync += [finished[name].eq(following[name]), following[name].eq(following[name] + 1)]
        # END has no queue and is never taken: it waits for all that came before, tickets or not, and nothing follows.
        end_is_next = Signal()
        m.d.comb += [
            end_is_next.eq(self.i.valid & (self.i.payload.unit == Unit.CONTROL)),
            self.finished.eq(Cat(lane.port.done for lane in lanes.values()).any()),
            self.wait_queue.eq(self.i.valid & ~self.i.ready & ~end_is_next),
        ]
        m.d["sync" if self._late else "comb"] += self.ended.eq(
            end_is_next & ~Cat(lane.occupied for lane in lanes.values()).any()
        )
        with m.Switch(self.i.payload.unit):
            for unit, lane in lanes.items():
                with m.Case(unit):
                    m.d.comb += self.i.ready.eq(lane.i.ready)
        self._find_oldest(m, list(lanes.values()))
        return m

    def _find_oldest(self, m: Module, lanes: list[Lane]) -> None:
        """Keep `stuck_index` at the smallest `oldest`. One comparator in turn for all lanes: there is no hurry.

        What a lane says is noted in one cycle, looked at in the next and compared in the one behind.
        """
        noted = [Signal(COMMAND_INDEX_BITS, name=f"noted_{number}") for number in range(len(lanes))]
        occupied, coming = Signal(len(lanes)), Signal(COMMAND_INDEX_BITS)
        m.d.sync += [note.eq(lane.oldest) for note, lane in zip(noted, lanes, strict=True)]
        m.d.sync += [occupied.eq(Cat(lane.occupied for lane in lanes)), coming.eq(self.i.payload.index)]
        place = Signal(range(len(lanes)))
        last = Signal()
        highest = (1 << COMMAND_INDEX_BITS) - 1
        candidate, smallest = Signal(COMMAND_INDEX_BITS, init=highest), Signal(COMMAND_INDEX_BITS, init=highest)
        smaller = Signal(COMMAND_INDEX_BITS)
        with m.Switch(place):
            for number, note in enumerate(noted):
                with m.Case(number):
                    m.d.sync += candidate.eq(Mux(occupied[number], note, coming))
        m.d.comb += smaller.eq(Mux(candidate < smallest, candidate, smallest))
        m.d.sync += [
            last.eq(place == len(lanes) - 1),
            place.eq(Mux(place == len(lanes) - 1, 0, place + 1)),
            smallest.eq(Mux(last, highest, smaller)),
        ]
        with m.If(last):
            m.d.sync += self.stuck_index.eq(smaller)
