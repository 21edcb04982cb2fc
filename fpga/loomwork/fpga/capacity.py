# SPDX-License-Identifier: Apache-2.0
"""Whether a board can hold a configuration: known before synthesis, from the configuration's own numbers."""

import math

from loomwork.arch.config import BANKS, Config
from loomwork.arch.link import MAX_WORDS
from loomwork.fpga.boards.board import Board, Resources
from loomwork.rtl.compact.layout import Layout


class CapacityError(ValueError):
    """A board that is too small; one sentence for the user that names what it lacks."""


def multipliers(config: Config) -> int:
    """Multiplications of a core outside of its array.

    Per lane of the drain four products of 16 bits for each requantization of an int32 (two, one of them for ADD and
    MULTIPLY), two for each of an int8 (two, for ADD), one for MULTIPLY; four for addresses of the drain, two each of
    LOAD and STORE, one of EXECUTE.
    """
    second = 4 if config.residual_add or config.elementwise_multiply else 0
    of_lane = 4 + second + 4 * config.residual_add + config.elementwise_multiply
    return config.requant_lanes * of_lane + 9


def estimate(board: Board, config: Config, memory_kib: int) -> Resources:
    """What a design will take at least.

    Multipliers and memory as they are; lookup tables and flip-flops by a sum that lies 1 to 13 % below what was
    measured of a small and a large core on an ECP5. Raises ConfigError for a configuration that the board's core does
    not have, CapacityError when its memory is more than there is of the kind that holds it.
    """
    if board.compact:
        return _estimate_compact(board, Layout(config, memory_kib * 1024))
    family, technology = board.family, board.technology
    of_array, of_others = family.products
    in_cells = config.rows * max(config.cols - technology.logic_columns, 0)
    others = 0 if technology.logic_elsewhere else multipliers(config)
    bus_bits = 8 * config.bus_bytes
    blocks = (
        2 * BANKS * family.memory_blocks(8 * config.rows, config.bank_words // 2)
        + 2 * config.cols * family.memory_blocks(32, config.accumulator_depth)
        + family.memory_blocks(bus_bits, memory_kib * 1024 // config.bus_bytes)
    )
    sizes = (1, config.macs_per_cycle, config.requant_lanes * (2 if config.residual_add else 1), config.rows)
    registers = sum(cost * size for cost, size in zip(_REGISTERS, sizes, strict=True))
    registers += config.deep_pipeline * 2 * 2 * 8 * config.rows  # 2 * rows bytes each for drain and STORE
    return Resources(
        luts=sum(cost * size for cost, size in zip(_LUTS, sizes, strict=True)),
        registers=registers,
        multipliers=math.ceil(of_array * in_cells + of_others * others),
        blocks=blocks,
    )


_LUTS = (14_900, 20, 530, 1_290)
"""Lookup tables: of every core with its link, per PE, per requantizer of a lane, per byte of a word."""
_REGISTERS = (8_000, 58, 770, 501)
"""Flip-flops, likewise."""


_FIRMWARE_BYTES = 8192
"""Of a compact core, at least."""


def _estimate_compact(board: Board, layout: Layout) -> Resources:
    """Likewise of a compact core, whose sums lie 4 to 16 % below what was measured of 4 x 4 and 8 x 8 PEs."""
    config, family = layout.config, board.family
    own_bytes, memory_bytes = board.technology.single_port_bytes, layout.words * config.rows
    if memory_bytes > (own_bytes or memory_bytes):
        raise CapacityError(
            f"{board.title} cannot hold {config.name!r}: scratchpad, external memory and firmware would take "
            f"{memory_bytes / 1024:g} KiB of {own_bytes // 1024}"
        )
    lanes = 0 if own_bytes else config.rows  # blocks that write single bytes
    blocks = (
        family.memory_blocks(32, _FIRMWARE_BYTES // 4)
        + 2 * family.memory_blocks(32, 32)  # the processor reads two registers at once
        + family.memory_blocks(32 * config.cols, 2 * config.accumulator_depth)
        + family.memory_blocks(32, 4 * MAX_WORDS)
        + lanes * family.memory_blocks(8, layout.words)
    )
    registers = 1_200 + 8 * config.macs_per_cycle
    return Resources(
        luts=2_900 + 75 * config.macs_per_cycle + int(family.lone_registers * registers),
        registers=registers,
        multipliers=math.ceil(family.products[0] * config.macs_per_cycle),
        blocks=blocks,
    )


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
