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
    rx: the line, asynchronous. data, valid: a byte, for one cycle. error: one cycle, for a byte without a stop bit.

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
        timer, left = Signal(range(self._divisor)), Signal(range(BITS + 1))
        bits = Signal(BITS)
        m.d.sync += [self.valid.eq(0), self.error.eq(0)]
        with m.If(left == 0):
            # From the edge of the start bit, its middle is half a bit away. The edge was seen one cycle ago.
            m.d.sync += timer.eq(self._divisor // 2 - 1)
            with m.If(~line):
                m.d.sync += left.eq(BITS)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self._divisor - 1), left.eq(left - 1), bits.eq(Cat(bits[1:], line))]
            with m.If((left == BITS) & line):
                m.d.sync += left.eq(0)  # no start bit but a glitch
            with m.Elif(left == 1):
                m.d.sync += [self.data.eq(bits[2:]), self.valid.eq(line), self.error.eq(~line)]
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
        timer, left = Signal(range(self._divisor)), Signal(range(BITS + 1))
        bits = Signal(BITS - 1, init=-1)
        line = Signal(init=1)
        idle = Signal(init=1)
        m.d.comb += [self.tx.eq(line), self.i.ready.eq(idle)]
        m.d.sync += [line.eq(bits[0]), timer.eq(Mux(timer == 0, self._divisor - 1, timer - 1))]
        with m.If(idle):
            with m.If(self.i.valid):
                m.d.sync += idle.eq(0)
                m.d.sync += [bits.eq(Cat(0, self.i.payload)), left.eq(BITS), timer.eq(self._divisor - 1)]
        with m.Elif(timer == 0):
            m.d.sync += idle.eq(left == 1)
            m.d.sync += [left.eq(left - 1), bits.eq(Cat(bits[1:], 1))]
        return m
