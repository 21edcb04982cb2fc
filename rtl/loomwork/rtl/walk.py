# SPDX-License-Identifier: Apache-2.0
"""The walk of the feed over the pixels of a tile, one pixel or input column per cycle, pass after pass."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import BANKS, Config
from loomwork.rtl.passes import BYTE_BITS, OFFSET_BITS, ROW_BITS, SLOT_BITS, is_crossed, pass_layout


def marks_layout(config: Config) -> data.StructLayout:
    """What a pixel, or an input column of a DEPTHWISE, is in its pass and block.

    start, end: first, last one of a pass. opens, closes: the pass is the first, last of a block.
    Only when the configuration has DEPTHWISE: depthwise: it is a column. output: an output pixel begins with it, as
    with every pixel of a CONVOLVE. last: that is the last one of the pass.
    """
    marks = ("start", "end", "opens", "closes", *(("depthwise", "output", "last") if config.depthwise else ()))
    return data.StructLayout(dict.fromkeys(marks, 1))


def place_layout(config: Config) -> data.StructLayout:
    """Where the bytes of one pixel from one image row lie: see `position_layout`."""
    return data.StructLayout(
        {
            "on": 1,
            "bank": range(BANKS),
            "slot": SLOT_BITS,
            "first": range(config.rows),
            "end": range(config.rows + 1),
        }
    )


def position_layout(config: Config) -> data.StructLayout:
    """Where the bytes of one pixel of one pass lie.

    segments: by image row. on: the segment exists and its image row, too. bank, slot: the row's byte 0 is the first of
    word `slot` of `bank`. first, end: array rows `first <= row < end` take its bytes.
    x: byte in the image row where the kernel row begins. start: the first segment begins that much later.
    row_bytes, pad: operands of the command. ring_words, ring_end: see `tile_layout`. marks: see `marks_layout`.
    final: last pixel of its command.
    """
    return data.StructLayout(
        {
            "segments": data.ArrayLayout(place_layout(config), BANKS),
            "x": signed(BYTE_BITS),
            "start": OFFSET_BITS,
            "row_bytes": 16,
            "pad": signed(8),
            "ring_words": SLOT_BITS,
            "ring_end": SLOT_BITS,
            "marks": marks_layout(config),
            "final": 1,
        }
    )


class Walk(Component):
    """Gives the position of every pixel of every pass: row by row, and passes without a gap as long as there are some.

    Of a DEPTHWISE it gives input columns instead, each like a pixel: from the first one that an output pixel of the row
    takes to the last one. An output pixel is begun by its first column.

    passes: from the sequencer; taken in the cycle of the predecessor's last pixel.
    positions: one pixel per word.
    """

    passes: stream.Interface
    positions: stream.Interface

    def __init__(self, config: Config) -> None:
        self._layout = pass_layout(config)
        self._depthwise = config.depthwise
        super().__init__(
            {
                "passes": In(stream.Signature(self._layout)),
                "positions": Out(stream.Signature(position_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        current = Signal(self._layout)
        tile = current.tile
        x = Signal(signed(BYTE_BITS))
        ys = [Signal(signed(ROW_BITS), name=f"y_{s}") for s in range(BANKS)]
        slots = [Signal(SLOT_BITS, name=f"slot_{s}") for s in range(BANKS)]
        # Whether the step to the next row of pixels goes beyond `y_step >> 2` words, and how many there are then.
        crosses, far_words = Signal(BANKS), Signal(SLOT_BITS)
        # Output pixels left of this row, and rows left; whether it is the last one, known from a register.
        pixels, rows = Signal(tile.shape()["tile_width"].shape), Signal(tile.shape()["tile_height"].shape)
        last_pixel, last_row = Signal(), Signal()
        two_pixels, two_rows = Signal(), Signal()  # whether two are left
        start = Signal()

        position = self.positions.payload
        row_ends, pass_ends, pixel_ends = Signal(), Signal(), Signal()
        m.d.comb += [
            row_ends.eq(last_pixel & pixel_ends),
            self.passes.ready.eq(~self.positions.valid | (self.positions.ready & pass_ends)),
            position.x.eq(x),
            *(position[name].eq(tile[name]) for name in ("row_bytes", "pad", "ring_words", "ring_end")),
            position.start.eq(current.start),
            position.marks.start.eq(start),
            position.marks.end.eq(pass_ends),
            position.marks.opens.eq(current.opens),
            position.marks.closes.eq(current.closes),
            position.final.eq(current.final & pass_ends),
        ]
        for segment, origin, y, slot in zip(position.segments, current.segments, ys, slots, strict=True):
            m.d.comb += [
                segment.on.eq(origin.valid & (y >= 0) & (y < tile.height)),
                segment.bank.eq(y[:2]),
                segment.slot.eq(slot),
                segment.first.eq(origin.first),
                segment.end.eq(origin.end),
            ]

        next_is_last = Signal()  # of the pixel behind this one, in its row
        m.d.comb += next_is_last.eq(Mux(last_pixel, tile.single_pixel, two_pixels))
        new = self.passes.payload
        # Whether the next position is another pixel, or in another row; as few terms as possible, for all must know.
        new_pixel, new_row = Signal(), Signal()
        m.d.comb += [
            new_pixel.eq(~self.positions.valid | (self.positions.ready & pixel_ends)),
            new_row.eq(~self.positions.valid | (self.positions.ready & row_ends)),
        ]
        with m.If(~self.positions.valid | self.positions.ready):
            m.d.sync += [start.eq(0), x.eq(x + tile.x_step)]
        with m.If(new_pixel):
            m.d.sync += [pixels.eq(pixels - 1), last_pixel.eq(next_is_last), two_pixels.eq(pixels == 3)]
        with m.If(new_row):
            m.d.sync += [x.eq(current.x), pixels.eq(tile.tile_width), two_pixels.eq(tile.two_pixels)]
            m.d.sync += [rows.eq(rows - 1), last_row.eq(two_rows), two_rows.eq(rows == 3)]
            for number, (y, slot) in enumerate(zip(ys, slots, strict=True)):
                m.d.sync += [
                    y.eq(y + tile.y_step),
                    slot.eq(slot + Mux(crosses[number], far_words, tile.y_words)),
                    crosses[number].eq(is_crossed(y[:2] + tile.y_step[:2], tile.y_step)),
                ]
        with m.If(self.passes.ready):
            m.d.sync += [
                self.positions.valid.eq(self.passes.valid),
                current.eq(new),
                start.eq(1),
                x.eq(new.x),
                pixels.eq(new.tile.tile_width),
                last_pixel.eq(new.tile.single_pixel),
                two_pixels.eq(new.tile.two_pixels),
                rows.eq(new.tile.tile_height),
                last_row.eq(new.tile.single_row),
                two_rows.eq(new.tile.two_rows),
                far_words.eq(new.tile.y_words + new.tile.pitch),
            ]
            for number, (segment, y, slot) in enumerate(zip(new.segments, ys, slots, strict=True)):
                m.d.sync += [y.eq(segment.y), slot.eq(segment.slot)]
                m.d.sync += crosses[number].eq(is_crossed(segment.y, new.tile.y_step))
        next_ends = next_is_last & Mux(last_pixel, two_rows, last_row)  # it is the last one of all
        if self._depthwise:
            m.d.comb += pixel_ends.eq(
                self._columns(m, current, next_is_last, next_ends, pass_ends, last_pixel & last_row)
            )
        else:
            m.d.comb += pixel_ends.eq(1)
            with m.If(new_pixel):
                m.d.sync += pass_ends.eq(next_ends)
            with m.If(self.passes.ready):
                m.d.sync += pass_ends.eq(new.tile.single_pixel & new.tile.single_row)
        return m

    def _columns(
        self, m: Module, current: data.View, next_is_last: Value, next_ends: Value, pass_ends: Signal, ends: Value
    ) -> Signal:
        """Count the columns of each output pixel; whether this one is its last, and that of the pass (`pass_ends`).

        next_is_last, next_ends: the pixel behind the present one is the last of its row, of the pass. ends: the
        present one is.

        From one output pixel to the next it is `x_stride` columns; the last one of a row has all of its own, but for
        those outside of the image that the next row begins with.
        """
        tile, new = current.tile, self.passes.payload.tile
        marks = self.positions.payload.marks
        left = Signal(max(len(tile.taps), len(tile.x_stride)))
        is_first, is_last = Signal(), Signal()
        m.d.comb += [
            marks.depthwise.eq(tile.depthwise),
            marks.output.eq(is_first),
            marks.last.eq(is_first & ends),
        ]

        def begin(tile: data.View, last_of_row: Value, last_of_all: Value) -> None:
            """Begin a pixel."""
            columns = Mux(last_of_all, tile.taps, Mux(last_of_row, tile.row_taps, tile.x_stride))
            alone = Mux(last_of_all, tile.taps == 1, Mux(last_of_row, tile.row_taps == 1, tile.x_stride == 1))
            m.d.sync += [
                is_first.eq(1),
                left.eq(columns),
                is_last.eq(alone),
                pass_ends.eq(last_of_all & (tile.taps == 1)),
            ]

        with m.If(~self.positions.valid | self.positions.ready):
            m.d.sync += [is_first.eq(0), left.eq(left - 1), is_last.eq(left == 2), pass_ends.eq((left == 2) & ends)]
            with m.If(is_last):
                begin(tile, next_is_last, next_ends)
        with m.If(self.passes.ready):
            begin(new, new.single_pixel, new.single_pixel & new.single_row)
        return is_last
