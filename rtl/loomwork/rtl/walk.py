# SPDX-License-Identifier: Apache-2.0
"""The walk of the feed over the pixels of a tile, one pixel or input column per cycle, pass after pass."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import BANKS, Config
from loomwork.rtl.passes import BYTE_BITS, OFFSET_BITS, ROW_BITS, SLOT_BITS, next_slot, pass_layout


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
    row_bytes, pad: operands of the command. marks: see `marks_layout`. final: last pixel of its command.
    """
    return data.StructLayout(
        {
            "segments": data.ArrayLayout(place_layout(config), BANKS),
            "x": signed(BYTE_BITS),
            "start": OFFSET_BITS,
            "row_bytes": 16,
            "pad": signed(8),
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
        # Output pixels left of this row, and rows left.
        pixels, rows = Signal(tile.shape()["tile_width"].shape), Signal(tile.shape()["tile_height"].shape)
        start = Signal()

        position = self.positions.payload
        row_ends, pass_ends, pixel_ends, moves = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            row_ends.eq((pixels == 1) & pixel_ends),
            pass_ends.eq(row_ends & (rows == 1)),
            moves.eq(self.positions.valid & self.positions.ready),
            self.passes.ready.eq(~self.positions.valid | (moves & pass_ends)),
            position.x.eq(x),
            *(position[name].eq(tile[name]) for name in ("row_bytes", "pad")),
            position.start.eq(current.start),
            position.marks.start.eq(start),
            position.marks.end.eq(pass_ends),
            position.marks.opens.eq(current.opens),
            position.marks.closes.eq(current.closes),
            position.final.eq(current.final & pass_ends),
        ]
        if self._depthwise:
            # From one output pixel to the next it is `x_stride` columns; the last one of a row has all of its own.
            column = Signal(max(len(tile.taps), len(tile.x_stride)), init=1)
            m.d.comb += [
                pixel_ends.eq(column == Mux(pixels == 1, tile.taps, tile.x_stride)),
                position.marks.depthwise.eq(tile.depthwise),
                position.marks.output.eq(column == 1),
                position.marks.last.eq((column == 1) & (pixels == 1) & (rows == 1)),
            ]
            with m.If(moves):
                m.d.sync += column.eq(Mux(pixel_ends, 1, column + 1))
        else:
            m.d.comb += pixel_ends.eq(1)
        for segment, origin, y, slot in zip(position.segments, current.segments, ys, slots, strict=True):
            m.d.comb += [
                segment.on.eq(origin.valid & (y >= 0) & (y < tile.height)),
                segment.bank.eq(y[:2]),
                segment.slot.eq(slot),
                segment.first.eq(origin.first),
                segment.end.eq(origin.end),
            ]

        with m.If(moves):
            m.d.sync += [start.eq(0), x.eq(x + tile.x_step), pixels.eq(pixels - pixel_ends)]
            with m.If(row_ends):
                m.d.sync += [x.eq(current.x), pixels.eq(tile.tile_width), rows.eq(rows - 1)]
                for y, slot in zip(ys, slots, strict=True):
                    m.d.sync += y.eq(y + tile.y_step)
                    m.d.sync += slot.eq(next_slot(slot, y, tile.y_step, tile.y_words, tile.pitch))
        with m.If(self.passes.ready):
            new = self.passes.payload
            m.d.sync += [
                self.positions.valid.eq(self.passes.valid),
                current.eq(new),
                start.eq(1),
                x.eq(new.x),
                pixels.eq(new.tile.tile_width),
                rows.eq(new.tile.tile_height),
            ]
            for segment, y, slot in zip(new.segments, ys, slots, strict=True):
                m.d.sync += [y.eq(segment.y), slot.eq(segment.slot)]
        return m
