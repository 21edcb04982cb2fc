# SPDX-License-Identifier: Apache-2.0
"""A short queue without an output register."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out


class Queue(Component):
    """First in, first out, for at most `depth` entries.

    In every cycle it does what `amaranth.lib.fifo.SyncFIFOBuffered` of that depth does: an entry is seen two cycles
    after it was written, at the earliest. But that one reads its memory into a register, as block RAM asks for; this
    one does without, because up to 16 entries are distributed RAM in an FPGA, whose reads are like logic.

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

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A power of two, so that the pointers wrap by themselves.
        places = 1 << (self._depth - 1).bit_length()
        m.submodules.memory = memory = Memory(shape=self._width, depth=places, init=[])
        writing, reading = memory.write_port(), memory.read_port(domain="comb")

        behind = Signal(range(self._depth))  # entries behind the one at `o`
        written, taken, next_is_seen = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(behind != self._depth - 1),
            written.eq(self.i.valid & self.i.ready),
            taken.eq(self.o.valid & self.o.ready),
            next_is_seen.eq(behind.any() & (~self.o.valid | self.o.ready)),
            self.occupied.eq(behind.any() | self.o.valid),
            writing.data.eq(self.i.payload),
            writing.en.eq(written),
            self.o.payload.eq(reading.data),
        ]
        m.d.sync += [
            writing.addr.eq(writing.addr + written),
            reading.addr.eq(reading.addr + taken),
            behind.eq(behind + written - next_is_seen),
        ]
        with m.If(next_is_seen):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
