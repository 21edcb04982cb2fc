# SPDX-License-Identifier: Apache-2.0
"""Whether a board can hold a configuration: known before synthesis, from the configuration's own numbers."""

from loomwork.arch.config import BANKS, Config
from loomwork.fpga.boards.board import Board, Resources

BLOCK_BITS = 2048 * 8
"""Bits of a block of 18 kbit without those that make its bytes nine bits wide."""
BLOCK_WIDTHS = (8, 16, 32)
LUT_MEMORY_WORDS = 32
"""Memories of at most so many words become lookup tables."""


class CapacityError(ValueError):
    """A board that is too small; one sentence for the user that names what it lacks."""


def memory_blocks(width: int, depth: int) -> int:
    """Blocks of 18 kbit for a memory of `depth` words of `width` bits, in the best of their shapes."""
    if depth <= LUT_MEMORY_WORDS:
        return 0
    return min(-(-width // bits) * -(-depth // (BLOCK_BITS // bits)) for bits in BLOCK_WIDTHS)


def multipliers(config: Config) -> int:
    """Multiplications of a core outside of its array.

    Per lane of the drain four products of 16 bits for each requantization of an int32 (two, one of them for ADD), two
    for each of an int8 (two, for ADD); four for addresses of the drain, two each of LOAD and STORE, one of EXECUTE.
    """
    return config.requant_lanes * (12 if config.residual_add else 4) + 9


def estimate(board: Board, config: Config, memory_kib: int) -> Resources:
    """What a design will take at least.

    Multipliers and memory as they are; lookup tables and flip-flops by straight lines through measured designs, less
    a tenth, so that what is refused here would not have fitted.
    """
    in_cells = config.cols - min(board.technology.logic_columns, config.cols)
    bus_bits = 8 * config.bus_bytes
    blocks = (
        2 * BANKS * memory_blocks(8 * config.rows, config.bank_words // 2)
        + 2 * config.cols * memory_blocks(32, config.accumulator_depth)
        + memory_blocks(bus_bits, memory_kib * 1024 // config.bus_bytes)
    )
    lanes = config.requant_lanes * (2 if config.residual_add else 1)
    return Resources(
        luts=_LUTS[0] + _LUTS[1] * config.macs_per_cycle + _LUTS[2] * lanes + _LUTS[3] * config.rows,
        registers=_REGISTERS[0] + _REGISTERS[1] * config.macs_per_cycle + _REGISTERS[2] * lanes,
        multipliers=config.rows * in_cells + multipliers(config),
        blocks=blocks,
    )


_LUTS = (12_000, 15, 500, 300)
"""Least lookup tables: of every core, per PE, per requantizer of a lane, per byte of a word."""
_REGISTERS = (9_000, 60, 400)
"""Least flip-flops: of every core, per PE, per requantizer of a lane."""


def check_capacity(board: Board, config: Config, needed: Resources) -> None:
    """Raises CapacityError when a design does not fit, with everything that the board lacks."""
    pairs = {
        "lookup tables": (needed.luts, board.capacity.luts),
        "flip-flops": (needed.registers, board.capacity.registers),
        "multipliers": (needed.multipliers, board.capacity.multipliers),
        "blocks of memory": (needed.blocks, board.capacity.blocks),
    }
    lacking = [f"{want:,} {name} of {have:,}" for name, (want, have) in pairs.items() if want > have]
    if lacking:
        raise CapacityError(f"{board.title} cannot hold {config.name!r}: it would take {' and '.join(lacking)}")
