# SPDX-License-Identifier: Apache-2.0
"""The two sides of LOAD and STORE: rows of an image in external memory and in the scratchpad."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import BANKS, Config
from loomwork.rtl.command import command_layout
from loomwork.rtl.memory_window import OFFSET_BITS, SPAN
from loomwork.rtl.ports import WORD_ADDRESS_BITS
from loomwork.rtl.technology import Operand, technology_of

TRANSFER = command_layout("LOAD")
"""A LOAD, or a STORE: they have the same operands."""

_PLACEMENT_FIELDS = ("base", "pitch", "row", "rows", "words")
PLACEMENT = data.StructLayout({name: TRANSFER[name].shape for name in _PLACEMENT_FIELDS})
"""The operands of a transfer that say where it lies in the scratchpad."""

SCRATCHPAD_WORD = data.StructLayout({"bank": 2, "word": WORD_ADDRESS_BITS, "last": 1})
"""Where one word of a transfer lies in the scratchpad, and whether it is the last one."""

WIDE_ADDRESS_BITS = 24
"""Holds the word address of the last row of any transfer: base + 2047 * pitch + words."""


def placement(transfer: data.View) -> Value:
    """The bits of the PLACEMENT in a TRANSFER."""
    return Cat(transfer[name] for name in _PLACEMENT_FIELDS)


class MemoryRows(Component):
    """The rows of a transfer as spans of a window, one per cycle; rows that lie end to end are one span. The first one
    is there in the next cycle; with `deep_pipeline` two cycles after that, for it is a product.

    i: transfers; the next one is taken after the last row of this one. o: one span per row.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__({"i": In(stream.Signature(TRANSFER)), "o": Out(stream.Signature(SPAN))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        span, transfer = self.o.payload, self.i.payload
        stride = Signal.like(transfer.row_stride)
        left = Signal.like(transfer.rows)
        bus_bytes = self._config.bus_bytes
        row_bytes = transfer.words * self._config.rows
        begins = self.i.valid & self.i.ready
        # Whether one comes is known late: until then, whatever is there is taken.
        with m.If(self.i.ready):
            m.d.sync += [
                span.window.eq(transfer.window),
                span.offset.eq(transfer.offset),
                span.misaligned.eq(((transfer.offset | transfer.row_stride) & (bus_bytes - 1)) != 0),
                stride.eq(transfer.row_stride),
            ]
        if self._config.deep_pipeline:
            multiplies, finishes, end_to_end = Signal(), Signal(), Signal()
            of_row, rows = Signal.like(row_bytes, reset_less=True), Signal.like(transfer.rows, reset_less=True)
            product = technology_of(platform).multiplier(m)(
                Operand(d=row_bytes, q=of_row, enable=self.i.ready),
                Operand(d=transfer.rows, q=rows, enable=self.i.ready),
                name="product",
            )
            m.d.comb += self.i.ready.eq(~(self.o.valid | multiplies | finishes))
            m.d.sync += [multiplies.eq(begins), finishes.eq(multiplies), end_to_end.eq(stride == of_row)]
            with m.If(self.i.ready):
                m.d.sync += [of_row.eq(row_bytes), rows.eq(transfer.rows)]
            with m.If(finishes):
                m.d.sync += [
                    span.length.eq(Mux(end_to_end, product, of_row)),
                    left.eq(Mux(end_to_end, 1, rows)),
                    self.o.valid.eq(1),
                ]
        else:
            end_to_end = transfer.row_stride == row_bytes
            m.d.comb += self.i.ready.eq(~self.o.valid)
            with m.If(self.i.ready):
                m.d.sync += [
                    span.length.eq(Mux(end_to_end, row_bytes * transfer.rows, row_bytes)),
                    left.eq(Mux(end_to_end, 1, transfer.rows)),
                    self.o.valid.eq(self.i.valid),
                ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                span.offset.eq((span.offset + stride)[:OFFSET_BITS]),
                left.eq(left - 1),
                self.o.valid.eq(left != 1),
            ]
        return m


class ScratchpadWords(Component):
    """The words of a transfer in the scratchpad, row after row, one per cycle from the third cycle on.

    Image row `y` lies in bank `y % 4`, from word `base + (y // 4) * pitch` on. An address that does not fit is given
    as the largest one, which no bank has.

    i: PLACEMENT; the next one is taken after the last word of this one. o: one word address per cycle.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(PLACEMENT)), "o": Out(stream.Signature(SCRATCHPAD_WORD))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        transfer = Signal(PLACEMENT, reset_less=True)
        rows_left, words_left = Signal.like(transfer.rows), Signal.like(transfer.words)
        to_next = Signal(WIDE_ADDRESS_BITS)
        # The start of the next row is there before it is gone to.
        next_start, word = Signal(WIDE_ADDRESS_BITS), Signal(WORD_ADDRESS_BITS)
        # Whether the word's address does not fit, the word is the last one of its row, and the row the last one.
        beyond, last_word, last_row = Signal(), Signal(), Signal()
        bank = Signal(range(BANKS))
        bank_bits = len(bank)

        def step(bank: Value) -> Value:
            """From the start of a row in a bank to that of the next row."""
            return Mux(bank == BANKS - 1, transfer.pitch, 0)

        def go_to(address: Value) -> None:
            """Have the next word be the first one of a row, at an address."""
            address = address[:WIDE_ADDRESS_BITS]
            m.d.sync += [word.eq(address[:WORD_ADDRESS_BITS]), beyond.eq(address[WORD_ADDRESS_BITS:].any())]

        row, pitch = (
            Operand(d=new, q=kept, enable=self.i.ready)
            for new, kept in ((self.i.payload.row, transfer.row), (self.i.payload.pitch, transfer.pitch))
        )
        distance = technology_of(platform).multiplier(m)(row[bank_bits:], pitch, name="distance")

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += transfer.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [
                    to_next.eq(transfer.base + step(transfer.row[:bank_bits])),
                    bank.eq(transfer.row[:bank_bits]),
                    rows_left.eq(transfer.rows),
                    words_left.eq(transfer.words),
                ]
                m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += [last_row.eq(rows_left == 1), last_word.eq(words_left == 1)]
                m.d.sync += next_start.eq(distance + to_next)
                go_to(distance + transfer.base)
                m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [words_left.eq(words_left - 1), last_word.eq(words_left == 2)]
                    m.d.sync += [word.eq(word + 1), beyond.eq(beyond | word.all())]
                    with m.If(last_word):
                        m.d.sync += [
                            next_start.eq(next_start + step((bank + 1)[:bank_bits])),
                            bank.eq(bank + 1),
                            rows_left.eq(rows_left - 1),
                            last_row.eq(rows_left == 2),
                            words_left.eq(transfer.words),
                            last_word.eq(transfer.words == 1),
                        ]
                        go_to(next_start)
                    with m.If(self.o.payload.last):
                        m.next = "IDLE"
        m.d.comb += [
            self.o.payload.bank.eq(bank),
            self.o.payload.word.eq(word | beyond.replicate(WORD_ADDRESS_BITS)),
            self.o.payload.last.eq(last_word & last_row),
        ]
        return m
