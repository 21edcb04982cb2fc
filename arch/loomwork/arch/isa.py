# SPDX-License-Identifier: Apache-2.0
"""The command set: one table behind encoder, RTL decoder, golden model, disassembler, C header and docs.

A program is an array of 32-byte commands, little-endian, fetched in order. Each goes to the queue of one unit; units
run at the same time, each its own queue in order. A command begins when the tickets in its header are there: a *ticket*
for unit U is the number of commands that U must have finished since `start` (modulo 2**TICKET_BITS).

Scratchpad addresses: byte `j` of image row `y` of a tensor lies in bank `y % 4` at byte `j` behind word
`base + (y // 4) * pitch` of that bank (words of `rows` bytes). A *ring* of R groups of four rows holds the latest rows
of a tensor: group `y // 4` from R on is group `y // 4 - R`.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

COMMAND_BYTES = 32
OPCODE_BITS = 4
TICKET_BITS = 10


class IsaError(ValueError):
    """A command that cannot be encoded or decoded; the message names the command, the operand and its range."""


class Unit(IntEnum):
    """What executes a command. Units with a ticket counter come first."""

    LOAD = 0
    EXECUTE = 1
    DRAIN = 2
    STORE = 3
    STREAM = 4
    CONTROL = 5


TICKET_UNITS = (Unit.LOAD, Unit.EXECUTE, Unit.DRAIN, Unit.STORE)
"""Units that others can wait for."""


class Window(IntEnum):
    """Regions of external memory, each with a base and a size register. Commands hold offsets into one of them."""

    COMMANDS = 0
    CONSTANTS = 1
    INPUTS = 2
    OUTPUTS = 3
    WORKSPACE = 4


READABLE_WINDOWS = (Window.COMMANDS, Window.CONSTANTS, Window.INPUTS, Window.OUTPUTS, Window.WORKSPACE)
WRITABLE_WINDOWS = (Window.OUTPUTS, Window.WORKSPACE)


class Params(IntEnum):
    """Which requantization parameters follow the weights of each block of output channels in the stream.

    A block's parameters are `cols` int32 biases, then (PER_CHANNEL) `cols` int32 multipliers and `cols` int8 shifts.
    """

    UNIFORM = 0
    """None: bias, multiplier and shift of REQUANT hold for every channel."""
    BIAS = 1
    """Biases; multiplier and shift of REQUANT."""
    PER_CHANNEL = 2
    """Biases, multipliers and shifts."""


class Source(IntEnum):
    """Where DRAIN takes its values."""

    ACCUMULATOR = 0
    SCRATCHPAD = 1


class Pool(IntEnum):
    """What DRAIN does with the values of one pooling window."""

    NONE = 0
    """Nothing: the window is one pixel."""
    MAX = 1
    """Maximum, of the finished int8 values."""
    SUM = 2
    """Sum, before requantization (average pooling, mean)."""


class Combine(IntEnum):
    """What DRAIN does between requantization and pooling by maximum."""

    NONE = 0
    ADD = 1
    """TFLite ADD with a second tensor in the scratchpad."""
    TABLE = 2
    """Look each value up in the activation table."""
    MULTIPLY = 3
    """Product with a second tensor in the scratchpad."""

    @property
    def has_operand(self) -> bool:
        """Whether it reads a second tensor, which COMBINE describes."""
        return self in (Combine.ADD, Combine.MULTIPLY)


@dataclass(frozen=True)
class Field:
    """One operand: its place follows from the order in the table.

    minimum, maximum: the values that hardware accepts, within what `bits` can hold.
    choices: an IntEnum when the operand is a selection; `maximum` is then its largest member.
    """

    name: str
    bits: int
    doc: str
    signed: bool = False
    minimum: int | None = None
    maximum: int | None = None
    choices: type[IntEnum] | None = None

    @property
    def low(self) -> int:
        """Smallest legal value."""
        if self.minimum is not None:
            return self.minimum
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest legal value."""
        if self.choices is not None:
            return max(self.choices)
        if self.maximum is not None:
            return self.maximum
        return (1 << (self.bits - self.signed)) - 1


