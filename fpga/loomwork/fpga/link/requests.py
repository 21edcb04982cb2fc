# SPDX-License-Identifier: Apache-2.0
"""Collects requests: one waits or is carried out while the next one arrives."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.link import CRC_BYTES, MAX_WORDS, REQUEST, WORD_BYTES, Part, header_bytes

HEADER_WORDS = header_bytes(REQUEST) // WORD_BYTES
LONGEST = HEADER_WORDS + MAX_WORDS + CRC_BYTES // WORD_BYTES
"""Words of a frame, at most."""


def header_layout(parts: tuple[Part, ...]) -> data.StructLayout:
    """A header of arch/link.py as bits."""
    return data.StructLayout({part.name: 8 * part.bytes for part in parts})


class Requests(Component):
    """Keeps the frame that is carried out and the one that arrives; a third one is dropped, as if it was lost.

    begin, byte, push, good: of the `Deframer`.
    pending: there is a request. request: its header. data_words: words behind the header. Until `taken`, one cycle.
    index, data: a word of those, one cycle later.
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
                "index": In(range(MAX_WORDS)),
                "data": Out(8 * WORD_BYTES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Two halves: of the frame that arrives and of the one that is carried out.
        m.submodules.buffer = buffer = Memory(shape=8 * WORD_BYTES, depth=2 * MAX_WORDS, init=[])
        read, write = buffer.read_port(), buffer.write_port()
        arriving, half = Signal(), Signal()

        header = Signal.like(self.request.as_value())
        low, place = Signal(8 * (WORD_BYTES - 1)), Signal(range(WORD_BYTES))
        word, is_word = Cat(low, self.byte), Signal()
        count, too_long = Signal(range(LONGEST + 1)), Signal()
        m.d.comb += [
            is_word.eq(self.push & (place == WORD_BYTES - 1)),
            write.addr.eq(Cat((count - HEADER_WORDS)[: read.addr.shape().width - 1], arriving)),
            write.data.eq(word),
            # What is written while the header arrives, its own words follow; the checksum lands behind them or, in the
            # longest frame, nowhere.
            write.en.eq(is_word & (count < LONGEST - 1) & (count >= HEADER_WORDS)),
            read.addr.eq(Cat(self.index, half)),
            self.data.eq(read.data),
        ]
        with m.If(self.begin):
            m.d.sync += [count.eq(0), place.eq(0), too_long.eq(0)]
        with m.Elif(self.push):
            m.d.sync += [low.eq(word[8:]), place.eq(place + 1)]
            with m.If(is_word & (count == LONGEST)):
                m.d.sync += too_long.eq(1)
            with m.Elif(is_word):
                m.d.sync += count.eq(count + 1)
                with m.If(count < HEADER_WORDS):
                    m.d.sync += header.eq(Cat(header[8 * WORD_BYTES :], word))

        is_whole = (place == 0) & ~too_long & (count > HEADER_WORDS)
        with m.If(self.taken):
            m.d.sync += self.pending.eq(0)
        with m.Elif(self.good & is_whole & ~self.pending):
            m.d.sync += [
                self.pending.eq(1),
                self.request.eq(header),
                self.data_words.eq(count - HEADER_WORDS - CRC_BYTES // WORD_BYTES),
                half.eq(arriving),
                arriving.eq(~arriving),
            ]
        return m
