# SPDX-License-Identifier: Apache-2.0
"""Collects requests: one waits or is carried out while the next one arrives."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.link import MAX_WORDS, REQUEST, WORD_BYTES, Part, header_bytes

HEADER_WORDS = header_bytes(REQUEST) // WORD_BYTES
FIRST_INDEX = -6
"""Where a header begins. From there, the bridge counts up to the first word of data, 0: it has the header two cycles
after the last word of that and needs as many to judge it."""


def header_layout(parts: tuple[Part, ...]) -> data.StructLayout:
    """A header of arch/link.py as bits."""
    return data.StructLayout({part.name: 8 * part.bytes for part in parts})


class Requests(Component):
    """Keeps the frame that is carried out and the one that arrives; a third one is dropped, as if it was lost.

    begin, byte, push, good: of the `Deframer`.
    pending: there is a request. data_words: words behind its header. Until `taken`, one cycle.
    index, data: a word of those, one cycle later. request: the header, two cycles after `index` has counted through it
    from FIRST_INDEX on; it stays until that happens once more.
    """

    begin: Signal
    byte: Signal
    push: Signal
    good: Signal
    pending: Signal
    request: data.View
    data_words: Signal
    taken: Signal
    index: Signal
    data: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "begin": In(1),
                "byte": In(8),
                "push": In(1),
                "good": In(1),
                "pending": Out(1),
                "request": Out(header_layout(REQUEST)),
                "data_words": Out(range(MAX_WORDS + 1)),
                "taken": In(1),
                "index": In(range(FIRST_INDEX, MAX_WORDS)),
                "data": Out(8 * WORD_BYTES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Two halves: of the frame that arrives and of the one that is carried out. In each, the header lies behind the
        # words of data, where it takes no registers while the frame arrives.
        depth = 2 * MAX_WORDS
        m.submodules.buffer = buffer = Memory(shape=8 * WORD_BYTES, depth=2 * depth, init=[])
        read, write = buffer.read_port(), buffer.write_port()
        arriving, half = Signal(), Signal()

        low, place = Signal(8 * (WORD_BYTES - 1)), Signal(range(WORD_BYTES))
        # The index of the word that arrives: from -HEADER_WORDS on, as bits of an address. The checksum follows as if
        # it was one more word of data, up to MAX_WORDS.
        count, too_long = Signal(range(depth)), Signal()
        is_header, is_longest = count[-2:].all(), count[-1] & ~count[-2]
        m.d.comb += [
            write.addr.eq(Cat(count[:2], count[2] & ~is_header, count[3:], arriving)),
            write.data.eq(Cat(low, self.byte)),
            write.en.eq(self.push & (place == WORD_BYTES - 1)),
            read.addr.eq(Cat(self.index, half)),
            self.data.eq(read.data),
        ]
        with m.If(self.begin):
            m.d.sync += [count.eq(-HEADER_WORDS - 1), place.eq(0), too_long.eq(0)]
        with m.Elif(self.push):
            m.d.sync += [low.eq(Cat(low, self.byte)[8:]), place.eq(place + 1)]
            with m.If(place == 0):
                with m.If(is_longest):
                    m.d.sync += too_long.eq(1)
                with m.Else():
                    m.d.sync += count.eq(count + 1)

        # Of all that `index` counts through, the words of the header are shifted in. What is behind the last word has
        # their sign as well.
        shifts = Signal()
        m.d.sync += shifts.eq(self.index[-1] & self.index[-2] & ~self.index[2])
        with m.If(shifts):
            m.d.sync += self.request.eq(Cat(self.request, read.data)[8 * WORD_BYTES :])

        is_whole = (place == 0) & ~too_long & ~is_header
        with m.If(self.taken):
            m.d.sync += self.pending.eq(0)
        with m.Elif(self.good & is_whole & ~self.pending):
            # The last word is the checksum.
            m.d.sync += [self.pending.eq(1), self.data_words.eq(count), half.eq(arriving), arriving.eq(~arriving)]
        return m
