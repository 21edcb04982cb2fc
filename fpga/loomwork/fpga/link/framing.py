# SPDX-License-Identifier: Apache-2.0
"""Frames of the host link: flags, escapes and checksum (arch/link.py)."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.link import CRC_BYTES, ESCAPE, ESCAPED_BIT, FLAG

FRAME_BYTE = data.StructLayout({"data": 8, "last": 1})
"""A byte of a frame to send, without its checksum."""


class Deframer(Component):
    """Finds frames in received bytes.

    data, valid: a received byte, for one cycle. error: one cycle, a byte was lost. Two of these are at least 4 cycles
    apart.
    begin: one cycle, a frame may begin. byte, push: a byte of it, its checksum included, for one cycle.
    good, bad: one cycle, the frame has ended with a right or a wrong checksum; nothing comes for an empty one.
    """

    data: Signal
    valid: Signal
    error: Signal
    begin: Signal
    byte: Signal
    push: Signal
    good: Signal
    bad: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "data": In(8),
                "valid": In(1),
                "error": In(1),
                "begin": Out(1),
                "byte": Out(8),
                "push": Out(1),
                "good": Out(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        crc: Any = CRC32_ISO_HDLC(8).create()
        m.submodules.crc = crc
        inside, filled, escaped = Signal(), Signal(), Signal()
        # The byte and what it is, a cycle later: what follows from it reaches far.
        taken, valid, error = Signal(8), Signal(), Signal()
        is_flag, is_escape = Signal(), Signal()
        m.d.sync += [
            *(taken.eq(self.data), valid.eq(self.valid), error.eq(self.error)),
            *(is_flag.eq(self.data == FLAG), is_escape.eq(self.data == ESCAPE)),
        ]
        m.d.comb += [crc.start.eq(self.begin), crc.data.eq(self.byte), crc.valid.eq(self.push)]
        m.d.comb += self.byte.eq(taken ^ Mux(escaped, ESCAPED_BIT, 0))
        with m.If(error):
            # What is left of this frame is worth nothing.
            m.d.sync += [inside.eq(0), escaped.eq(0)]
        with m.Elif(valid & is_flag):
            m.d.comb += [
                self.begin.eq(1),
                self.good.eq(inside & filled & ~escaped & crc.match_detected),
                self.bad.eq(inside & filled & (escaped | ~crc.match_detected)),
            ]
            m.d.sync += [inside.eq(1), filled.eq(0), escaped.eq(0)]
        with m.Elif(valid & inside):
            with m.If(is_escape):
                m.d.sync += escaped.eq(1)
            with m.Else():
                m.d.comb += self.push.eq(1)
                m.d.sync += [filled.eq(1), escaped.eq(0)]
        return m


class Framer(Component):
    """Makes frames of bytes.

    i: the bytes (FRAME_BYTE). o: what goes on the line.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(FRAME_BYTE)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        crc: Any = CRC32_ISO_HDLC(8).create()
        m.submodules.crc = crc
        byte, step, taken = Signal(8), Signal(), Signal()
        escaped, number = Signal(), Signal(range(CRC_BYTES))
        m.d.comb += crc.data.eq(self.i.payload.data)

        def send(value: Any) -> None:
            """Send a byte in one or two steps; `taken` with the last."""
            m.d.comb += byte.eq(value)
            with m.If(((byte == FLAG) | (byte == ESCAPE)) & ~escaped):
                m.d.comb += self.o.payload.eq(ESCAPE)
                with m.If(step):
                    m.d.sync += escaped.eq(1)
            with m.Else():
                m.d.comb += [self.o.payload.eq(byte ^ Mux(escaped, ESCAPED_BIT, 0)), taken.eq(step)]
                with m.If(step):
                    m.d.sync += escaped.eq(0)

        m.d.comb += step.eq(self.o.valid & self.o.ready)
        with m.FSM():
            with m.State("FIRST FLAG"):
                m.d.comb += [crc.start.eq(1), self.o.valid.eq(self.i.valid), self.o.payload.eq(FLAG)]
                with m.If(step):
                    m.next = "BYTES"
            with m.State("BYTES"):
                m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(taken), crc.valid.eq(taken)]
                send(self.i.payload.data)
                with m.If(taken & self.i.payload.last):
                    m.next = "CHECKSUM"
            with m.State("CHECKSUM"):
                m.d.comb += self.o.valid.eq(1)
                send(crc.crc.word_select(number, 8))
                with m.If(taken):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == CRC_BYTES - 1):
                        m.next = "LAST FLAG"
            with m.State("LAST FLAG"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(FLAG)]
                with m.If(step):
                    m.next = "FIRST FLAG"
        return m
