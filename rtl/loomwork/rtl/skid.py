# SPDX-License-Identifier: Apache-2.0
"""Places for one more between two stages, which cut the way of `ready`, or of both `valid` and `ready`."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out


class _Stage(Component):
    """What both kinds have in common."""

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})


class Skid(_Stage):
    """Keeps what comes while the next stage cannot take it, so that `i.ready` is a register.

    Adds no cycle: what comes while nothing is kept is at `o` at once.

    i, o: streams of `shape`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i, self.o
        kept, is_kept = Signal(len(Value.cast(i.payload)), reset_less=True), Signal()
        m.d.comb += [
            i.ready.eq(~is_kept),
            o.valid.eq(i.valid | is_kept),
            Value.cast(o.payload).eq(Mux(is_kept, kept, Value.cast(i.payload))),
        ]
        with m.If(~is_kept):
            m.d.sync += kept.eq(i.payload)
        with m.If(o.ready):
            m.d.sync += is_kept.eq(0)
        with m.Elif(i.valid):
            m.d.sync += is_kept.eq(1)
        return m


class Slice(_Stage):
    """Both `i.ready` and `o` are registers: what comes is at `o` in the next cycle, at one per cycle.

    i, o: streams of `shape`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i, self.o
        payload = Signal(len(Value.cast(i.payload)), reset_less=True)
        kept, is_kept, moves = Signal.like(payload), Signal(), Signal()
        m.d.comb += [i.ready.eq(~is_kept), Value.cast(o.payload).eq(payload), moves.eq(~o.valid | o.ready)]
        m.d.sync += is_kept.eq(~moves & (is_kept | i.valid))
        with m.If(~is_kept):
            m.d.sync += kept.eq(i.payload)
        with m.If(moves):
            m.d.sync += [o.valid.eq(is_kept | i.valid), payload.eq(Mux(is_kept, kept, i.payload))]
        return m


class PingPong(_Stage):
    """Cycle by cycle what `Slice` does, with two registers that take turns at `o`.

    Nothing stands between `i` and them, and neither waits for `o.ready`, which only says whose turn it is. `o` comes
    later in its cycle.

    i, o: streams of `shape`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i, self.o
        filled, shown = Signal(), Signal()  # whose turn it is on both sides
        is_full = [Signal(name=f"is_full_{number}") for number in range(2)]
        places = [Signal(len(Value.cast(i.payload)), name=f"place_{number}", reset_less=True) for number in range(2)]
        comes, leaves = i.valid & i.ready, o.valid & o.ready
        for number, (full, place) in enumerate(zip(is_full, places, strict=True)):
            with m.If(~full):
                m.d.sync += place.eq(i.payload)
            with m.If(comes & (filled == number)):
                m.d.sync += full.eq(1)
            with m.If(leaves & (shown == number)):
                m.d.sync += full.eq(0)
        m.d.sync += [filled.eq(filled ^ comes), shown.eq(shown ^ leaves)]
        m.d.comb += [
            i.ready.eq(~(is_full[0] & is_full[1])),
            o.valid.eq(is_full[0] | is_full[1]),
            Value.cast(o.payload).eq(Mux(shown, places[1], places[0])),
        ]
        return m
