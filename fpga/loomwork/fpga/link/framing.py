# SPDX-License-Identifier: Apache-2.0
"""Frames of the host link: flags, escapes and checksum (arch/link.py)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.link import CRC_BYTES, ESCAPE, ESCAPED_BIT, FLAG
from loomwork.fpga.link.crc import Checksum

FRAME_BYTE = data.StructLayout({"data": 8, "last": 1})
"""A byte of a frame to send, without its checksum."""


class Deframer(Component):
    """Finds frames in received bytes.

    valid: one cycle, a byte was received. data: it stays there. error: one cycle, a byte was lost. Two of these are at
    least 4 cycles apart.
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
        m.submodules.crc = crc = Checksum()
        inside, filled, escaped = Signal(), Signal(), Signal()
        # What the byte is, a cycle after it came, and what follows from that another cycle later: both reach far.
        valid, error, is_flag, is_escape = Signal(), Signal(), Signal(), Signal()
        inverted = Signal()
        is_end = valid & is_flag & inside & filled
        m.d.sync += [
            *(valid.eq(self.valid), error.eq(self.error)),
            *(is_flag.eq(self.data == FLAG), is_escape.eq(self.data == ESCAPE)),
            inverted.eq(escaped),
            self.begin.eq(valid & is_flag),
            self.push.eq(valid & inside & ~is_flag & ~is_escape),
            self.good.eq(is_end & ~escaped & crc.is_good),
            self.bad.eq(is_end & (escaped | ~crc.is_good)),
        ]
        m.d.comb += [
            self.byte.eq(self.data ^ Mux(inverted, ESCAPED_BIT, 0)),
            *(crc.begin.eq(self.begin), crc.data.eq(self.byte), crc.push.eq(self.push)),
        ]
        with m.If(error):
            # What is left of this frame is worth nothing.
            m.d.sync += [inside.eq(0), escaped.eq(0)]
        with m.Elif(valid):
            m.d.sync += escaped.eq(inside & is_escape)
            with m.If(is_flag):
                m.d.sync += [inside.eq(1), filled.eq(0)]
            with m.Elif(~is_escape):
                m.d.sync += filled.eq(1)
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
        m.submodules.crc = crc = Checksum()
        # A byte is offered, looked at in the next cycle and sent in the one after that. In the cycle behind that it is
        # `taken` and summed, and when the sum is there the next one may come.
        byte, offered, is_data = Signal(8), Signal(), Signal()
        looked_at, is_special, is_escaped = Signal(), Signal(), Signal()
        step, taken, summed = Signal(), Signal(), Signal()
        number = Signal(range(CRC_BYTES))
        m.d.comb += [
            step.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(looked_at),
            self.o.payload.eq(Mux(is_special, ESCAPE, byte ^ Mux(is_escaped, ESCAPED_BIT, 0))),
            *(crc.data.eq(self.i.payload.data), crc.push.eq(is_data & taken)),
        ]
        m.d.sync += [
            looked_at.eq(offered & ~step & ~taken & ~summed),
            is_special.eq(is_data & ~is_escaped & ((byte == FLAG) | (byte == ESCAPE))),
            *(taken.eq(step & ~is_special), summed.eq(taken)),
            self.i.ready.eq(0),
        ]
        with m.If(step):
            m.d.sync += is_escaped.eq(is_special)
        with m.FSM():
            with m.State("FIRST FLAG"):
                m.d.comb += [crc.begin.eq(1), offered.eq(self.i.valid), byte.eq(FLAG)]
                with m.If(taken):
                    m.next = "BYTES"
            with m.State("BYTES"):
                m.d.comb += [is_data.eq(1), offered.eq(self.i.valid), byte.eq(self.i.payload.data)]
                m.d.sync += self.i.ready.eq(step & ~is_special)
                with m.If(taken & self.i.payload.last):
                    m.next = "CHECKSUM"
            with m.State("CHECKSUM"):
                m.d.comb += [is_data.eq(1), crc.next_byte.eq(1), offered.eq(1), byte.eq(crc.byte)]
                with m.If(taken):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == CRC_BYTES - 1):
                        m.next = "LAST FLAG"
            with m.State("LAST FLAG"):
                m.d.comb += [offered.eq(1), byte.eq(FLAG)]
                with m.If(taken):
                    m.next = "FIRST FLAG"
        return m
