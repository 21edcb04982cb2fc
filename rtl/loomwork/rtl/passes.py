# SPDX-License-Identifier: Apache-2.0
"""Cuts the reduction of a CONVOLVE or a DEPTHWISE into passes of the array."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import BY_MNEMONIC, Params
from loomwork.rtl.command import command_layout, view_as
from loomwork.rtl.compare import is_greater
from loomwork.rtl.pass_mask import PassMask

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
_COUNTS = {
    "single_pixel": ("tile_width", 1),
    "single_row": ("tile_height", 1),
    "two_pixels": ("tile_width", 2),
    "two_rows": ("tile_height", 2),
}
"""Counts that need not be compared when they are used: the operand, and the number."""


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

    ring_words, ring_end: a slot from `ring_end` on lies `ring_words` before.
    single_pixel, single_row: `tile_width`, `tile_height` is 1. two_pixels, two_rows: it is 2.

    depthwise, taps, x_stride: whether it is a DEPTHWISE, and its operands; both 1 for a CONVOLVE. row_taps: `taps`
    without the columns that the next row has in common. Only there when the configuration has DEPTHWISE.
    """
    operands = {item.name: item for item in BY_MNEMONIC["DEPTHWISE"].operands}
    shapes = {name: (signed if operands[name].signed else unsigned)(operands[name].bits) for name in TILE_OPERANDS}
    if config.depthwise:
        shapes |= {"depthwise": unsigned(1)}
        shapes |= dict.fromkeys(("taps", "row_taps"), Shape.cast(range(config.depthwise_taps + 1)))
        shapes["x_stride"] = unsigned(operands["x_stride"].bits)
    shapes |= dict.fromkeys(_COUNTS, unsigned(1))
    return data.StructLayout({**shapes, "y_words": SLOT_BITS, "ring_words": SLOT_BITS, "ring_end": SLOT_BITS})


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


_FIT = data.StructLayout({"fills": 1, "spills": 1})
"""How a kernel row fits behind other bytes of a pass: it takes all array rows that are left; it needs more of them."""


def _fit(end: Value, room: Value) -> Value:
    """How a kernel row fits behind array row `end`; `room` is the last one behind which its end fits into the pass."""
    return Cat(~is_greater(room, end), is_greater(end, room))


def is_crossed(y: Value, step: Value) -> Value:
    """Whether image row `y + step` lies `(step >> 2) + 1` rows of its bank below `y`, and not `step >> 2`."""
    return (y[:2] + step[:2])[2]