@dataclass(frozen=True)
class Insn:
    """One kind of command: mnemonic, opcode, the unit that executes it, and its operands behind the header."""

    mnemonic: str
    opcode: int
    unit: Unit
    doc: str
    operands: tuple[Field, ...]

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Header and operands, from bit 0 up."""
        return HEADER + self.operands

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Lowest bit of every field."""
        offsets: dict[str, int] = {}
        position = 0
        for item in self.fields:
            offsets[item.name] = position
            position += item.bits
        return offsets

    @property
    def bits(self) -> int:
        """Bits in use, at most `8 * COMMAND_BYTES`."""
        return sum(item.bits for item in self.fields)


HEADER: tuple[Field, ...] = (
    Field("opcode", OPCODE_BITS, "which command"),
    *(
        item
        for unit in TICKET_UNITS
        for item in (
            Field(f"wait_{unit.name.lower()}", 1, f"whether to wait for the {unit.name} unit"),
            Field(f"{unit.name.lower()}_ticket", TICKET_BITS, f"commands {unit.name} must have finished"),
        )
    ),
)

_TRANSFER = (
    Field("window", 3, "region of external memory", choices=Window),
    Field("offset", 32, "bytes from the window's base; a multiple of the bus width"),
    Field("row_stride", 24, "bytes between rows in external memory; a multiple of the bus width"),
    Field("base", 16, "first word of the tensor in each bank"),
    Field("pitch", 12, "words from image row y to y + 4"),
    Field("row", 12, "first image row"),
    Field("rows", 12, "image rows", minimum=1),
    Field("words", 12, "words of `rows` bytes per image row", minimum=1),
)

_TILE = (
    Field("base", 16, "first word of the input tensor in each bank"),
    Field("pitch", 12, "words from image row y to y + 4"),
    Field("height", 12, "image rows; others read as `pad`", minimum=1),
    Field("row_bytes", 16, "bytes of an image row; others read as `pad`", minimum=1),
    Field("x_start", 18, "byte in the image row where the first pixel's first tap begins", signed=True),
    Field("x_step", 13, "bytes from one output pixel to the next; DEPTHWISE: from one input column to the next"),
    Field("y_start", 13, "image row of the first kernel row for the first row of pixels", signed=True),
    Field("y_step", 4, "image rows from one row of pixels to the next"),
    Field("tap_count", 6, "horizontal taps, or groups of them, that have passes of their own", minimum=1),
    Field("tap_step", 16, "bytes from one such tap or group to the next"),
    Field("row_step", 6, "image rows from one kernel row to the next (dilation)", minimum=1),
    Field("kernel_rows", 8, "kernel rows", minimum=1),
    Field("tile_width", 10, "output pixels per row", minimum=1),
    Field("tile_height", 10, "rows of output pixels; at most `accumulator_depth` pixels in all", minimum=1),
    Field("blocks", 10, "blocks of `cols` output channels", minimum=1),
    Field("block_step", 7, "bytes that x_start advances per block (0, or the channels of a depthwise block)"),
    Field("pad", 8, "value read outside the image: the zero point", signed=True),
    Field("params", 2, "parameters behind each block's weights", choices=Params),
    Field("ring", 5, "groups of 4 image rows; those behind lie at `base` again (once), 0: all one behind the other"),
)
"""What CONVOLVE and DEPTHWISE have in common, at the same bits."""

MASK_WORDS = 6
"""Operands that make up the mask of a SKIP; as many as fit."""
MASK_WORD_BITS = 32
"""Bits of each; the C header sets operands of at most so many."""
MASK_PASSES = MASK_WORDS * MASK_WORD_BITS
"""Passes of a block that a SKIP can leave out one by one: its first ones."""

TABLE_ENTRIES = 256
"""Entries of the activation table: one for each int8 value."""
ENTRIES_PER_COMMAND = 16
"""Entries that one TABLE sets."""

_REQUANTIZE = (
    Field("multiplier", 32, "Q31 multiplier, not negative", signed=True, minimum=0),
    Field("shift", 6, "binary exponent, left when positive", signed=True, minimum=-31, maximum=7),
    Field("zero_point", 8, "added after rescaling", signed=True),
    Field("minimum", 8, "lower clamp", signed=True),
    Field("maximum", 8, "upper clamp", signed=True),
    Field("rounding", 1, "0 = TFLite (twice), 1 = ONNX (once, half to even)"),
)

