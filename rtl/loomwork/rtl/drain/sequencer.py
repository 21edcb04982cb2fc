# SPDX-License-Identifier: Apache-2.0
"""The sequencer: takes REQUANT, COMBINE, TABLE and DRAIN, keeps the settings, starts the loops."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, OPCODE_BITS, Combine, Params, Pool, Source
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.command import command_layout
from loomwork.rtl.drain.layouts import WINDOW_STEP_BITS, has_operand
from loomwork.rtl.ports import COMMANDS_IN_UNIT, UnitPort
from loomwork.rtl.technology import Operand, technology_of
from loomwork.rtl.up_down import count_up_down

_MNEMONICS = ("REQUANT", "COMBINE", "TABLE", "DRAIN")
_COMMAND_BITS = max(BY_MNEMONIC[mnemonic].bits for mnemonic in _MNEMONICS)

BANKS_OF_SETTINGS = 2
"""REQUANTs that results on their way can belong to."""


class Sequencer(Component):
    """Carries out the commands one by one.

    Commands see the results of those before them: a COMBINE, and a DRAIN that reads the scratchpad or has another
    second stage than the one before, wait until everything is written. Other DRAINs begin while results are still on
    their way. So does a REQUANT: it fills the bank of settings that is not in force, as soon as no result needs it. So
    does a TABLE, unless the DRAINs on their way use the table.

    unit: commands, done in order. halt: take no more.
    requants: two banks of settings; bank: the one for the steps that are being launched. combine: the settings in
    force; mode: the second stage of all DRAINs on their way. table, write_table: a TABLE that takes effect.
    drain: the DRAIN whose steps are being launched. start: begin with its first. window_step: bytes from one of its
    windows to the next, a cycle later than `drain`.
    launched: its last step is launched. outside: its next step can never be. written: a DRAIN's last byte is in place;
    idle: so is everything else.
    """

    unit: Any
    halt: Signal
    requants: data.View
    bank: Signal
    combine: data.View
    mode: Signal
    table: data.View
    write_table: Signal
    drain: data.View
    window_step: Signal
    start: Signal
    launched: Signal
    outside: Signal
    written: Signal
    idle: Signal

    def __init__(self, config: Config) -> None:
        self._residual_add = config.residual_add
        self._elementwise_multiply = config.elementwise_multiply
        self._activation_table = config.activation_table
        super().__init__(
            {
                "unit": In(UnitPort()),
                "halt": In(1),
                "requants": Out(data.ArrayLayout(command_layout("REQUANT"), BANKS_OF_SETTINGS)),
                "bank": Out(range(BANKS_OF_SETTINGS)),
                "combine": Out(command_layout("COMBINE")),
                "mode": Out(Combine),
                "table": Out(command_layout("TABLE")),
                "write_table": Out(1),
                "drain": Out(command_layout("DRAIN")),
                "window_step": Out(WINDOW_STEP_BITS),
                "start": Out(1),
                "launched": In(1),
                "outside": In(1),
                "written": In(1),
                "idle": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command = Signal(_COMMAND_BITS, reset_less=True)
        drain = self.drain
        m.d.comb += [drain.eq(command), self.table.eq(command)]
        # What a command is, known as soon as the command.
        requant, combine, table, drains = kinds = [Signal(name=f"is_{mnemonic.lower()}") for mnemonic in _MNEMONICS]
        opcode = self.unit.command.payload[:OPCODE_BITS]
        coming = data.View(drain.shape(), self.unit.command.payload[: len(drain.as_value())])

        # And of a DRAIN whether it is legal, and whether it may begin before all is written. The mode is that of the
        # last one, which has begun by then.
        is_legal, may_follow = Signal(), Signal()
        legal = (coming.source == Source.ACCUMULATOR) | (coming.params == Params.UNIFORM)
        legal &= (coming.pool != Pool.NONE) | ((coming.pool_height == 1) & (coming.pool_width == 1))
        reads_operand = has_operand(coming.combine)
        legal &= (coming.pool != Pool.SUM) | ~reads_operand
        legal &= (coming.combine != Combine.ADD) | self._residual_add
        legal &= (coming.combine != Combine.MULTIPLY) | self._elementwise_multiply
        legal &= (coming.combine != Combine.TABLE) | self._activation_table
        reads_scratchpad = (coming.source == Source.SCRATCHPAD) | reads_operand
        is_refused = drains & ~is_legal
        if not self._activation_table:
            is_refused |= table
        may_write_table = (self.idle | (self.mode != Combine.TABLE)) & self._activation_table
        may_begin = self.idle | may_follow

        # How far its pooling windows are from each other: both factors go into the multiplier with the command.
        takes = Signal()
        pixel_bytes, columns = (
            Operand(d=coming[name], q=drain[name], enable=takes) for name in ("in_step", "pool_x_step")
        )
        multiply = technology_of(platform).multiplier(m)
        m.d.comb += self.window_step.eq(multiply(pixel_bytes, columns, name="window_steps"))

        # Results on their way that each bank of settings belongs to; the oldest are those of the other bank, if any.
        on_their_way = [Signal(range(COMMANDS_IN_UNIT + 1), name=f"on_their_way_{n}") for n in range(BANKS_OF_SETTINGS)]
        some = Signal(BANKS_OF_SETTINGS)  # whether each is not 0
        other = Signal()
        m.d.comb += other.eq(Mux(self.bank, some[0], some[1]))
        for number, count in enumerate(on_their_way):
            comes, goes = Signal(name=f"comes_{number}"), Signal(name=f"goes_{number}")
            m.d.comb += [
                comes.eq(self.start & (self.bank == number)),
                goes.eq(self.written & ((self.bank == number) ^ other)),
            ]
            m.d.sync += count.eq(count + comes - goes)
            with m.If(comes ^ goes):
                m.d.sync += some[number].eq(comes | (count != 1))

        applied = Signal()
        # Whether a REQUANT may be taken is known late: its settings are there a cycle later, which is soon enough.
        replaced, replaces = Signal(BANKS_OF_SETTINGS), Signal(BANKS_OF_SETTINGS)
        m.d.sync += replaces.eq(replaced)
        for number in range(BANKS_OF_SETTINGS):
            with m.If(replaces[number]):
                m.d.sync += self.requants[number].eq(command)
        reported = self._report(m, applied)
        # An error comes behind all others. Nothing is begun meanwhile, so that it need not know in the same cycle.
        settled = Signal()
        m.d.sync += settled.eq(reported)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += [self.unit.command.ready.eq(~self.halt), takes.eq(1)]
                m.d.sync += command.eq(self.unit.command.payload)
                m.d.sync += [is_legal.eq(legal), may_follow.eq(~reads_scratchpad & (coming.combine == self.mode))]
                for is_kind, mnemonic in zip(kinds, _MNEMONICS, strict=True):
                    m.d.sync += is_kind.eq(opcode == BY_MNEMONIC[mnemonic].opcode)
                with m.If(self.unit.command.valid & self.unit.command.ready):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                with m.If(requant & ~other):
                    m.d.comb += [applied.eq(1), replaced.eq(1 << ~self.bank)]
                    m.d.sync += self.bank.eq(~self.bank)
                    m.next = "IDLE"
                with m.If(combine & self.idle):
                    m.d.comb += applied.eq(1)
                    m.d.sync += self.combine.eq(command)
                    m.next = "IDLE"
                with m.If(table & may_write_table):
                    m.d.comb += [applied.eq(1), self.write_table.eq(1)]
                    m.next = "IDLE"
                with m.If(drains & is_legal & may_begin):
                    m.d.comb += self.start.eq(1)
                    m.d.sync += self.mode.eq(drain.combine)
                    m.next = "DRAIN"
                with m.If(is_refused & self.idle & settled):
                    m.d.comb += self.unit.error.eq(ErrorCode.ILLEGAL_OPERAND)
                    m.next = "FAILED"
            with m.State("DRAIN"):
                with m.If(self.launched):
                    m.next = "IDLE"
                with m.Elif(self.outside & self.idle & settled):
                    m.d.comb += self.unit.error.eq(ErrorCode.SCRATCHPAD)
                    m.next = "FAILED"
            with m.State("FAILED"):
                pass
        m.d.comb += self.unit.busy.eq(~fsm.ongoing("IDLE") | ~self.idle | ~reported)
        return m

    def _report(self, m: Module, applied: Signal) -> Signal:
        """Report commands in their order, though settings take effect before earlier results are written.

        Returns whether everything is reported but a DRAIN of which steps are yet to be written.
        """
        # Commands that were begun and not reported: whether each is a DRAIN.
        is_drain = Signal(COMMANDS_IN_UNIT)
        first, count, none = Signal(range(COMMANDS_IN_UNIT)), Signal(range(COMMANDS_IN_UNIT + 1)), Signal(init=1)
        written, none_written = Signal(range(COMMANDS_IN_UNIT + 1)), Signal(init=1)  # DRAINs among them that are
        place = (first + count)[: len(first)]
        head_is_drain, is_written, reported = Signal(), Signal(), Signal()
        m.d.comb += [
            head_is_drain.eq(is_drain.bit_select(first, 1)),
            is_written.eq(self.written | ~none_written),
            self.unit.done.eq(~none & (~head_is_drain | is_written)),
            reported.eq(none | ((count == 1) & head_is_drain & ~is_written)),
        ]
        # What is written behind the last command counts only when one is begun.
        with m.If(~count[-1]):
            m.d.sync += is_drain.bit_select(place, 1).eq(self.start)
        m.d.sync += first.eq(first + self.unit.done)
        count_up_down(m, count, up=self.start | applied, down=self.unit.done, is_zero=none)
        reports_drain = self.unit.done & head_is_drain
        count_up_down(m, written, up=self.written, down=reports_drain, is_zero=none_written)
        return reported
