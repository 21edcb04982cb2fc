# SPDX-License-Identifier: Apache-2.0
"""Gearboxes: streams of bytes from one width to another, little end first, without a lost cycle."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out


def _ratio(wide: int, narrow: int) -> int:
    ratio = wide // narrow
    if wide % narrow or ratio & (ratio - 1):
        raise ValueError(f"one side must be a power of two times the other, not {wide} and {narrow} bytes")
    return ratio


class Widener(Component):
    """Gathers words: `o_bytes // i_bytes` inputs make one output, in the cycle in which the last of them comes.

    i: `[i_bytes] bytes`. o: `[o_bytes] bytes`, a multiple.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, i_bytes: int, o_bytes: int) -> None:
        self._ratio = _ratio(o_bytes, i_bytes)
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(8, i_bytes))),
                "o": Out(stream.Signature(data.ArrayLayout(8, o_bytes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        incoming = Value.cast(self.i.payload)
        gathered = [Signal(len(incoming), name=f"piece_{place}") for place in range(self._ratio - 1)]
        place = Signal(range(self._ratio))
        last = Signal()
        m.d.comb += [
            last.eq(place == self._ratio - 1 if self._ratio > 1 else 1),
            self.o.payload.eq(Cat(*gathered, incoming)),
            self.o.valid.eq(self.i.valid & last),
            self.i.ready.eq(~last | self.o.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += place.eq(place + 1)
        for number, piece in enumerate(gathered):
            with m.If(self.i.valid & (place == number)):
                m.d.sync += piece.eq(incoming)
        return m


def narrower_layout(i_bytes: int, o_bytes: int) -> data.StructLayout:
    """Input of a `Narrower`. data: `[i_bytes] bytes`. final: number of the last output word that is taken from it."""
    return data.StructLayout({"data": data.ArrayLayout(8, i_bytes), "final": range(max(2, i_bytes // o_bytes))})


class Narrower(Component):
    """Cuts words: up to `i_bytes // o_bytes` outputs from one input, the first one in the cycle in which it comes.

    i: `narrower_layout`; what lies behind output word `final` is dropped. o: `[o_bytes] bytes`.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, i_bytes: int, o_bytes: int) -> None:
        self._ratio = _ratio(i_bytes, o_bytes)
        super().__init__(
            {
                "i": In(stream.Signature(narrower_layout(i_bytes, o_bytes))),
                "o": Out(stream.Signature(data.ArrayLayout(8, o_bytes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        place = Signal(range(max(2, self._ratio)))
        last = Signal()
        width = len(Value.cast(self.o.payload))
        m.d.comb += [
            last.eq(place == self.i.payload.final),
            self.o.payload.eq(Value.cast(self.i.payload.data).word_select(place, width)),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & last),
        ]
        with m.If(self.o.valid & self.o.ready):
            with m.If(last):
                m.d.sync += place.eq(0)
            with m.Else():
                m.d.sync += place.eq(place + 1)
        return m
