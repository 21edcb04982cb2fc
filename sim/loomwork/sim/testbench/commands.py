# SPDX-License-Identifier: Apache-2.0
"""Commands with random operands, for the programs of the test benches."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from itertools import product

from loomwork.arch.command import Command
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import (
    ENTRIES_PER_COMMAND,
    TABLE_ENTRIES,
    Combine,
    Params,
    Pool,
    Source,
    Unit,
    Window,
    params_words,
)
from loomwork.arch.numerics import INT8_MAX, INT8_MIN, Rounding


@dataclass(frozen=True)
class Map:
    """A tensor `[height, width, channels]` and its place in the scratchpad."""

    height: int
    width: int
    channels: int
    base: int
    pitch: int

    @classmethod
    def at(cls, config: Config, base: int, height: int, width: int, channels: int) -> "Map":
        """A map that begins at word `base`, its rows packed as tightly as the scratchpad allows."""
        return cls(height, width, channels, base, -(-width * channels // config.rows))

    @property
    def end(self) -> int:
        """First word behind it in every bank."""
        return self.base + -(-self.height // BANKS) * self.pitch

    def bytes(self, config: Config) -> int:
        """Its size in a window."""
        return self.height * self.pitch * config.rows


def transfer(mnemonic: str, config: Config, tensor: Map, waits: dict[Unit, int], offset: int = 0) -> Command:
    """LOAD or STORE of a whole tensor that lies at `offset` in its window, row behind row."""
    return Command(
        mnemonic,
        {
            "window": Window.INPUTS if mnemonic == "LOAD" else Window.OUTPUTS,
            "offset": offset,
            "row_stride": tensor.pitch * config.rows,
            "base": tensor.base,
            "pitch": tensor.pitch,
            "row": 0,
            "rows": tensor.height,
            "words": tensor.pitch,
        },
        waits,
    )


def random_stream(
    config: Config, g: random.Random, params: Params, blocks: int, weight_tiles: int, unused: Collection[int] = ()
) -> tuple[Command, bytes]:
    """STREAM of random weights, so many tiles for each block, and of parameters; and the window it reads.

    unused: words of each block that are zero.
    """
    words = blocks * (weight_tiles * config.rows + params_words(params))
    constants = bytearray(g.randbytes(words * config.cols + -words * config.cols % config.bus_bytes))
    for block, word in product(range(blocks), unused):
        first = (block * (words // blocks) + word) * config.cols
        constants[first : first + config.cols] = bytes(config.cols)
    _make_params_legal(constants, config, params, blocks, words // blocks)
    return Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": words}), bytes(constants)


def convolve_pixels(g: random.Random, image: Map, blocks: int, params: Params) -> Command:
    """A 1x1 convolution of the whole image as one tile, when the third LOAD is done."""
    row_bytes = image.width * image.channels
    return Command(
        "CONVOLVE",
        {
            "base": image.base,
            "pitch": image.pitch,
            "height": image.height,
            "row_bytes": row_bytes,
            "x_start": 0,
            "x_step": image.channels,
            "y_start": 0,
            "y_step": 1,
            "tap_count": 1,
            "tap_step": 0,
            "row_step": 1,
            "length": image.channels,
            "kernel_rows": 1,
            "tile_width": image.width,
            "tile_height": image.height,
            "blocks": blocks,
            "block_step": 0,
            "pad": g.randint(INT8_MIN, INT8_MAX),
            "params": params,
            "ring": 0,
        },
        {Unit.LOAD: 3},
    )


def random_combine(g: random.Random, operand: Map, combine: Combine) -> Command:
    """COMBINE with random scales for the operand tensor there, when the third LOAD is done."""
    scales = {
        f"{name}_{side}": value
        for side in "ab"
        for name, value in (
            ("multiplier", g.randint(1 << 30, (1 << 31) - 1)),
            ("shift", g.randint(-3, 0)),
            ("zero", g.randint(INT8_MIN, INT8_MAX)),
        )
    }
    shifts = (-10, -6) if combine is Combine.MULTIPLY else (-20, -17)
    finish = {**random_requant(g).operands, "shift": g.randint(*shifts)}
    del finish["bias"]
    return Command(
        "COMBINE", {"operand_base": operand.base, "operand_pitch": operand.pitch, **scales, **finish}, {Unit.LOAD: 3}
    )


def random_tables(g: random.Random) -> list[Command]:
    """TABLEs of random entries, in any order."""
    return [
        Command(
            "TABLE",
            {"index": index, **{f"entry_{n}": g.randint(INT8_MIN, INT8_MAX) for n in range(ENTRIES_PER_COMMAND)}},
        )
        for index in g.sample(range(TABLE_ENTRIES // ENTRIES_PER_COMMAND), TABLE_ENTRIES // ENTRIES_PER_COMMAND)
    ]


def random_requant(g: random.Random) -> Command:
    """REQUANT with random operands that leave something of a sum of some hundred products."""
    low, high = sorted((g.randint(INT8_MIN, INT8_MAX), g.randint(INT8_MIN, INT8_MAX)))
    if g.random() < 0.7:
        low, high = INT8_MIN, INT8_MAX
    return Command(
        "REQUANT",
        {
            "bias": g.randint(-(1 << 12), 1 << 12),
            "multiplier": g.randint(1 << 30, (1 << 31) - 1),
            "shift": g.choice([-10, -7, -5, -1, 0, 1]),
            "zero_point": g.randint(INT8_MIN, INT8_MAX),
            "minimum": low,
            "maximum": high,
            "rounding": g.choice(list(Rounding)),
        },
    )


def drain_operands(
    source: Source,
    tensor: Map,
    result: Map,
    params: Params = Params.UNIFORM,
    pool: Pool = Pool.NONE,
    window: tuple[int, int] = (1, 1),
    step: tuple[int, int] = (1, 1),
) -> dict[str, int]:
    """Operands of a DRAIN without ADD from `tensor`, or from accumulators shaped like it, to `result`."""
    return {
        "source": source,
        "in_base": tensor.base,
        "in_pitch": tensor.pitch,
        "in_row": 0,
        "in_offset": 0,
        "in_step": tensor.channels,
        "out_base": result.base,
        "out_pitch": result.pitch,
        "out_row": 0,
        "out_offset": 0,
        "out_step": result.channels,
        "width": result.width,
        "height": result.height,
        "channels": result.channels,
        "pool": pool,
        "pool_height": window[0],
        "pool_width": window[1],
        "pool_y_step": step[0],
        "pool_x_step": step[1],
        "combine": Combine.NONE,
        "params": params,
    }


def _make_params_legal(constants: bytearray, config: Config, params: Params, blocks: int, words_per_block: int) -> None:
    """Random bytes are legal weights, but multipliers must not be negative and shifts stay in range."""
    if params is not Params.PER_CHANNEL:
        return
    for block in range(blocks):
        end = (block + 1) * words_per_block * config.cols
        shifts = end - config.cols
        for channel in range(config.cols):
            constants[shifts - 4 * config.cols + 4 * channel + 3] &= 0x7F
            constants[shifts + channel] = (constants[shifts + channel] % 16 - 12) & 0xFF
