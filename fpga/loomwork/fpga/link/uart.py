# SPDX-License-Identifier: Apache-2.0
"""A UART: 8 data bits, no parity, one stop bit."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

BITS = 10
"""Bits of a byte on the line: start, eight of data with the lowest first, stop."""


class UartReceiver(Component):
    """Receives bytes.

    divisor: clock cycles per bit, at least 4.
    rx: the line, asynchronous. valid: one cycle, for a byte. data: it stays there until the next one has come. error:
    one cycle, for a byte without a stop bit.

    Raises ValueError for a divisor that is too small to find the middle of a bit.
    """

    rx: Signal
    data: Signal
    valid: Signal
    error: Signal

    def __init__(self, divisor: int) -> None:
        if divisor < 4:
            raise ValueError(f"divisor must be at least 4, not {divisor}")
        self._divisor = divisor
        super().__init__({"rx": In(1), "data": Out(8), "valid": Out(1), "error": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        # The timer ends below zero: its sign is a comparison that is made already.
        timer = Signal(range(-1, self._divisor - 1))
        idle, begins = Signal(init=1), Signal()
        # A one runs ahead of the bits. When it leaves at the end, only the stop bit is missing.
        bits = Signal(BITS)
        m.d.sync += [self.valid.eq(0), self.error.eq(0)]
        with m.If(idle):
            # From the edge of the start bit, its middle is half a bit away. The edge was seen one cycle ago.
            m.d.sync += [timer.eq(self._divisor // 2 - 2), bits.eq(1 << BITS - 1), begins.eq(1), idle.eq(line)]
        with m.Elif(timer >= 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self._divisor - 2), bits.eq(Cat(bits[1:], line)), begins.eq(0)]
            with m.If(begins & line):
                m.d.sync += idle.eq(1)  # no start bit but a glitch
            with m.Elif(bits[0]):
                m.d.sync += [self.data.eq(bits[2:]), self.valid.eq(line), self.error.eq(~line), idle.eq(1)]
        return m


class UartTransmitter(Component):
    """Sends bytes.

    divisor: clock cycles per bit. i: the bytes. tx: the line.
    """

    i: stream.Interface
    tx: Signal

    def __init__(self, divisor: int) -> None:
        self._divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # As in the receiver, the sign of the timer ends a bit.
        timer = Signal(range(-1, self._divisor - 1))
        # The highest one is the stop bit. It stays, and is the idle line, when all before it are sent.
        bits = Signal(BITS, init=1)
        line = Signal(init=1)
        idle, is_stop = Signal(init=1), Signal()
        m.d.comb += [self.tx.eq(line), self.i.ready.eq(idle), is_stop.eq(bits[1:] == 0)]
        m.d.sync += [line.eq(bits[0]), timer.eq(Mux(idle | (timer < 0), self._divisor - 2, timer - 1))]
        with m.If(idle):
            with m.If(self.i.valid):
                m.d.sync += [bits.eq(Cat(0, self.i.payload, 1)), idle.eq(0)]
        with m.Elif(timer < 0):
            m.d.sync += [bits.eq(Cat(bits[1] | is_stop, bits[2:])), idle.eq(is_stop)]
        return m
