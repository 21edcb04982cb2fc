# SPDX-License-Identifier: Apache-2.0
"""Start, end, error and soft reset of the engine."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from loomwork.arch.registers import ErrorCode
from loomwork.rtl.decoder import COMMAND_INDEX_BITS
from loomwork.rtl.ports import ERROR_BITS

WATCHDOG_BITS = 32
START_CYCLES = 3
"""From a START to the first cycle of the program, which is the first one that is counted."""
QUIET_CYCLES = 8
"""Cycles that the bus must have been idle before a soft reset: requests on their way to it have come out by then."""
FAULT_LEVEL_BITS = 2
"""The first of 4 faults is found in one cycle."""
FAULT = data.StructLayout({"code": ERROR_BITS, "index": COMMAND_INDEX_BITS})
"""code: nonzero `ErrorCode` for one cycle. index: number of the command that failed."""


class Control(Component):
    """Runs one program at a time.

    start, reset: requests, one cycle each. START counts only when the engine is idle without an error.
    faults: what may stop the engine; of several in one cycle the first in order is kept. late: they are seen a cycle
    later, as `ended` is then (`deep_pipeline`).
    ended: the program has reached END and all units are idle. bus_idle: no burst is under way.
    progress: a command was finished or a beat moved on the bus. watchdog: cycles without progress that are an error,
    0 = never. stuck_index: the command to blame for that.

    clear: reset all units, for one cycle, before each program and at the end of a soft reset; the units may see it and
    `halt` a cycle later.
    go: first cycle of a program. running: between `go` and the end or the error. halt: begin nothing new, drop what
    comes, from an error until the units are reset. soft_clear: a soft reset is complete. busy, done, error: as in
    register STATUS. done_event, error_event: one cycle, the latter `fault_latency` cycles after the fault.
    error_code, error_index: the first error since the last soft reset.
    """

    start: Signal
    reset: Signal
    faults: data.View
    ended: Signal
    bus_idle: Signal
    progress: Signal
    watchdog: Signal
    stuck_index: Signal
    clear: Signal
    go: Signal
    running: Signal
    halt: Signal
    soft_clear: Signal
    busy: Signal
    done: Signal
    error: Signal
    done_event: Signal
    error_event: Signal
    error_code: Signal
    error_index: Signal

    def __init__(self, fault_count: int, *, late: bool = False) -> None:
        self._fault_count = fault_count
        self._late = late
        self._levels = -(-ceil_log2(fault_count + 1) // FAULT_LEVEL_BITS)
        self.fault_latency = self._levels + late
        outputs = ("clear", "go", "running", "halt", "soft_clear", "busy", "done", "error", "done_event", "error_event")
        super().__init__(
            {
                **{name: In(1) for name in ("start", "reset", "ended", "bus_idle", "progress")},
                **{name: Out(1) for name in outputs},
                "faults": In(data.ArrayLayout(FAULT, fault_count)),
                "watchdog": In(WATCHDOG_BITS),
                "stuck_index": In(COMMAND_INDEX_BITS),
                "error_code": Out(ErrorCode),
                "error_index": Out(COMMAND_INDEX_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        is_pending, code, index = self._first_fault(m)

        quiet = Signal(range(QUIET_CYCLES))
        reset_waits = Signal()
        m.d.comb += self.error.eq(self.error_code != ErrorCode.NONE)
        with m.If(self.reset):
            m.d.sync += reset_waits.eq(1)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(reset_waits):
                    m.next = "QUIESCE"
                with m.Elif(self.start & ~self.reset):
                    m.d.sync += self.done.eq(0)
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += self.clear.eq(1)
                m.next = "CLEARED"
            with m.State("CLEARED"):
                m.next = "START"
            with m.State("START"):
                m.d.comb += [self.go.eq(1), self.running.eq(1)]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(reset_waits):
                    m.next = "QUIESCE"
                with m.Elif(code.any()):
                    m.d.comb += self.error_event.eq(1)
                    m.d.sync += [self.error_code.eq(code), self.error_index.eq(index)]
                    m.next = "STOPPED"
                with m.Elif(self.ended & self.bus_idle & ~is_pending):
                    m.d.comb += self.done_event.eq(1)
                    m.d.sync += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("STOPPED"):
                m.d.comb += self.halt.eq(1)
                with m.If(reset_waits):
                    m.next = "QUIESCE"
            with m.State("QUIESCE"):
                m.d.comb += self.halt.eq(1)
                m.d.sync += quiet.eq(Mux(self.bus_idle, quiet + 1, 0))
                with m.If(self.bus_idle & (quiet == QUIET_CYCLES - 1)):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [self.halt.eq(1), self.clear.eq(1), self.soft_clear.eq(1)]
                m.d.sync += [self.done.eq(0), self.error_code.eq(ErrorCode.NONE), self.error_index.eq(0)]
                m.d.sync += reset_waits.eq(0)
                m.next = "IDLE"
        m.d.comb += self.busy.eq(~(fsm.ongoing("IDLE") | fsm.ongoing("STOPPED")) | reset_waits)
        return m

    def _first_fault(self, m: Module) -> tuple[Value, Value, Value]:
        """Whether a fault is on its way; code and index of the first one of `fault_latency` cycles ago, or zeros."""
        faults = [self.faults[place] for place in range(self._fault_count)]
        if self._late:
            seen = Signal.like(self.faults)
            m.d.sync += seen.eq(self.faults)
            faults = [seen[place] for place in range(self._fault_count)]
        expired = self._watchdog_expires(m)
        watchdog = Signal(FAULT)
        m.d.comb += [
            watchdog.code.eq(Mux(expired, ErrorCode.WATCHDOG, ErrorCode.NONE)),
            watchdog.index.eq(self.stuck_index),
        ]
        # A cycle late: no unit fails in the first cycle of a program, and nobody looks at a fault behind the end.
        looks = Signal()
        m.d.sync += looks.eq(self.running)
        # In steps, each a register: the first of a few, the first of these.
        level = [*faults, watchdog]
        pending: Value = Cat(fault.code.any() for fault in level).any()
        for _ in range(self._levels):
            chosen: list[data.View] = []
            for start in range(0, len(level), 1 << FAULT_LEVEL_BITS):
                fault = Signal(FAULT, name=f"fault_of_{len(level)}_{start}")
                m.d.sync += fault.eq(0)
                # The last assignment wins.
                for candidate in reversed(level[start : start + (1 << FAULT_LEVEL_BITS)]):
                    with m.If(candidate.code.any() & looks):
                        m.d.sync += fault.eq(candidate)
                chosen.append(fault)
            level = chosen
            pending |= Cat(fault.code.any() for fault in level).any()
        return pending, level[0].code, level[0].index

    def _watchdog_expires(self, m: Module) -> Signal:
        """Count cycles without progress; 1 when there have been too many."""
        idle_cycles, expired = Signal(WATCHDOG_BITS), Signal()
        with m.If(~self.running | self.progress):
            m.d.sync += [idle_cycles.eq(0), expired.eq(0)]
        with m.Else():
            m.d.sync += [
                idle_cycles.eq(idle_cycles + 1),
                expired.eq((self.watchdog != 0) & (idle_cycles >= self.watchdog)),
            ]
        return expired
