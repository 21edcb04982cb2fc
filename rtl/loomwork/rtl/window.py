# SPDX-License-Identifier: Apache-2.0
"""From the position of a pixel's bytes to scratchpad reads, and to what is to be done with the words that come."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from loomwork.arch.config import BANKS, Config
from loomwork.rtl.align import alignment_layout, span_layout, turn_layout
from loomwork.rtl.passes import BYTE_BITS, SLOT_BITS
from loomwork.rtl.ports import PARITIES, WORD_ADDRESS_BITS
from loomwork.rtl.scratchpad import touches
from loomwork.rtl.walk import place_layout, position_layout

WORD_BITS = 16
"""Width of a word's place in an image row of at most 65535 bytes."""


def reads_layout() -> data.StructLayout:
    """Requests to the four banks, as in `FeedRead`."""
    words = data.ArrayLayout(WORD_ADDRESS_BITS, BANKS)
    return data.StructLayout({"memories": data.ArrayLayout(PARITIES, BANKS), "word": words})


class Window(Component):
    """Computes the bank reads of one pixel. A pipeline without stalls; results come `latency` cycles after `i`.

    A window that begins before its image row is read from the row's first word, and a word of which all bytes are
    masked is not read: reads never leave the tensor as long as its rows lie within the scratchpad.

    i: position of a pixel. asked: what comes to `reads` in the next cycle is one. reads: what to read. alignment: what
    to do with it (see `alignment_layout`).
    """

    latency = 5

    i: data.View
    asked: Signal
    reads: data.View
    alignment: data.View

    def __init__(self, config: Config) -> None:
        self._rows = config.rows
        self._places = data.ArrayLayout(place_layout(config), BANKS)
        self._turn_and_span = {"turn": turn_layout(config), "span": span_layout(config)}
        super().__init__(
            {
                "i": In(position_layout(config)),
                "asked": In(1),
                "reads": Out(reads_layout()),
                "alignment": Out(alignment_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pads = [Signal(signed(8), name=f"pad_{stage}", reset_less=True) for stage in range(1, self.latency)]
        m.d.sync += [
            late.eq(early) for early, late in zip([self.i.pad, *pads], [*pads, self.alignment.pad], strict=True)
        ]
        segments, rooms, views = self._clip(m)
        self._choose_banks(
            m, [self._address(m, number, segments[number], rooms[number], views[number > 0]) for number in range(BANKS)]
        )
        return m

    def _clip(self, m: Module) -> tuple[data.View, list[Signal], list[data.View]]:
        """Two stages: byte positions of the first and of the other segments, and which bytes lie in the image row; rows
        behind the end of a ring lie at its beginning. Also how many array rows each segment has.
        """
        rows = self._rows
        # As in `Align`, nothing is reset but what others see.
        segments = [Signal(self._places, name=f"segments_{stage}", reset_less=True) for stage in (1, 2)]
        m.d.sync += [segments[0].eq(self.i.segments), segments[1].eq(segments[0])]
        row_bytes = Signal(16, reset_less=True)
        bytes_behind = Signal(signed(17), reset_less=True)  # of the image row, behind a window at its beginning
        ring_words, ring_end = Signal(SLOT_BITS, reset_less=True), Signal(SLOT_BITS, reset_less=True)
        m.d.sync += [
            row_bytes.eq(self.i.row_bytes),
            bytes_behind.eq(self.i.row_bytes - rows),
            ring_words.eq(self.i.ring_words),
            ring_end.eq(self.i.ring_end),
        ]
        for number in range(BANKS):
            slot = segments[0][number].slot
            with m.If(slot >= ring_end):
                m.d.sync += segments[1][number].slot.eq(slot - ring_words)
        rooms = [Signal(range(rows + 1), name=f"room_{number}", reset_less=True) for number in range(BANKS)]
        for number, room in enumerate(rooms):
            m.d.sync += room.eq(segments[0][number].end - segments[0][number].first)
        views: list[data.View] = []
        for name, start in (("head", self.i.start), ("tail", 0)):
            x = Signal(signed(BYTE_BITS + 1), name=f"{name}_x", reset_less=True)
            view = Signal(
                data.StructLayout(
                    {
                        "word": WORD_BITS,
                        "offset": range(rows),
                        "negative": 1,
                        "lead": range(rows + 1),  # bytes of the window before the image row
                        "limit": range(rows + 1),  # bytes of the window before the row's end
                    }
                ),
                name=name,
                reset_less=True,
            )
            m.d.sync += x.eq(self.i.x + start)
            offset, word = x[: exact_log2(rows)], x >> exact_log2(rows)
            left, left_behind = row_bytes - x, bytes_behind - x
            m.d.sync += [
                view.word.eq(Mux(x < 0, 0, word)),
                view.offset.eq(offset),
                view.negative.eq(x < 0),
                view.lead.eq(Mux(x >= 0, 0, Mux(word == -1, rows - offset, rows))),
                view.limit.eq(Mux(left < 0, 0, Mux(left_behind >= 0, rows, left))),
            ]
            views.append(view)
        return segments[1], rooms, views

    def _address(self, m: Module, number: int, segment: data.View, room: Signal, view: data.View) -> data.View:
        """Two stages: the read that one segment needs, and the array rows that take bytes from it."""
        rows = self._rows
        clipped = Signal(
            data.StructLayout(
                {
                    "on": 1,
                    "bank": range(BANKS),
                    "low": range(2 * rows),
                    "high": range(rows + 1),
                    "address": SLOT_BITS,
                    "offset": range(rows),
                    "shift": signed(exact_log2(rows) + 1),
                    "negative": 1,
                }
            ),
            name=f"clipped_{number}",
            reset_less=True,
        )
        m.d.sync += [
            clipped.on.eq(segment.on),
            clipped.bank.eq(segment.bank),
            clipped.low.eq(segment.first + view.lead),
            clipped.high.eq(Mux(view.limit < room, segment.first + view.limit, segment.end)),
            clipped.address.eq(segment.slot + view.word),
            clipped.offset.eq(view.offset),
            clipped.shift.eq(view.offset - segment.first),
            clipped.negative.eq(view.negative),
        ]
        read = Signal(
            data.StructLayout({"present": 1, "wide": 1, "word": WORD_ADDRESS_BITS, **self._turn_and_span}),
            name=f"read_{number}",
            reset_less=True,
        )
        overruns = clipped.address[WORD_ADDRESS_BITS:].any()
        m.d.sync += [
            read.present.eq(clipped.on & (clipped.low < clipped.high)),
            read.wide.eq(~clipped.negative & (clipped.shift + clipped.high > rows)),
            read.word.eq(clipped.address[:WORD_ADDRESS_BITS] | overruns.replicate(WORD_ADDRESS_BITS)),
            read.span.bank.eq(clipped.bank),
            read.span.low.eq(clipped.low),
            read.span.high.eq(clipped.high),
            read.turn.rotate.eq(clipped.shift),
            read.turn.merge.eq(Mux(clipped.negative, 0, clipped.offset)),
        ]
        return read

    @staticmethod
    def _is_used(hits: list[Value], reads: list[data.View], parity: int) -> Value:
        """Whether a read that hits a bank uses its memory of this parity."""
        used = [hit & touches(read.word, read.wide, parity) for hit, read in zip(hits, reads, strict=True)]
        return Cat(used).any()

    def _choose_banks(self, m: Module, reads: list[data.View]) -> None:
        """One stage: each bank gets the read of the segment whose row it holds (there is at most one)."""

        def pick(hits: list[Value], name: str) -> Value:
            values = [Value.cast(read[name]) for read in reads]
            masked = [value & hit.replicate(len(value)) for value, hit in zip(values, hits, strict=True)]
            return masked[0] | masked[1] | masked[2] | masked[3]

        for number in range(BANKS):
            hits: list[Value] = [read.present & (read.span.bank == number) for read in reads]
            # Which memories these are is known as soon as the reads, for the drain's way is long.
            m.d.sync += [
                self.reads.memories[number].eq(
                    Cat(self.asked & self._is_used(hits, reads, parity) for parity in range(PARITIES))
                ),
                self.reads.word[number].eq(pick(hits, "word")),
                self.alignment.banks[number].eq(pick(hits, "turn")),
            ]
        for number, read in enumerate(reads):
            span = self.alignment.spans[number]
            m.d.sync += [span.eq(read.span), span.high.eq(Mux(read.present, read.span.high, 0))]
