# SPDX-License-Identifier: Apache-2.0
"""The accumulators: for each column two memories, one of which the array fills while the drain empties the other."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.rtl.block_memory import block_memory
from loomwork.rtl.delay import delay
from loomwork.rtl.ports import ACCUMULATOR_LATENCY, AccumulatorRead

REUSE_CYCLES = 4
"""Cycles after which a pixel that was added to may be added to again."""
HALVES = 2

TAG = data.StructLayout({"valid": 1, "start": 1, "overwrite": 1, "closes": 1, "last": 1})
"""What accompanies a pixel through the array. valid: there is one. start: pixel 0 of a pass. overwrite, closes: first,
last pass of a block. last: last pixel of a block."""


def entry_layout(config: Config) -> data.StructLayout:
    """One sum on its way to the memories: whether it is one, into which half, at which pixel, and see `TAG`.

    adds: one bit for each half, whether the sum is to be added to what is there. A block's first pass adds to nothing,
    so that the drain may read meanwhile.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "half": range(HALVES),
            "adds": HALVES,
            "overwrite": 1,
            "closes": 1,
            "last": 1,
            "pixel": range(config.accumulator_depth),
        }
    )


class AccumulatorColumn(Component):
    """Both memories of one column, `accumulator_depth` x int32 each; additions wrap.

    i, psum: add the sum to a pixel, or overwrite it; not again for the same pixel before REUSE_CYCLES.
    o: `i`, one cycle later, for the next column.
    half, pixel: read by the drain; a half that is not being filled, or filled by a block's only pass. data:
    ACCUMULATOR_LATENCY cycles later.
    finished: one cycle, when the sum with `last` can be read from the next cycle on. progresses: likewise, each sum of
    a block's only pass, before `last`.
    """

    i: data.View
    psum: Signal
    o: data.View
    half: Signal
    pixel: Signal
    data: Signal
    finished: Signal
    progresses: Signal

    def __init__(self, config: Config) -> None:
        self._depth = config.accumulator_depth
        self._entry = entry_layout(config)
        super().__init__(
            {
                "i": In(self._entry),
                "psum": In(signed(config.psum_bits)),
                "o": Out(self._entry),
                "half": In(range(HALVES)),
                "pixel": In(range(config.accumulator_depth)),
                "data": Out(signed(32)),
                "finished": Out(1),
                "progresses": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = [self.i, *(Signal(self._entry, name=f"entry_{n}") for n in range(1, REUSE_CYCLES))]
        m.d.sync += [late.eq(early) for early, late in pairwise(entries)]
        m.d.comb += [
            self.o.eq(entries[1]),
            self.finished.eq(entries[3].valid & entries[3].last),
            self.progresses.eq(entries[3].valid & entries[3].overwrite & entries[3].closes & ~entries[3].last),
        ]

        psums = [self.psum, *(Signal.like(self.psum, name=f"psum_{n}", reset_less=True) for n in (1, 2))]
        m.d.sync += [psums[1].eq(psums[0]), psums[2].eq(psums[1])]
        total = Signal(signed(32), reset_less=True)

        read_half = delay(m, "read_half", self.half, ACCUMULATOR_LATENCY)
        found = []
        for half in range(HALVES):
            memory = block_memory(signed(32), self._depth)
            m.submodules[f"half_{half}"] = memory
            read, write = memory.read_port(), memory.write_port()
            # A register behind the memory, whose output is slow; the choice of the half comes after it.
            found.append(Signal(signed(32), name=f"found_{half}", reset_less=True))
            m.d.comb += [
                read.addr.eq(Mux(self.i.adds[half], self.i.pixel, self.pixel)),
                read.en.eq(1),
                write.addr.eq(entries[3].pixel),
                write.data.eq(total),
                write.en.eq(entries[3].valid & (entries[3].half == half)),
            ]
            m.d.sync += found[half].eq(read.data)
        old = Mux(entries[2].overwrite, 0, Mux(entries[2].half, found[1], found[0]))
        m.d.sync += total.eq(old + psums[2])
        m.d.comb += self.data.eq(Mux(read_half, found[1], found[0]))
        return m


class Accumulator(Component):
    """The accumulators of all columns, and which half is whose. The halves take turns by themselves.

    available: a half is free for another block. reserve: one cycle, for each block before its first pixel arrives;
    only when `available`.
    tag, psums: from the array; column `c` of a pixel arrives `c` cycles after its tag.
    read: the drain.
    """

    available: Signal
    reserve: Signal
    tag: data.View
    psums: data.View
    read: Any

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "available": Out(1),
                "reserve": In(1),
                "tag": In(TAG),
                "psums": In(data.ArrayLayout(signed(config.psum_bits), config.cols)),
                "read": In(AccumulatorRead(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fill, drain = Signal(range(HALVES)), Signal(range(HALVES))
        reserved, ready = Signal(range(HALVES + 1)), Signal(range(HALVES + 1))
        finished, progresses = Signal(), Signal()
        with m.If(finished):
            m.d.sync += self.read.progress.eq(0)
        with m.Elif(progresses):
            m.d.sync += self.read.progress.eq(self.read.progress + 1)
        m.d.sync += [
            reserved.eq(reserved + self.reserve - self.read.release),
            ready.eq(ready + finished - self.read.release),
        ]
        exhausted = Signal()
        m.d.comb += self.available.eq(~exhausted)
        with m.If(self.reserve ^ self.read.release):
            m.d.sync += exhausted.eq(self.reserve & (reserved == HALVES - 1))
        m.d.comb += self.read.next_ready.eq(Mux(finished ^ self.read.release, finished | (ready != 1), self.read.ready))
        m.d.sync += self.read.ready.eq(self.read.next_ready)
        with m.If(self.tag.valid & self.tag.last):
            m.d.sync += fill.eq(fill + 1)
        with m.If(self.read.release):
            m.d.sync += drain.eq(drain + 1)

        entry = Signal(entry_layout(self._config))
        following = Signal.like(entry.pixel)
        m.d.comb += [
            entry.valid.eq(self.tag.valid),
            entry.half.eq(fill),
            entry.adds.eq(Mux(self.tag.valid & ~self.tag.overwrite, 1 << fill, 0)),
            entry.overwrite.eq(self.tag.overwrite),
            entry.closes.eq(self.tag.closes),
            entry.last.eq(self.tag.last),
            entry.pixel.eq(Mux(self.tag.start, 0, following)),
        ]
        with m.If(self.tag.valid):
            m.d.sync += following.eq(entry.pixel + 1)
        for number in range(self._config.cols):
            column = AccumulatorColumn(self._config)
            m.submodules[f"column_{number}"] = column
            m.d.comb += [
                column.i.eq(entry),
                column.psum.eq(self.psums[number]),
                column.half.eq(drain),
                column.pixel.eq(self.read.pixel),
                self.read.data[number].eq(column.data),
            ]
            entry = column.o
            if number == self._config.cols - 1:
                m.d.comb += [finished.eq(column.finished), progresses.eq(column.progresses)]
        return m
