# SPDX-License-Identifier: Apache-2.0
"""Queues: short ones in distributed RAM, long ones in block RAM."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.rtl.block_memory import block_memory
from loomwork.rtl.skid import PingPong


class _Queue(Component):
    """What both kinds have in common.

    i, o: entries of `width` bits. occupied: there is an entry, seen at `o` or not yet.
    """

    i: stream.Interface
    o: stream.Interface
    occupied: Signal

    def __init__(self, width: int, depth: int) -> None:
        if depth < 2:
            raise ValueError(f"depth of a queue must be at least 2, not {depth}")
        self._width = width
        self._depth = depth
        signature = stream.Signature(width)
        super().__init__({"i": In(signature), "o": Out(signature), "occupied": Out(1)})

    def _store(self, m: Module, written: Signal, seen: Signal, taken: Signal) -> Value:
        """Keep the entries; result: whether there is a place at `o` for the next one.

        written: one comes. seen: the next one is at `o` in the next cycle. taken: one leaves.
        """
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Entries behind those at `o`; whether there are any, and as many as there can be, from registers.
        behind, is_some, is_full = Signal(range(self._depth)), Signal(), Signal()
        written, seen, taken = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~is_full),
            written.eq(self.i.valid & self.i.ready),
            taken.eq(self.o.valid & self.o.ready),
            seen.eq(is_some & self._store(m, written, seen, taken)),
            self.occupied.eq(is_some | self.o.valid),
        ]
        # Two sums that wait for what is known late, instead of one that begins with it.
        with m.If(written ^ seen):
            m.d.sync += [
                behind.eq(Mux(written, behind + 1, behind - 1)),
                is_some.eq(written | (behind != 1)),
                is_full.eq(written & (behind == self._depth - 2)),
            ]
        return m

    def _one_place(self, m: Module, seen: Signal) -> Value:
        """`o` is one place; whether it can be filled."""
        with m.If(seen):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return ~self.o.valid | self.o.ready


def _memory_places(entries: int) -> int:
    """Words of a memory for so many entries: a power of two, so that the pointers wrap by themselves."""
    return max(2, 1 << (entries - 1).bit_length())


def _advance(m: Module, port: Any, moves: Signal) -> None:
    """Go on to the next word: when it does is known late, so that it enables the register and is not added."""
    with m.If(moves):
        m.d.sync += port.addr.eq(port.addr + 1)


class Queue(_Queue):
    """First in, first out, for at most `depth` entries.

    In every cycle it does what `amaranth.lib.fifo.SyncFIFOBuffered` of that depth does: an entry is seen two cycles
    after it was written, at the earliest. But that one reads its memory into a register, as block RAM asks for; this
    one does without, because up to 16 entries are distributed RAM in an FPGA, whose reads are like logic.
    """

    def _store(self, m: Module, written: Signal, seen: Signal, taken: Signal) -> Value:
        m.submodules.memory = memory = Memory(shape=self._width, depth=_memory_places(self._depth), init=[])
        writing, reading = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [writing.data.eq(self.i.payload), writing.en.eq(written), self.o.payload.eq(reading.data)]
        _advance(m, writing, written)
        _advance(m, reading, taken)
        return self._one_place(m, seen)


class BlockQueue(_Queue):
    """The same, cycle by cycle, for many entries, or where the oldest one is needed early in the cycle.

    What is seen at `o` is the output register of a memory of `depth - 1` words. In block RAM that is no faster.
    """

    def _store(self, m: Module, written: Signal, seen: Signal, taken: Signal) -> Value:
        m.submodules.memory = memory = block_memory(self._width, _memory_places(self._depth - 1))
        writing, reading = memory.write_port(), memory.read_port()
        m.d.comb += [writing.data.eq(self.i.payload), writing.en.eq(written)]
        m.d.comb += [self.o.payload.eq(reading.data), reading.en.eq(seen)]
        _advance(m, writing, written)
        _advance(m, reading, seen)
        return self._one_place(m, seen)


class PingPongQueue(_Queue):
    """The same again, for few entries that are wide, and of which it is known late whether they are taken.

    That chooses between two output registers (`PingPong`) and enables neither. It holds one entry more.
    """

    def _store(self, m: Module, written: Signal, seen: Signal, taken: Signal) -> Value:
        m.submodules.memory = memory = Memory(shape=self._width, depth=_memory_places(self._depth - 1), init=[])
        m.submodules.places = places = PingPong(self._width)
        writing, reading = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            writing.data.eq(self.i.payload),
            writing.en.eq(written),
            places.i.payload.eq(reading.data),
            places.i.valid.eq(seen),
        ]
        connect(m, places.o, flipped(self.o))
        _advance(m, writing, written)
        _advance(m, reading, seen)
        return places.i.ready
