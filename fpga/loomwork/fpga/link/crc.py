# SPDX-License-Identifier: Apache-2.0
"""The checksum of a frame: FCS-32 of RFC 1662, appendix C.3, a byte in two cycles.

`amaranth.lib.crc` takes a byte in one cycle, through seven levels of lookup tables, which limit the clock of a board.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.link import CRC_BYTES

POLYNOMIAL = 0xEDB8_8320
"""x^0 is the highest bit."""
GOOD = 0xDEBB_20E3
"""Content of the register behind a frame and its own checksum."""


def behind(byte: int) -> int:
    """What a register that held nothing but this byte holds when the byte has left it."""
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


class Checksum(Component):
    """Sums the bytes of a frame, in steps that are short for a fast clock.

    begin: a frame begins; it may stay. data, push: a byte, for one cycle. next_byte: with `push`, move the checksum on
    by a byte instead. Two bytes, and the last one and `begin`, are at least two cycles apart.
    byte: the lowest one of the checksum, two cycles after `push`. is_good: the last bytes were the checksum of those
    before; three cycles after.
    """

    begin: Signal
    data: Signal
    push: Signal
    next_byte: Signal
    byte: Signal
    is_good: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "begin": In(1),
                "data": In(8),
                "push": In(1),
                "next_byte": In(1),
                "byte": Out(8),
                "is_good": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state = Signal(8 * CRC_BYTES, init=-1)
        mixed, pushed = Signal(8), Signal()
        m.d.sync += [
            mixed.eq(Mux(self.next_byte, 0, state[:8] ^ self.data)),
            pushed.eq(self.push),
            self.is_good.eq(state == GOOD),
        ]
        with m.If(self.begin):
            m.d.sync += state.eq(-1)
        with m.Elif(pushed):
            m.d.sync += state.eq(state >> 8 ^ self._sums(mixed))
        m.d.comb += self.byte.eq(~state[:8])
        return m

    def _sums(self, mixed: Signal) -> Value:
        """What a byte that leaves the register adds to the rest."""
        parts = [behind(1 << bit) for bit in range(len(mixed))]
        return Cat(
            Cat(mixed[bit] for bit, part in enumerate(parts) if part >> place & 1).xor()
            for place in range(8 * CRC_BYTES)
        )
