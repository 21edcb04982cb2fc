# SPDX-License-Identifier: Apache-2.0
"""The sequencer: takes REQUANT, COMBINE and DRAIN, keeps the settings, starts the loops."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, OPCODE_BITS, Combine, Params, Pool, Source
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.command import command_layout
from loomwork.rtl.ports import UnitPort

_COMMAND_BITS = max(BY_MNEMONIC[mnemonic].bits for mnemonic in ("REQUANT", "COMBINE", "DRAIN"))


class Sequencer(Component):
    """Carries out the commands one by one.

    Commands see the results of those before them: each waits until everything is written. Only a DRAIN that reads no
    scratchpad, with the second stage of the one before, begins while results of that one are still on their way.

    unit: commands. halt: take no more.
    requant, combine: the settings in force; mode: the second stage of all DRAINs on their way. drain: the DRAIN whose
    steps are being launched. start: begin with its first.
    launched: its last step is launched. outside: its next step can never be. written: a DRAIN's last byte is in place;
    idle: so is everything else.
    """

    unit: Any
    halt: Signal
    requant: data.View
    combine: data.View
    mode: Signal
    drain: data.View
    start: Signal
    launched: Signal
    outside: Signal
    written: Signal
    idle: Signal

    def __init__(self, config: Config) -> None:
        self._residual_add = config.residual_add
        super().__init__(
            {
                "unit": In(UnitPort()),
                "halt": In(1),
                "requant": Out(command_layout("REQUANT")),
                "combine": Out(command_layout("COMBINE")),
                "mode": Out(Combine),
                "drain": Out(command_layout("DRAIN")),
                "start": Out(1),
                "launched": In(1),
                "outside": In(1),
                "written": In(1),
                "idle": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command = Signal(_COMMAND_BITS)
        drain = self.drain
        m.d.comb += drain.eq(command)

        is_legal = (drain.source == Source.ACCUMULATOR) | (drain.params == Params.UNIFORM)
        is_legal &= (drain.pool != Pool.NONE) | ((drain.pool_height == 1) & (drain.pool_width == 1))
        can_add = (drain.pool != Pool.SUM) & self._residual_add
        is_legal &= (drain.combine == Combine.NONE) | can_add
        reads_scratchpad = (drain.source == Source.SCRATCHPAD) | (drain.combine == Combine.ADD)
        may_begin = self.idle | (~reads_scratchpad & (drain.combine == self.mode))

        applied = Signal()
        m.d.comb += self.unit.done.eq(applied | self.written)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.unit.command.ready.eq(~self.halt)
                m.d.sync += command.eq(self.unit.command.payload)
                with m.If(self.unit.command.valid & self.unit.command.ready):
                    m.next = "BEGIN"
            with m.State("BEGIN"), m.Switch(command[:OPCODE_BITS]):
                with m.Case(BY_MNEMONIC["REQUANT"].opcode), m.If(self.idle):
                    m.d.comb += applied.eq(1)
                    m.d.sync += self.requant.eq(command)
                    m.next = "IDLE"
                with m.Case(BY_MNEMONIC["COMBINE"].opcode), m.If(self.idle):
                    m.d.comb += applied.eq(1)
                    m.d.sync += self.combine.eq(command)
                    m.next = "IDLE"
                with m.Case(BY_MNEMONIC["DRAIN"].opcode):
                    with m.If(is_legal & may_begin):
                        m.d.comb += self.start.eq(1)
                        m.d.sync += self.mode.eq(drain.combine)
                        m.next = "DRAIN"
                    with m.Elif(~is_legal & self.idle):
                        m.d.comb += self.unit.error.eq(ErrorCode.ILLEGAL_OPERAND)
                        m.next = "FAILED"
            with m.State("DRAIN"):
                with m.If(self.launched):
                    m.next = "IDLE"
                with m.Elif(self.outside & self.idle):
                    m.d.comb += self.unit.error.eq(ErrorCode.SCRATCHPAD)
                    m.next = "FAILED"
            with m.State("FAILED"):
                pass
        m.d.comb += self.unit.busy.eq(~fsm.ongoing("IDLE") | ~self.idle)
        return m