class PassCutter(Component):
    """Cuts one command after the other into passes, in the order of `arch/reduction.py`: one segment per cycle, so that
    a pass takes as many cycles as it has segments, and the next one is begun while this one is waiting.

    command: a CONVOLVE or a DEPTHWISE (see `view_as`); stays the same from `begin` to `taken`.
    origin: slot of image row `y_start`. row_words, y_words: `(row_step >> 2) * pitch` and `(y_step >> 2) * pitch`.
    ring_words, ring_end: see `tile_layout`.
    begin: one cycle, to start with a command. taken: its last pass is being taken.
    skip: the command of a SKIP; skips: one cycle, to have it obeyed by the next command, long before `begin`. A pass
    that it leaves out is cut all the same, but comes to nothing, and so waits for nothing. Only when the configuration
    has it.
    passes: to the feed. tiles: for each pass, which parameters follow its weights in the stream (a `Params`; UNIFORM
    when there are none). Both carry every pass once, in the same order.
    """

    command: data.View
    origin: Signal
    row_words: Signal
    y_words: Signal
    ring_words: Signal
    ring_end: Signal
    begin: Signal
    taken: Signal
    passes: stream.Interface
    tiles: stream.Interface

    def __init__(self, config: Config) -> None:
        self._config = config
        self._segments = data.ArrayLayout(segment_layout(config), BANKS)
        self._more_bits = OFFSET_BITS + 1 - exact_log2(config.rows)
        skip = {"skip": In(command_layout("SKIP")), "skips": In(1)} if config.block_sparsity else {}
        super().__init__(
            {
                **skip,
                "command": In(command_layout("CONVOLVE")),
                "origin": In(SLOT_BITS),
                "row_words": In(SLOT_BITS),
                "y_words": In(SLOT_BITS),
                "ring_words": In(SLOT_BITS),
                "ring_end": In(SLOT_BITS),
                "begin": In(1),
                "taken": Out(1),
                "passes": Out(stream.Signature(pass_layout(config))),
                "tiles": Out(stream.Signature(Params)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, rows = self.command, self._config.rows
        # What a command says is prepared for a fast loop; all of it is there by the time of `begin`.
        depthwise, far_words = Signal(), Signal(SLOT_BITS)
        last_index, kernel_row_bytes = Signal(BANKS), Signal(OFFSET_BITS)
        # Of a kernel row that begins a pass: passes after its first one, or with one more; array rows that it takes of
        # the last one; and whether it is in one pass.
        row_more, row_more_spilt = Signal(self._more_bits), Signal(self._more_bits)
        row_tail, row_fits = Signal(range(rows + 1)), Signal()
        # Array rows that this leaves, and that it leaves when it comes once more; how it fits behind itself.
        row_room, next_room = Signal(range(rows)), Signal(range(-rows, rows))
        row_fit = Signal(_FIT)

        def last_of(segments: Sequence[int]) -> Value:
            """The bit of the last segment of a pass, of as many as there may be with a step that is odd, even, or a
            multiple of four.
            """
            odd, even, multiple = (1 << (count - 1) for count in segments)
            return Mux(command.row_step[0], odd, Mux(command.row_step[1], even, multiple))

        by_step = (BANKS, 2, 1)  # kernel rows that lie in different banks (arch/reduction.py)
        m.d.sync += [
            depthwise.eq(command.opcode == BY_MNEMONIC["DEPTHWISE"].opcode),
            far_words.eq(self.row_words + command.pitch),
            last_index.eq(last_of(by_step)),
            kernel_row_bytes.eq(command.length),
            row_more.eq((kernel_row_bytes - 1) >> exact_log2(rows)),
            row_more_spilt.eq(row_more + 1),
            row_tail.eq(((kernel_row_bytes - 1) & (rows - 1)) + 1),
            row_room.eq(~(kernel_row_bytes - 1)[: exact_log2(rows)]),  # rows - row_tail
            row_fits.eq(row_more == 0),
            next_room.eq(row_room - row_tail),
            row_fit.eq(_fit(row_tail, row_room)),
        ]
        if self._config.depthwise:
            # Each kernel row of a DEPTHWISE is one segment, which for the feed begins at array row 0: its group's own.
            with m.If(depthwise):
                m.d.sync += kernel_row_bytes.eq(self._config.cols)
                m.d.sync += last_index.eq(last_of([min(count, self._config.depthwise_groups) for count in by_step]))

        # The place of the next segment: in the pass, and in the reduction. `index` has one bit for each. Of its kernel
        # row, there are `more` segments behind it, each of a pass of its own, and the last one ends at row `tail`.
        index, first, end = Signal(BANKS, init=1), Signal(range(rows)), Signal(range(rows + 1))
        kernel_rows, last_kernel_row = Signal.like(command.kernel_rows, name="kernel_rows_left"), Signal()
        start, more, tail, row_ends = Signal(OFFSET_BITS), Signal(self._more_bits), Signal.like(end), Signal()
        y, slot, crosses = Signal(signed(ROW_BITS)), Signal(SLOT_BITS), Signal()
        # Whether the next segment is the last of its pass, whatever comes behind it.
        fills = Signal()

        room = Signal(range(rows + 1))
        reduction_ends, whole, cut = Signal(), Signal(), Signal()
        # Whether this pass is left out; and whether it is whole with this segment and the last one of its block, for
        # those behind it are left out.
        left_out, stops = Signal(), Signal()
        m.d.comb += [
            room.eq(rows - first),
            reduction_ends.eq(row_ends & last_kernel_row),
            whole.eq(fills | reduction_ends),
        ]
        # Until a command begins, all is set to its first segment in every cycle: `begin` is known late.
        active, idle, restarts = Signal(), Signal(), Signal()
        m.d.comb += [idle.eq(~active), restarts.eq(idle | stops)]
        # `cut` is known late: what comes next depends on it as little as possible, when it comes is enough.
        with m.If(idle | cut):
            m.d.sync += [index.eq(index << 1), first.eq(Mux(depthwise, 0, end)), start.eq(start + room)]
            with m.If(idle | whole):
                m.d.sync += [index.eq(1), first.eq(0)]
            with m.If(restarts | row_ends):
                m.d.sync += start.eq(0)
        with m.If(idle | (cut & (row_ends | stops))):
            m.d.sync += [
                kernel_rows.eq(kernel_rows - 1),
                last_kernel_row.eq(kernel_rows == 2),
                y.eq(y + command.row_step),
                slot.eq(slot + Mux(crosses, far_words, self.row_words)),
                crosses.eq(is_crossed(y[:2] + command.row_step[:2], command.row_step)),
            ]
            with m.If(restarts | last_kernel_row):
                m.d.sync += [
                    kernel_rows.eq(command.kernel_rows),
                    last_kernel_row.eq(command.kernel_rows == 1),
                    y.eq(command.y_start),
                    slot.eq(self.origin),
                    crosses.eq(is_crossed(command.y_start, command.row_step)),
                ]

        # Behind others in its pass, a kernel row may need one pass more. How it fits behind `end` is known from a
        # register. Its last pass may be full: that ends at `rows`, whose lower bits are 0.
        fit = Signal(_FIT)
        behind, behind_tail, is_full = Signal(range(rows)), Signal.like(tail), Signal()
        m.d.comb += [
            behind.eq(end + row_tail),
            is_full.eq((fit.fills & ~fit.spills) | (end[-1] & row_tail[-1])),
            behind_tail.eq(Cat(behind, is_full)),
        ]
        full = Const(0b11, _FIT.size)  # behind all rows
        fills_alone, last_follows = last_index[0], (index[:-1] & last_index[1:]).any()
        with m.If(idle | cut):
            with m.If(~restarts & ~row_ends):
                m.d.sync += [more.eq(more - 1), row_ends.eq(more == 1), end.eq(Mux(more == 1, tail, rows))]
                m.d.sync += fit.eq(Mux(more == 1, _fit(tail, row_room), full))
                m.d.sync += fills.eq(fills_alone | (more != 1) | tail[-1])
            with m.Else():
                m.d.sync += [more.eq(row_more), tail.eq(row_tail)]
                m.d.sync += [row_ends.eq(row_fits), end.eq(Mux(row_fits, row_tail, rows))]
                m.d.sync += fit.eq(Mux(row_fits, row_fit, full))
                m.d.sync += fills.eq(fills_alone | ((~row_fits | row_tail[-1]) & ~depthwise))
                with m.If(~idle & ~whole):
                    m.d.sync += fills.eq(last_follows | ((~row_fits | fit.fills) & ~depthwise))
                    with m.If(~depthwise):
                        # All rows of a pass that is not the last one: the lower bits are 0.
                        fits = row_fits & ~fit.spills
                        m.d.sync += [more.eq(Mux(fit.spills, row_more_spilt, row_more)), tail.eq(behind_tail)]
                        m.d.sync += [
                            row_ends.eq(fits),
                            end.eq(Cat(behind & fits.replicate(len(behind)), ~fits | is_full)),
                            fit.eq(Mux(fits, _fit(end, next_room), full)),
                        ]

        segments, first_start = Signal(self._segments), Signal.like(start)
        m.d.comb += [self.passes.payload.segments.eq(segments), self.passes.payload.start.eq(first_start)]
        with m.If(cut & ~left_out):
            with m.If(index[0]):
                m.d.sync += [segment.valid.eq(0) for segment in segments]
                m.d.sync += first_start.eq(start)
            for number in range(BANKS):
                segment = segments[number]
                with m.If(index[number]):
                    m.d.sync += [segment.valid.eq(1), segment.first.eq(first), segment.end.eq(end)]
                    m.d.sync += [segment.y.eq(y), segment.slot.eq(slot)]
        self._offer(m, depthwise)
        block_ends = self._loop(
            m, active, cut=cut, whole=whole, reduction_ends=reduction_ends, left_out=left_out, stops=stops
        )
        if self._config.block_sparsity:
            m.submodules.mask = mask = PassMask()
            m.d.comb += [
                mask.skip.eq(self.skip),
                mask.set.eq(self.skips),
                mask.clear.eq(self.taken),
                mask.first.eq(idle | (cut & block_ends)),
                mask.next.eq(cut & whole),
                left_out.eq(mask.left_out),
                stops.eq(mask.last & whole),
            ]
        return m

    def _offer(self, m: Module, depthwise: Signal) -> None:
        """What all passes of a command have in common."""
        command, tile = self.command, self.passes.payload.tile
        for name, (operand, number) in _COUNTS.items():
            register = Signal(name=name)
            m.d.sync += register.eq(command[operand] == number)
            m.d.comb += tile[name].eq(register)
        m.d.comb += [tile[name].eq(command[name]) for name in TILE_OPERANDS]
        m.d.comb += [tile[name].eq(getattr(self, name)) for name in ("y_words", "ring_words", "ring_end")]
        if self._config.depthwise:
            operands = view_as("DEPTHWISE", command)
            row_taps = Signal.like(tile.row_taps)
            m.d.sync += row_taps.eq(Mux(depthwise, operands.taps - operands.shared, 1))
            m.d.comb += [
                tile.depthwise.eq(depthwise),
                *(tile[name].eq(Mux(depthwise, operands[name], 1)) for name in ("taps", "x_stride")),
                tile.row_taps.eq(row_taps),
            ]

    def _loop(
        self,
        m: Module,
        active: Signal,
        *,
        cut: Signal,
        whole: Signal,
        reduction_ends: Signal,
        left_out: Signal,
        stops: Signal,
    ) -> Signal:
        """The loops around the reduction, and the handshakes: `cut` says when a segment may be cut off.

        Returns whether a block ends with this segment.
        """
        command, idle = self.command, ~active
        blocks, taps = (Signal.like(command[name], name=f"{name}_left") for name in ("blocks", "tap_count"))
        x_block, x_tap = Signal(signed(BYTE_BITS)), Signal(signed(BYTE_BITS))
        last_block, last_tap = Signal(), Signal()
        ending, new_block, block_ends, space = Signal(), Signal(), Signal(), Signal()
        kept, is_free = Signal(), Signal()
        cut_whole = Signal()  # `cut`, where this segment makes its pass whole: known earlier
        # That a pass is taken is known late; deep: the next one is begun when that is in a register.
        m.d.comb += is_free.eq(~self.passes.valid | (0 if self._config.deep_pipeline else self.passes.ready))
        m.d.comb += [
            block_ends.eq((reduction_ends & last_tap) | stops),
            space.eq(active & ~left_out & is_free),
            kept.eq(space & (~whole | self.tiles.ready)),
            cut.eq(kept | (active & left_out)),
            cut_whole.eq((space & self.tiles.ready) | (active & left_out)),
            self.tiles.valid.eq(space & whole),
            self.tiles.payload.eq(Mux(block_ends, command.params, Params.UNIFORM)),
            self.taken.eq(ending & self.passes.valid & self.passes.ready),
        ]
        x, opens, closes, final = Signal.like(x_tap), Signal(), Signal(), Signal()
        offered = self.passes.payload
        m.d.comb += [offered.x.eq(x), offered.opens.eq(opens), offered.closes.eq(closes), offered.final.eq(final)]

        with m.If(self.taken):
            m.d.sync += ending.eq(0)
        with m.If(self.passes.ready):
            m.d.sync += self.passes.valid.eq(0)
        with m.If(kept):
            # The same from the pass's first segment to its last.
            m.d.sync += [self.passes.valid.eq(whole), x.eq(x_tap), opens.eq(new_block)]
            with m.If(whole):
                m.d.sync += [closes.eq(block_ends), final.eq(block_ends & last_block), new_block.eq(0)]
        x_next = Mux(idle, command.x_start, x_block + command.block_step)
        with m.If(idle | (cut_whole & (reduction_ends | stops))):
            m.d.sync += [taps.eq(taps - 1), last_tap.eq(taps == 2), x_tap.eq(x_tap + command.tap_step)]
            with m.If(idle | last_tap | stops):
                m.d.sync += [taps.eq(command.tap_count), last_tap.eq(command.tap_count == 1), x_tap.eq(x_next)]
        with m.If(idle | (cut_whole & block_ends)):
            m.d.sync += [x_block.eq(x_next), new_block.eq(1)]
            m.d.sync += [blocks.eq(blocks - 1), last_block.eq(blocks == 2)]
        with m.If(idle):
            m.d.sync += [blocks.eq(command.blocks), last_block.eq(command.blocks == 1)]
        with m.If(cut_whole & block_ends & last_block):
            m.d.sync += [active.eq(0), ending.eq(1)]
        with m.If(self.begin):
            m.d.sync += active.eq(1)
        return block_ends