INSNS: tuple[Insn, ...] = (
    Insn("END", 1, Unit.CONTROL, "The program is over when every unit has run dry.", ()),
    Insn("LOAD", 2, Unit.LOAD, "Copy image rows from external memory into the scratchpad.", _TRANSFER),
    Insn(
        "STREAM",
        3,
        Unit.STREAM,
        "Feed weights and requantization parameters from external memory to the array, in the order it uses them.",
        (
            Field("window", 3, "region of external memory", choices=Window),
            Field("offset", 32, "bytes from the window's base; a multiple of the bus width"),
            Field("words", 28, "words of `cols` bytes; what is left of the last bus beat is dropped", minimum=1),
        ),
    ),
    Insn(
        "CONVOLVE",
        4,
        Unit.EXECUTE,
        "Convolve one tile: for each block of `cols` output channels, for each horizontal tap, for each pass of the "
        "reduction (arch/reduction.py), load a weight tile of the stream and run all pixels of the tile, row by row. "
        "Each block goes to one accumulator half, which the next DRAIN from the accumulator takes.",
        (*_TILE, Field("length", 16, "contiguous bytes taken from each kernel row", minimum=1)),
    ),
    Insn(
        "REQUANT",
        5,
        Unit.DRAIN,
        "Set the requantization of the DRAINs that follow: `clamp(requantize(value + bias) + zero_point)`.",
        (Field("bias", 32, "added to every value when parameters are UNIFORM", signed=True), *_REQUANTIZE),
    ),
    Insn(
        "COMBINE",
        6,
        Unit.DRAIN,
        "Set the ADD or MULTIPLY of the DRAINs that follow: `a` is the finished value of REQUANT, `b` the operand "
        "tensor's; ADD: `s = requantize((a - zero_a) << 20, a) + requantize((b - zero_b) << 20, b)`; MULTIPLY: "
        "`s = (a - zero_a) * (b - zero_b)`; the result is `clamp(requantize(s) + zero_point)`.",
        (
            Field("operand_base", 16, "first word of the operand tensor in each bank"),
            Field("operand_pitch", 12, "words from image row y to y + 4"),
            Field("multiplier_a", 32, "ADD: Q31 multiplier of the requantized value", signed=True, minimum=0),
            Field("shift_a", 6, "its exponent", signed=True, minimum=-31, maximum=0),
            Field("zero_a", 8, "its zero point", signed=True),
            Field("multiplier_b", 32, "ADD: Q31 multiplier of the operand tensor", signed=True, minimum=0),
            Field("shift_b", 6, "its exponent", signed=True, minimum=-31, maximum=0),
            Field("zero_b", 8, "its zero point", signed=True),
            *_REQUANTIZE,
        ),
    ),
    Insn(
        "DRAIN",
        7,
        Unit.DRAIN,
        "Finish one tile: for each block of `cols` channels, for each output pixel, take the values of its pooling "
        "window from the accumulators or a scratchpad tensor, sum (SUM), requantize, combine, take the maximum (MAX), "
        "write `channels` bytes. Illegal: pool NONE with a window larger than 1 x 1, SUM together with ADD or "
        "MULTIPLY, a second stage that the configuration leaves out. What no REQUANT or COMBINE has set since `start` "
        "is zero, what no TABLE has set is arbitrary.",
        (
            Field("source", 1, "0 = accumulators, 1 = scratchpad", choices=Source),
            Field("in_base", 16, "scratchpad source: first word of the input tensor in each bank"),
            Field("in_pitch", 12, "scratchpad: words from image row y to y + 4; accumulators: pixels per row"),
            Field("in_row", 12, "image row of the first value (scratchpad source and operand tensor)"),
            Field("in_offset", 16, "byte in that row of the first value (scratchpad source and operand tensor)"),
            Field("in_step", 13, "bytes from one value's pixel to the next"),
            Field("out_base", 16, "first word of the output tensor in each bank"),
            Field("out_pitch", 12, "words from image row y to y + 4"),
            Field("out_row", 12, "image row of the first output pixel"),
            Field("out_offset", 16, "byte in that row of the first output pixel"),
            Field("out_step", 13, "bytes from one output pixel to the next"),
            Field("width", 10, "output pixels per row", minimum=1),
            Field("height", 10, "rows of output pixels", minimum=1),
            Field("channels", 12, "channels in all; the last block may be narrower than `cols`", minimum=1),
            Field("pool", 2, "pooling", choices=Pool),
            Field("pool_height", 8, "rows of the pooling window", minimum=1),
            Field("pool_width", 8, "columns of the pooling window", minimum=1),
            Field("pool_y_step", 4, "rows from one window to the next"),
            Field("pool_x_step", 4, "columns from one window to the next"),
            Field("combine", 2, "second stage", choices=Combine),
            Field("params", 2, "parameters: as in the CONVOLVE it follows; UNIFORM for scratchpad", choices=Params),
        ),
    ),
    Insn("STORE", 8, Unit.STORE, "Copy image rows from the scratchpad to external memory.", _TRANSFER),
    Insn(
        "DEPTHWISE",
        9,
        Unit.EXECUTE,
        "Convolve each of `cols` neighbouring channels with a kernel of its own: for each block of channels, for each "
        "group of `taps` kernel columns, for each pass of kernel rows (arch/reduction.py), load a weight tile of the "
        "stream and run all pixels of the tile, row by row. For kernel row `ky` and kernel column `k` of tap group "
        "`t`, output pixel (oy, ox) of column `c` of block `b` reads image row `y_start + oy * y_step + ky * row_step` "
        "at byte `x_start + b * block_step + t * tap_step + (ox * x_stride + k) * x_step + c`. Blocks go to the "
        "accumulators as for CONVOLVE. Neighbouring rows of pixels can have their padding in common: where the last "
        "`shared` input columns of a row and the first ones of the next all lie outside of the image, they are taken "
        "once. Illegal: more `taps` than the array has rows for, not fewer `shared` columns than `taps`, and any "
        "DEPTHWISE when the configuration leaves it out.",
        (
            *_TILE,
            Field("taps", 5, "kernel columns of one pass; at most `depthwise_taps` of the configuration", minimum=1),
            Field("x_stride", 4, "input columns from one output pixel to the next", minimum=1),
            Field("shared", 4, "input columns outside of the image that end one row of pixels and begin the next"),
        ),
    ),
    Insn(
        "SKIP",
        10,
        Unit.EXECUTE,
        "Leave passes out of the CONVOLVE or DEPTHWISE that follows, and of that one only: they have no weight tile in "
        "the stream and take no time in the array. Passes are numbered from 0 in each block, over all taps, in the "
        f"order in which they run. Pass `p` is left out when bit `p % {MASK_WORD_BITS}` of "
        f"`mask_(p / {MASK_WORD_BITS})` is 1; those behind the last bit are run. Each block ends with pass `last`, "
        "which is run whatever its bit says: all behind it are left out. All blocks of the command leave out the same "
        "passes. Illegal: a `last` that is no pass of the command (the engine may wait for ever), and any SKIP when "
        "the configuration leaves it out.",
        (
            Field("last", 10, "pass with which each block ends"),
            *(
                Field(
                    f"mask_{word}",
                    MASK_WORD_BITS,
                    f"passes {word * MASK_WORD_BITS} .. {(word + 1) * MASK_WORD_BITS - 1} of a block, 1 = left out",
                )
                for word in range(MASK_WORDS)
            ),
        ),
    ),
    Insn(
        "TABLE",
        11,
        Unit.DRAIN,
        "Set 16 of the 256 entries of the activation table, for the DRAINs that follow: with TABLE as second stage "
        "they replace the finished value `v` of REQUANT by entry `v + 128`. Illegal when the configuration leaves it "
        "out.",
        (
            Field("index", 4, "which entries: from `16 * index` on"),
            *(
                Field(f"entry_{number}", 8, f"entry `16 * index + {number}`", signed=True)
                for number in range(ENTRIES_PER_COMMAND)
            ),
        ),
    ),
)

BY_MNEMONIC = {insn.mnemonic: insn for insn in INSNS}
BY_OPCODE = {insn.opcode: insn for insn in INSNS}


def params_words(params: Params) -> int:
    """Words of `cols` bytes that the parameters of one block take in the stream."""
    return {Params.UNIFORM: 0, Params.BIAS: 4, Params.PER_CHANNEL: 9}[params]


def isa_hash() -> int:
    """32-bit fingerprint of the command set; in every program file and in a read-only register."""
    table = [
        [insn.mnemonic, insn.opcode, insn.unit.name, [[f.name, f.bits, f.signed, f.low, f.high] for f in insn.fields]]
        for insn in INSNS
    ]
    text = json.dumps([COMMAND_BYTES, table], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
