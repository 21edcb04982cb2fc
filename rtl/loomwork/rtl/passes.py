# SPDX-License-Identifier: Apache-2.0
"""Cuts the reduction of a CONVOLVE or a DEPTHWISE into passes of the array."""

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import BY_MNEMONIC, Params
from loomwork.rtl.command import command_layout, view_as

ROW_BITS = 17
"""Width of a signed image row: `y_start + oy * y_step + kernel_row * row_step` in full."""
BYTE_BITS = 25
"""Width of a signed byte position in an image row, all steps of a command added up in full."""
SLOT_BITS = 23
"""Width of `base + (y >> 2) * pitch` for every y inside an image, in full; other rows are not read."""
OFFSET_BITS = 16
"""Width of a byte's place within a kernel row."""
TILE_OPERANDS = ("tile_width", "tile_height", "x_step", "y_step", "pitch", "height", "row_bytes", "pad")
"""Operands that the feed needs for each pass, as they are."""


def segment_layout(config: Config) -> data.StructLayout:
    """Bytes of one pass that come from one image row.

    valid: there is such a segment. first, end: array rows `first <= row < end` take its bytes.
    y: image row for the first row of pixels. slot: word of its byte 0 in bank `y % 4`.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "first": range(config.rows),
            "end": range(config.rows + 1),
            "y": signed(ROW_BITS),
            "slot": SLOT_BITS,
        }
    )


def tile_layout(config: Config) -> data.StructLayout:
    """What all passes of a command have in common: its operands, and `y_words = (y_step >> 2) * pitch`.

    depthwise, taps, x_stride: whether it is a DEPTHWISE, and its operands; both 1 for a CONVOLVE. Only there when the
    configuration has DEPTHWISE.
    """
    operands = {item.name: item for item in BY_MNEMONIC["DEPTHWISE"].operands}
    shapes = {name: (signed if operands[name].signed else unsigned)(operands[name].bits) for name in TILE_OPERANDS}
    if config.depthwise:
        shapes |= {"depthwise": unsigned(1), "taps": Shape.cast(range(config.depthwise_taps + 1))}
        shapes["x_stride"] = unsigned(operands["x_stride"].bits)
    return data.StructLayout({**shapes, "y_words": SLOT_BITS})


def pass_layout(config: Config) -> data.StructLayout:
    """One pass of all pixels of a tile through the array.

    segments: see `segment_layout`; those in use come first. start: byte in its kernel row of the first segment; the
    others begin at byte 0. x: byte in the image row where the kernel row begins, for the first pixel of a row.
    opens, closes: first, last pass of a block. final: last pass of a command. tile: see `tile_layout`.
    """
    return data.StructLayout(
        {
            "segments": data.ArrayLayout(segment_layout(config), BANKS),
            "start": OFFSET_BITS,
            "x": signed(BYTE_BITS),
            "opens": 1,
            "closes": 1,
            "final": 1,
            "tile": tile_layout(config),
        }
    )


def next_slot(slot: Value, y: Value, step: Value, words: Value, pitch: Value) -> Value:
    """Slot of image row `y + step`, where `slot` is that of row `y` and `words` is `(step >> 2) * pitch`."""
    carry = (y[:2] + step[:2])[2]
    return (slot + words + Mux(carry, pitch, 0))[:SLOT_BITS]


class PassCutter(Component):
    """Cuts one command after the other into passes, in the order of `arch/reduction.py`: one segment per cycle, so that
    a pass takes as many cycles as it has segments, and the next one is begun while this one is waiting.

    command: a CONVOLVE or a DEPTHWISE (see `view_as`); stays the same from `begin` to `taken`.
    origin: slot of image row `y_start`. row_words, y_words: `(row_step >> 2) * pitch` and `(y_step >> 2) * pitch`.
    begin: one cycle, to start with a command. taken: its last pass is being taken.
    passes: to the feed. tiles: for each pass, which parameters follow its weights in the stream (a `Params`; UNIFORM
    when there are none). Both carry every pass once, in the same order.
    """

    command: data.View
    origin: Signal
    row_words: Signal
    y_words: Signal
    begin: Signal
    taken: Signal
    passes: stream.Interface
    tiles: stream.Interface

    def __init__(self, config: Config) -> None:
        self._config = config
        self._segments = data.ArrayLayout(segment_layout(config), BANKS)
        super().__init__(
            {
                "command": In(command_layout("CONVOLVE")),
                "origin": In(SLOT_BITS),
                "row_words": In(SLOT_BITS),
                "y_words": In(SLOT_BITS),
                "begin": In(1),
                "taken": Out(1),
                "passes": Out(stream.Signature(pass_layout(config))),
                "tiles": Out(stream.Signature(Params)),
            }
        )

    @property
    def _depthwise(self) -> Value:
        return self.command.opcode == BY_MNEMONIC["DEPTHWISE"].opcode

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, rows = self.command, self._config.rows
        # The place of the next segment: in the pass, and in the reduction. `remaining`: bytes left of its kernel row.
        index, first = Signal(range(BANKS)), Signal(range(rows))
        kernel_rows = Signal.like(command.kernel_rows, name="kernel_rows_left")
        start, remaining = Signal(OFFSET_BITS), Signal(OFFSET_BITS)
        y, slot = Signal(signed(ROW_BITS)), Signal(SLOT_BITS)

        room, end = Signal(range(rows + 1)), Signal(range(rows + 1))
        row_ends, reduction_ends, whole, cut = Signal(), Signal(), Signal(), Signal()
        # Kernel rows that lie in different banks: 4, 2 or 1 (arch/reduction.py).
        last_index: Value = Mux(command.row_step[0], BANKS - 1, command.row_step[1])
        # Each kernel row of a DEPTHWISE is one segment, which for the feed begins at array row 0: its group's own.
        kernel_row_bytes, next_first, is_full = Value.cast(command.length), Value.cast(end), end == rows
        if self._config.depthwise:
            most = self._config.depthwise_groups - 1
            last_index = Mux(self._depthwise & (last_index > most), most, last_index)
            kernel_row_bytes = Mux(self._depthwise, self._config.cols, kernel_row_bytes)
            next_first = Mux(self._depthwise, 0, end)
            is_full &= ~self._depthwise
        m.d.comb += [
            room.eq(rows - first),
            row_ends.eq(remaining <= room),
            end.eq(Mux(row_ends, first + remaining, rows)),
            reduction_ends.eq(row_ends & (kernel_rows == 1)),
            whole.eq(is_full | reduction_ends | (index == last_index)),
        ]
        with m.If(cut):
            m.d.sync += [
                index.eq(index + 1),
                first.eq(next_first),
                start.eq(start + room),
                remaining.eq(remaining - room),
            ]
            with m.If(whole):
                m.d.sync += [index.eq(0), first.eq(0)]
            with m.If(row_ends):
                m.d.sync += [
                    start.eq(0),
                    remaining.eq(kernel_row_bytes),
                    kernel_rows.eq(kernel_rows - 1),
                    y.eq(y + command.row_step),
                    slot.eq(next_slot(slot, y, command.row_step, self.row_words, command.pitch)),
                ]
        with m.If(self.begin | (cut & reduction_ends)):
            m.d.sync += [kernel_rows.eq(command.kernel_rows), y.eq(command.y_start), slot.eq(self.origin)]
        with m.If(self.begin):
            m.d.sync += [index.eq(0), first.eq(0), start.eq(0), remaining.eq(kernel_row_bytes)]

        segments, first_start = Signal(self._segments), Signal.like(start)
        m.d.comb += [self.passes.payload.segments.eq(segments), self.passes.payload.start.eq(first_start)]
        with m.If(cut):
            with m.If(index == 0):
                m.d.sync += [segment.valid.eq(0) for segment in segments]
                m.d.sync += first_start.eq(start)
            m.d.sync += [
                segments[index].valid.eq(1),
                segments[index].first.eq(first),
                segments[index].end.eq(end),
                segments[index].y.eq(y),
                segments[index].slot.eq(slot),
            ]
        self._loop(m, cut=cut, whole=whole, reduction_ends=reduction_ends)
        return m

    def _loop(self, m: Module, *, cut: Signal, whole: Signal, reduction_ends: Signal) -> None:
        """The loops around the reduction, and the handshakes: `cut` says when a segment may be cut off."""
        command = self.command
        blocks, taps = (Signal.like(command[name], name=f"{name}_left") for name in ("blocks", "tap_count"))
        x_block, x_tap = Signal(signed(BYTE_BITS)), Signal(signed(BYTE_BITS))
        busy, exhausted, new_block, block_ends, space = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            block_ends.eq(reduction_ends & (taps == 1)),
            space.eq(busy & ~exhausted & (~self.passes.valid | self.passes.ready)),
            cut.eq(space & (~whole | self.tiles.ready)),
            self.tiles.valid.eq(space & whole),
            self.tiles.payload.eq(Mux(block_ends, command.params, Params.UNIFORM)),
            self.taken.eq(busy & exhausted & self.passes.valid & self.passes.ready),
        ]
        x, opens, closes, final = Signal.like(x_tap), Signal(), Signal(), Signal()
        offered = self.passes.payload
        m.d.comb += [offered.x.eq(x), offered.opens.eq(opens), offered.closes.eq(closes), offered.final.eq(final)]
        m.d.comb += [offered.tile[name].eq(command[name]) for name in TILE_OPERANDS]
        m.d.comb += offered.tile.y_words.eq(self.y_words)
        if self._config.depthwise:
            operands = view_as("DEPTHWISE", command)
            m.d.comb += [
                offered.tile.depthwise.eq(self._depthwise),
                *(offered.tile[name].eq(Mux(self._depthwise, operands[name], 1)) for name in ("taps", "x_stride")),
            ]

        with m.If(self.taken):
            m.d.sync += busy.eq(0)
        with m.If(self.passes.ready):
            m.d.sync += self.passes.valid.eq(0)
        with m.If(cut):
            # The same from the pass's first segment to its last.
            m.d.sync += [self.passes.valid.eq(whole), x.eq(x_tap), opens.eq(new_block)]
            with m.If(whole):
                m.d.sync += [closes.eq(block_ends), final.eq(block_ends & (blocks == 1)), new_block.eq(0)]
        with m.If(cut & reduction_ends):
            m.d.sync += [taps.eq(taps - 1), x_tap.eq(x_tap + command.tap_step)]
        with m.If(self.begin | (cut & block_ends)):
            x_next = Mux(self.begin, command.x_start, x_block + command.block_step)
            m.d.sync += [taps.eq(command.tap_count), x_block.eq(x_next), x_tap.eq(x_next), new_block.eq(1)]
            m.d.sync += [blocks.eq(blocks - 1), exhausted.eq(blocks == 1)]
        with m.If(self.begin):
            m.d.sync += [busy.eq(1), blocks.eq(command.blocks), exhausted.eq(0)]
