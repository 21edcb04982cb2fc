# SPDX-License-Identifier: Apache-2.0
"""The engine of the compact core: runs passes through the array and drains columns of the accumulators."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from loomwork.rtl.compact.datapath import Datapath, tag_layout
from loomwork.rtl.compact.layout import PARTS, SIZE_BITS, Layout, Register, Result
from loomwork.rtl.compact.memory import Access
from loomwork.rtl.compact.requantizer import Requantizer
from loomwork.rtl.compact.walker import Walker, Writes

_COPIED = ("strobe", "register", "data")


class Engine(Component):
    """What the processor leaves to hardware.

    strobe, register, data: the processor writes a `Register`, while the engine is not busy. result: number of the
    `Result` that it reads, found: that one. memory: of `SharedMemory`.
    """

    strobe: Signal
    register: Signal
    data: Signal
    result: Signal
    found: Signal
    memory: Any

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        super().__init__(
            {
                "strobe": In(1),
                "register": In(4),
                "data": In(32),
                "result": In(2),
                "found": Out(32),
                "memory": Out(Access(layout)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self._layout.config.rows
        m.submodules.walker = walker = Walker(self._layout)
        m.submodules.datapath = datapath = Datapath(self._layout.config)
        m.submodules.requantizer = requantizer = Requantizer()
        memory, writes = self.memory, Writes(self.strobe, self.register, self.data)
        part = writes.part
        m.d.comb += [getattr(walker, name).eq(getattr(self, name)) for name in _COPIED]
        weights = Signal(self._layout.address_bits)
        passes, lanes, diagonal, overwrites = Signal(SIZE_BITS), Signal(rows), Signal(), Signal()
        with m.If(writes.hits(Register.WEIGHTS)):
            m.d.sync += weights.eq(self.data)
        with m.If(writes.hits(Register.PAD)):
            m.d.sync += [datapath.pad.eq(part(Register.PAD, "VALUE")), datapath.column.eq(part(Register.PAD, "COLUMN"))]
        with m.If(writes.hits(Register.PASS)):
            m.d.sync += [
                *(passes.eq(part(Register.PASS, "COUNT")), lanes.eq(part(Register.PASS, "LANES"))),
                *(diagonal.eq(part(Register.PASS, "DIAGONAL")), overwrites.eq(part(Register.PASS, "OVERWRITES"))),
            ]
        self._connect_requantizer(m, writes, requantizer)

        # The word of weights that is read, one bit per array row; the second word of a pixel is read.
        row, second = Signal(rows), Signal()
        tag = Signal(tag_layout(rows))
        m.d.comb += [
            datapath.tag.eq(tag),
            datapath.word.eq(memory.read_data),
            datapath.number.eq(walker.number),
            tag.diagonal.eq(diagonal),
            tag.last.eq((walker.offset == 0) | second),
            tag.offset.eq(walker.offset),
            tag.lanes.eq(walker.inside),
            tag.number.eq(walker.number),
            tag.overwrites.eq(overwrites),
            memory.address.eq(walker.word + second),
            memory.write_data.eq(requantizer.finished.replicate(rows)),
            memory.lanes.eq(1 << walker.offset),
            requantizer.value.eq(datapath.value),
        ]
        is_busy = Signal()
        wait = Signal()
        with m.FSM() as machine:
            m.d.comb += is_busy.eq(~machine.ongoing("IDLE") | requantizer.busy | datapath.busy)
            with m.State("IDLE"):
                m.d.comb += walker.restart.eq(1)
                m.d.sync += [second.eq(0), row.eq(1), wait.eq(0)]
                with m.If(writes.hits(Register.PASS)):
                    m.next = "WEIGHTS"
                with m.If(writes.hits(Register.DRAIN)):
                    m.next = "FETCH"
                with m.If(writes.hits(Register.VALUE)):
                    m.d.comb += [requantizer.start.eq(1), requantizer.value.eq(self.data)]
            with m.State("WEIGHTS"):
                m.d.comb += [
                    walker.restart.eq(1),
                    *(tag.weight.eq(1), tag.lanes.eq(row), tag.last.eq(diagonal | (row & lanes).any())),
                    *(memory.address.eq(weights), memory.request.eq(1), datapath.valid.eq(memory.grant)),
                ]
                with m.If(memory.grant):
                    m.d.sync += [weights.eq(weights + 1), row.eq(row << 1)]
                    with m.If(row[-1] | diagonal):
                        m.d.sync += row.eq(1)
                        m.next = "PIXELS"
            with m.State("PIXELS"):
                m.d.comb += [
                    memory.request.eq(walker.ready),
                    datapath.valid.eq(memory.grant),
                    walker.advance.eq(memory.grant & tag.last),
                ]
                with m.If(memory.grant):
                    m.d.sync += second.eq(~tag.last)
                    with m.If(tag.last & walker.is_last):
                        m.d.comb += walker.shift.eq(1)
                        m.d.sync += [passes.eq(passes - 1), overwrites.eq(0)]
                        m.next = "WEIGHTS"
                        with m.If(passes == 1):
                            m.next = "IDLE"
            with m.State("FETCH"):
                m.d.sync += wait.eq(~wait)
                with m.If(wait):
                    m.d.comb += requantizer.start.eq(1)
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [
                    *(memory.request.eq(~requantizer.busy & walker.ready), memory.write.eq(1)),
                    walker.advance.eq(memory.grant),
                ]
                with m.If(memory.grant):
                    m.next = "FETCH"
                    with m.If(walker.is_last):
                        m.next = "IDLE"
        results = {
            Result.BUSY: is_busy,
            Result.SCALED: requantizer.scaled,
            Result.FINISHED: requantizer.finished,
            Result.ACCUMULATOR: datapath.value,
        }
        with m.Switch(self.result):
            for number, value in results.items():
                with m.Case(number):
                    m.d.comb += self.found.eq(value)
        return m

    def _connect_requantizer(self, m: Module, writes: Writes, requantizer: Any) -> None:
        """Settings of the requantizer, as the processor has written them."""
        with m.If(writes.hits(Register.BIAS)):
            m.d.sync += requantizer.bias.eq(self.data)
        m.d.comb += [requantizer.load.eq(writes.hits(Register.MULTIPLIER)), requantizer.multiplier.eq(self.data)]
        with m.If(writes.hits(Register.SCALE)):
            m.d.sync += [
                getattr(requantizer, bits.name.lower()).eq(writes.part(Register.SCALE, bits.name))
                for bits in PARTS[Register.SCALE]
            ]
