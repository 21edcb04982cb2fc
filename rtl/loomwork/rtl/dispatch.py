# SPDX-License-Identifier: Apache-2.0
"""Queues and tickets: hands each command to its unit when the units it waits for have got far enough."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, INSNS, TICKET_BITS, TICKET_UNITS, Unit
from loomwork.rtl.command import command_layout
from loomwork.rtl.decoder import COMMAND_INDEX_BITS, DECODED
from loomwork.rtl.ports import COMMANDS_IN_UNIT, UnitPort

ENGINES = tuple(unit for unit in Unit if unit is not Unit.CONTROL)
"""Units that carry out commands; CONTROL only waits for them."""

FINISHED = data.StructLayout({unit.name.lower(): TICKET_BITS for unit in TICKET_UNITS})
"""Commands that each unit has finished since start, modulo 2**TICKET_BITS."""


def queued_bits(unit: Unit) -> int:
    """Bits of a command that are kept for `unit`; those behind are 0 in each of its commands."""
    return max(insn.bits for insn in INSNS if insn.unit is unit)


def tickets_are_there(command: Value, finished: data.View) -> Value:
    """Whether every wait in the header of a raw command is satisfied."""
    end = BY_MNEMONIC["END"]  # has nothing but a header
    header = data.View(command_layout(end.mnemonic), command[: end.bits])
    waits: list[Value] = []
    for unit in TICKET_UNITS:
        name = unit.name.lower()
        ahead = (finished[name] - header[f"{name}_ticket"])[:TICKET_BITS]
        waits.append(~header[f"wait_{name}"] | ~ahead[-1])
    return Cat(*waits).all()


class Lane(Component):
    """The queue of one unit.

    i: commands of this unit. port: the unit. finished: ticket counters of all units. halt: hand out nothing more.
    oldest: number of the oldest unfinished command; the one that fails when the unit reports an error.
    occupied: there is such a command. waiting: the unit is idle and its next command waits for a ticket.
    started: a command is handed over; started_index: which one.
    """

    i: stream.Interface
    port: Any
    finished: data.View
    halt: Signal
    oldest: Signal
    occupied: Signal
    waiting: Signal
    started: Signal
    started_index: Signal

    def __init__(self, unit: Unit, depth: int) -> None:
        self._depth = depth
        self._layout = data.StructLayout({"command": queued_bits(unit), "index": COMMAND_INDEX_BITS})
        super().__init__(
            {
                "i": In(stream.Signature(self._layout)),
                "port": Out(UnitPort()),
                "finished": In(FINISHED),
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
        m.submodules.queue = queue = SyncFIFOBuffered(width=self._layout.size, depth=self._depth)
        head = data.View(self._layout, queue.r_data)
        m.d.comb += [
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
        ]

        running = Array(Signal(COMMAND_INDEX_BITS, name=f"running_{place}") for place in range(COMMANDS_IN_UNIT))
        count = Signal(range(COMMANDS_IN_UNIT + 1))
        begin, end = Signal(range(COMMANDS_IN_UNIT)), Signal(range(COMMANDS_IN_UNIT))
        satisfied = Signal()
        m.d.comb += [
            satisfied.eq(tickets_are_there(head.command, self.finished)),
            self.port.command.payload.eq(head.command),
            self.port.command.valid.eq(queue.r_rdy & satisfied & (count != COMMANDS_IN_UNIT) & ~self.halt),
            self.started.eq(self.port.command.valid & self.port.command.ready),
            self.started_index.eq(head.index),
            queue.r_en.eq(self.started),
            self.waiting.eq(queue.r_rdy & ~satisfied & ~self.port.busy),
            self.occupied.eq(queue.level.any() | count.any()),
            self.oldest.eq(Mux(count.any(), running[begin], head.index)),
        ]
        m.d.sync += count.eq(count + self.started - self.port.done)
        with m.If(self.started):
            m.d.sync += [running[end].eq(head.index), end.eq(end + 1)]
        with m.If(self.port.done):
            m.d.sync += begin.eq(begin + 1)
        return m


class Dispatch(Component):
    """Puts each command into the queue of its unit, hands out the heads of the queues, and counts tickets.

    i: legal commands in program order. load, execute, drain, store, stream: the units. halt: hand out nothing more.
    ended: an END is reached and every unit has finished everything before it; stays so until reset.
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
        self._depth = config.queue_depth
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
        finished = Signal(FINISHED)
        for unit, lane in lanes.items():
            name = unit.name.lower()
            m.submodules[name] = lane
            connect(m, lane.port, flipped(getattr(self, name)))
            m.d.comb += [
                lane.halt.eq(self.halt),
                lane.finished.eq(finished),
                lane.i.payload.command.eq(self.i.payload.command),
                lane.i.payload.index.eq(self.i.payload.index),
                lane.i.valid.eq(self.i.valid & (self.i.payload.unit == unit)),
                getattr(self, f"{name}_index").eq(lane.oldest),
                getattr(self, f"{name}_waiting").eq(lane.waiting),
                getattr(self, f"{name}_started").eq(lane.started),
                getattr(self, f"{name}_started_index").eq(lane.started_index),
            ]
            if unit in TICKET_UNITS:
                m.d.sync += finished[name].eq(finished[name] + lane.port.done)
        # END has no queue and is never taken: it waits for all that came before, tickets or not, and nothing follows.
        end_is_next = Signal()
        m.d.comb += [
            end_is_next.eq(self.i.valid & (self.i.payload.unit == Unit.CONTROL)),
            self.ended.eq(end_is_next & ~Cat(lane.occupied for lane in lanes.values()).any()),
            self.finished.eq(Cat(lane.port.done for lane in lanes.values()).any()),
            self.wait_queue.eq(self.i.valid & ~self.i.ready & ~end_is_next),
        ]
        with m.Switch(self.i.payload.unit):
            for unit, lane in lanes.items():
                with m.Case(unit):
                    m.d.comb += self.i.ready.eq(lane.i.ready)
        self._find_oldest(m, list(lanes.values()))
        return m

    def _find_oldest(self, m: Module, lanes: list[Lane]) -> None:
        """Keep `stuck_index` at the smallest `oldest`. One comparator in turn for all lanes: there is no hurry."""
        place = Signal(range(len(lanes)))
        smallest = Signal(COMMAND_INDEX_BITS, init=(1 << COMMAND_INDEX_BITS) - 1)
        candidate = Signal(COMMAND_INDEX_BITS)
        with m.Switch(place):
            for number, lane in enumerate(lanes):
                with m.Case(number):
                    m.d.comb += candidate.eq(Mux(lane.occupied, lane.oldest, self.i.payload.index))
        with m.If(place == len(lanes) - 1):
            m.d.sync += [
                place.eq(0),
                smallest.eq(smallest.init),
                self.stuck_index.eq(Mux(candidate < smallest, candidate, smallest)),
            ]
        with m.Else():
            m.d.sync += place.eq(place + 1)
            with m.If(candidate < smallest):
                m.d.sync += smallest.eq(candidate)
