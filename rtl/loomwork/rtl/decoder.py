# SPDX-License-Identifier: Apache-2.0
"""The decoder: checks each command against the table of `arch/isa.py` and finds its unit."""

from functools import reduce
from operator import and_

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.isa import COMMAND_BYTES, INSNS, OPCODE_BITS, Field, Insn, Unit
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.command import command_layout
from loomwork.rtl.ports import COMMAND_BITS, ERROR_BITS

COMMAND_INDEX_BITS = 32 - (COMMAND_BYTES - 1).bit_length()
"""Width of a command's number in its window, which has a size of 32 bits."""

FETCHED = data.StructLayout({"command": COMMAND_BITS, "index": COMMAND_INDEX_BITS})
"""A command on its way to the decoder. index: its byte offset in the COMMANDS window, in units of COMMAND_BYTES."""

DECODED = data.StructLayout({"command": COMMAND_BITS, "index": COMMAND_INDEX_BITS, "unit": Unit})
"""A legal command on its way to the queue of its unit."""

_PIECE_BITS = 64
"""Bits behind the operands that are looked at together: three levels of lookup tables."""
_PIECES = COMMAND_BITS // _PIECE_BITS
CHECKS = _PIECES + 2
"""Checks of a command that are made side by side."""


def operand_is_legal(item: Field, value: Value) -> Value | None:
    """Whether `value`, of the operand's own shape, lies between its limits; None when every value does."""
    shape = value.shape()
    lowest = -(1 << (shape.width - 1)) if shape.signed else 0
    highest = lowest + (1 << shape.width) - 1
    checks: list[Value] = []
    if item.low > lowest:
        checks.append(value >= item.low)
    if item.high < highest:
        checks.append(value <= item.high)
    return Cat(*checks).all() if checks else None


def checks_of(insn: Insn, command: Value) -> list[Value]:
    """Whether a raw command, known to be an `insn`, has nothing behind the last operand, and all in range: it is legal
    when all of these CHECKS hold: zeros by pieces, then every other operand, and the rest of them.
    """
    fields = data.View(command_layout(insn.mnemonic), command[: insn.bits])
    checks = [operand_is_legal(item, Value.cast(fields[item.name])) for item in insn.operands]
    found = [check for check in checks if check is not None]
    ends = [_PIECE_BITS * (piece + 1) for piece in range(_PIECES)]
    rest = [~command[max(insn.bits, end - _PIECE_BITS) : max(insn.bits, end)].any() for end in ends]
    return [*rest, Cat(found[::2]).all(), Cat(found[1::2]).all()]


class Decoder(Component):
    """Checks commands and passes on the legal ones, one cycle later. The first illegal command stops it until reset.

    deep: it passes them on three cycles later, and takes the next one when this one is gone: who gives it commands
    knows early whether it takes one (`deep_pipeline`).
    i: commands in program order. o: the same with their unit.
    error: nonzero `ErrorCode` for one cycle when a command is illegal. error_index: which command, at that time.
    """

    i: stream.Interface
    o: stream.Interface
    error: Signal
    error_index: Signal

    def __init__(self, *, deep: bool = False) -> None:
        self._deep = deep
        super().__init__(
            {
                "i": In(stream.Signature(FETCHED)),
                "o": Out(stream.Signature(DECODED)),
                "error": Out(ERROR_BITS),
                "error_index": Out(COMMAND_INDEX_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stopped, comes = Signal(), Signal()  # comes: a command is decided on
        looked_at = self.o.payload if self._deep else self.i.payload
        command = Value.cast(looked_at.command)
        if self._deep:
            looks, taken, may_take = Signal(), Signal(), Signal(init=1)
            m.d.comb += [self.i.ready.eq(may_take), taken.eq(self.i.valid & may_take)]
            m.d.sync += [looks.eq(taken), comes.eq(looks)]
            # There is none in it, in the next cycle.
            m.d.sync += may_take.eq(~(taken | looks | comes | stopped) & (~self.o.valid | self.o.ready))
        else:
            m.d.comb += [
                self.i.ready.eq((~self.o.valid | self.o.ready) & ~stopped),
                comes.eq(self.i.valid & self.i.ready),
            ]
        is_insn = Signal(len(INSNS))
        holds = [Signal(len(INSNS), name=f"holds_{check}") for check in range(CHECKS)]
        for number, insn in enumerate(INSNS):
            domain = "sync" if self._deep else "comb"
            m.d[domain] += is_insn[number].eq(command[:OPCODE_BITS] == insn.opcode)
            for check, result in zip(holds, checks_of(insn, command), strict=True):
                m.d[domain] += check[number].eq(result)
        unit = Signal(Unit)
        code = Signal(ErrorCode)
        for number, insn in enumerate(INSNS):
            with m.If(is_insn[number]):
                m.d.comb += unit.eq(insn.unit)
        with m.If(~is_insn.any()):
            m.d.comb += code.eq(ErrorCode.ILLEGAL_OPCODE)
        with m.Elif(~reduce(and_, holds, is_insn).any()):
            m.d.comb += code.eq(ErrorCode.ILLEGAL_OPERAND)

        m.d.sync += self.error.eq(ErrorCode.NONE)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        # Whether there is a command is known late: the place for it is written in any case.
        with m.If(self.i.ready):
            m.d.sync += self.o.payload.command.eq(self.i.payload.command)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += self.o.payload.index.eq(self.i.payload.index)
        with m.If(comes):
            m.d.sync += [
                self.o.payload.unit.eq(unit),
                self.o.valid.eq(code == ErrorCode.NONE),
                self.error.eq(code),
                self.error_index.eq(looked_at.index),
                stopped.eq(code != ErrorCode.NONE),
            ]
        return m
