# SPDX-License-Identifier: Apache-2.0
"""Which memories of the scratchpad the feed and the drain read (rtl/scratchpad.py, window.py, drain/address.py).

A set of memories is a byte: bit `2 * bank + parity` for the even or odd words of a bank.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Source
from loomwork.arch.reduction import Segment, depthwise_passes, passes
from loomwork.sim.cycles.commands import Step
from loomwork.sim.cycles.convolution import Shape

Integers = NDArray[np.int64]


def _memories(bank: Integers, word: Integers, wide: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The memories of a window that begins at `word` and, if it is `wide`, reaches into the next one."""
    return (np.where(wide, 3, 1 << (word & 1)) << (2 * bank)).astype(np.uint8)


@cache
def _segments(rows: int, kernel_rows: int, length: int, row_step: int) -> list[tuple[Segment, ...]]:
    return list(passes(rows, kernel_rows, length, row_step))


def _pass_segments(command: Step, number: int, config: Config) -> tuple[Segment, ...]:
    """The segments of pass `number` of a tap: where each lies in its kernel row and in the rows of the array."""
    operands = command.operands
    kernel_rows, row_step = operands["kernel_rows"], operands["row_step"]
    if command.mnemonic == "DEPTHWISE":
        kernel = list(depthwise_passes(config.depthwise_groups, kernel_rows, row_step))[number]
        return tuple(Segment(row, 0, 0, config.cols) for row in kernel)
    return _segments(config.rows, kernel_rows, operands["length"], row_step)[number]


def pass_reads(command: Step, *, block: int, tap: int, number: int, shape: Shape, config: Config) -> bytes:
    """Memories that the feed reads for each pixel, or input column, of one pass."""
    operands, rows, columns = command.operands, config.rows, shape.row_columns
    origin = operands["x_start"] + block * operands["block_step"] + tap * operands["tap_step"]
    reads = np.zeros((operands["tile_height"], columns), np.uint8)
    for segment in _pass_segments(command, number, config):
        x = origin + segment.start + np.arange(columns) * operands["x_step"]
        lead = np.clip(-x, 0, rows)
        low = segment.row + lead
        high = np.minimum(segment.row + np.clip(operands["row_bytes"] - x, 0, rows), segment.row + segment.length)
        # A window that begins before its image row is read from the row's first word, which is then enough.
        wide = (x >= 0) & (x % rows - segment.row + high > rows)
        y = operands["y_start"] + np.arange(operands["tile_height"]) * operands["y_step"]
        y += segment.kernel_row * operands["row_step"]
        group = y >> 2
        if ring := operands["ring"]:
            group = np.where(group < ring, group, group - ring)
        slot = operands["base"] + group * operands["pitch"]
        inside = ((y >= 0) & (y < operands["height"]))[:, np.newaxis] & (low < high)
        word = slot[:, np.newaxis] + np.maximum(x // rows, 0)
        reads |= np.where(inside, _memories((y & 3)[:, np.newaxis], word, wide), 0).astype(np.uint8)
    # Of all rows but the last, the columns in common with the next row are its own.
    return reads[:-1, : columns - shape.shared].tobytes() + reads[-1].tobytes()


def _steps(command: Step, block: int, config: Config) -> tuple[Integers, ...]:
    """Of each step of one block of a DRAIN, in order: output row and column, channel group, pooling row and column."""
    operands = command.operands
    channels = min(operands["channels"] - block * config.cols, config.cols)
    groups = -(-channels // config.requant_lanes)
    shape = (operands["height"], operands["width"], groups, operands["pool_height"], operands["pool_width"])
    return tuple(axis.ravel() for axis in np.indices(shape))


def _windows(command: Step, block: int, group: Integers, config: Config, byte: Integers) -> NDArray[np.bool_]:
    """Whether the bytes of a step, from `byte` of an image row on, lie in two words."""
    channels = command.operands["channels"] - block * config.cols - group * config.requant_lanes
    return byte % config.rows + np.minimum(channels, config.requant_lanes) > config.rows


def drain_reads(command: Step, combine: Step | None, block: int, config: Config) -> bytes:
    """Memories of each scratchpad read of one block of a DRAIN, in order: of every step the source, then the operand.

    combine: the settings in force, for the operand tensor.
    """
    operands = command.operands
    oy, ox, group, py, px = _steps(command, block, config)
    row = operands["in_row"] + oy * operands["pool_y_step"] + py
    byte = operands["in_offset"] + (ox * operands["pool_x_step"] + px) * operands["in_step"]
    byte += block * config.cols + group * config.requant_lanes
    wide = _windows(command, block, group, config, byte)
    tensors: list[tuple[int, int]] = []
    if operands["source"] == Source.SCRATCHPAD:
        tensors.append((operands["in_base"], operands["in_pitch"]))
    if Combine(operands["combine"]).has_operand and combine is not None:
        tensors.append((combine.operands["operand_base"], combine.operands["operand_pitch"]))
    reads = [_memories(row & 3, base + (row >> 2) * pitch + byte // config.rows, wide) for base, pitch in tensors]
    return np.stack(reads, axis=-1).tobytes()


def drain_pixels(command: Step, block: int, config: Config) -> Integers:
    """The pixel of the accumulators that each step of one block of a DRAIN reads."""
    operands = command.operands
    oy, ox, _, py, px = _steps(command, block, config)
    row, column = oy * operands["pool_y_step"] + py, ox * operands["pool_x_step"] + px
    return row * operands["in_pitch"] + column


def drain_writes(command: Step, block: int, config: Config) -> bytes:
    """Memories that each step of one block of a DRAIN writes: none as long as its pooling window is not complete."""
    operands = command.operands
    oy, ox, group, py, px = _steps(command, block, config)
    row = operands["out_row"] + oy
    byte = operands["out_offset"] + ox * operands["out_step"] + block * config.cols + group * config.requant_lanes
    word = operands["out_base"] + (row >> 2) * operands["out_pitch"] + byte // config.rows
    memories = _memories(row & 3, word, _windows(command, block, group, config, byte))
    last = (py == operands["pool_height"] - 1) & (px == operands["pool_width"] - 1)
    return np.where(last, memories, 0).astype(np.uint8).tobytes()


def transfer_words(command: Step) -> bytes:
    """The memory of each word of a LOAD or a STORE, in order."""
    operands = command.operands
    row = (operands["row"] + np.arange(operands["rows"]))[:, np.newaxis]
    word = operands["base"] + (row >> 2) * operands["pitch"] + np.arange(operands["words"])
    return _memories(row & 3, word, np.zeros(word.shape, np.bool_)).tobytes()
