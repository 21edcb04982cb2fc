# SPDX-License-Identifier: Apache-2.0
"""The array in the golden model: the sums of CONVOLVE and DEPTHWISE."""

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.command import Command
from loomwork.arch.config import Config
from loomwork.arch.isa import Params, params_words
from loomwork.arch.reduction import depthwise_passes, passes
from loomwork.arch.registers import ErrorCode
from loomwork.arch.skip import executed_passes
from loomwork.sim.golden_memory import Bytes, Integers, Scratchpad, StopError, WeightStream

FLOAT32_EXACT_TERMS = (1 << 24) >> 14
"""Products of two int8 that a float32 sum holds exactly."""


def convolve(
    command: Command, skip: Command | None, config: Config, scratchpad: Scratchpad, stream: WeightStream
) -> tuple[list[Integers], Bytes]:
    """Carry out a CONVOLVE.

    skip: the SKIP in front of it. Returns the sums of each block, `[images, pixels, cols]` and not wrapped, and the
    parameters of all blocks, `[blocks, words, cols]`. Raises StopError.
    """
    _check_pixels(command, config)
    rows = config.rows
    cut = list(passes(rows, command["kernel_rows"], command["length"], command["row_step"]))
    depth = command["tap_count"] * len(cut) * rows
    weights, params = _take(command, skip, config, stream, command["tap_count"] * len(cut))
    weights = weights.astype(np.float32 if depth <= FLOAT32_EXACT_TERMS else np.float64)

    # Where each row of the reduction comes from: kernel row and byte relative to the pixel; -1: from nowhere.
    kernel_row = np.full((command["tap_count"], len(cut), rows), -1, dtype=np.int64)
    start = np.zeros_like(kernel_row)
    for index, segments in enumerate(cut):
        for segment in segments:
            part = slice(segment.row, segment.row + segment.length)
            kernel_row[:, index, part] = segment.kernel_row
            start[:, index, part] = segment.start + np.arange(segment.length)
    start += command["tap_step"] * np.arange(command["tap_count"])[:, np.newaxis, np.newaxis]
    kernel_row, start = kernel_row.reshape(-1), start.reshape(-1)

    oy, ox = _pixels(command)
    row = command["y_start"] + oy * command["y_step"] + kernel_row * command["row_step"]
    byte = command["x_start"] + ox * command["x_step"] + start
    activations = _gather(command, scratchpad, row, byte, kernel_row >= 0).astype(weights.dtype)
    sums: list[Integers] = []
    for block in range(command["blocks"]):
        if block and command["block_step"]:
            byte = byte + command["block_step"]
            activations = _gather(command, scratchpad, row, byte, kernel_row >= 0).astype(weights.dtype)
        sums.append((activations @ weights[block]).astype(np.int64))
    return sums, params


def convolve_depthwise(
    command: Command, skip: Command | None, config: Config, scratchpad: Scratchpad, stream: WeightStream
) -> tuple[list[Integers], Bytes]:
    """Carry out a DEPTHWISE; see `convolve`."""
    if not config.depthwise:
        raise StopError(ErrorCode.ILLEGAL_OPERAND, f"configuration {config.name} is built without DEPTHWISE")
    if command["taps"] > config.depthwise_taps:
        raise StopError(
            ErrorCode.ILLEGAL_OPERAND, f"{command['taps']} taps in one pass, there are rows for {config.depthwise_taps}"
        )
    if command["shared"] >= command["taps"]:
        raise StopError(ErrorCode.ILLEGAL_OPERAND, f"{command['shared']} shared columns of {command['taps']} taps")
    _check_pixels(command, config)
    _check_shared(command, config)
    cut = list(depthwise_passes(config.depthwise_groups, command["kernel_rows"], command["row_step"]))
    weights, params = _take(command, skip, config, stream, command["tap_count"] * len(cut))
    shape = (-1, command["tap_count"], len(cut), config.rows, config.cols)
    weights = weights.astype(np.int64).reshape(shape)

    oy, ox = _pixels(command)
    sums: list[Integers] = []
    for block, tap_group in np.ndindex(command["blocks"], command["tap_count"]):
        if tap_group == 0:
            sums.append(np.zeros((1, len(ox), config.cols), dtype=np.int64))
        start = command["x_start"] + block * command["block_step"] + tap_group * command["tap_step"]
        for index, kernel_rows in enumerate(cut):
            for group, kernel_row in enumerate(kernel_rows):
                row = command["y_start"] + oy * command["y_step"] + kernel_row * command["row_step"]
                for tap in range(command["taps"]):
                    byte = start + (ox * command["x_stride"] + tap) * command["x_step"] + np.arange(config.cols)
                    weight = weights[block, tap_group, index, group * config.depthwise_taps + tap]
                    sums[-1] = sums[-1] + _gather(command, scratchpad, row, byte, np.True_) * weight
    return sums, params


def _check_shared(command: Command, config: Config) -> None:
    """Refuse `shared` columns of which a channel lies in the image: the hardware would take them from either row."""
    columns = np.arange(command["shared"])
    last = (command["tile_width"] - 1) * command["x_stride"] + command["taps"] - 1
    for block, group in np.ndindex(command["blocks"], command["tap_count"]):
        start = command["x_start"] + block * command["block_step"] + group * command["tap_step"]
        # What lies behind the channels of a pixel goes to columns of the array that nobody looks at.
        channels = np.arange(min(config.cols, max(command["x_step"] - block * command["block_step"], 1)))
        places = start + np.concatenate((columns, last - columns))[:, np.newaxis] * command["x_step"] + channels
        if np.any((places >= 0) & (places < command["row_bytes"])):
            raise StopError(ErrorCode.ILLEGAL_OPERAND, f"{command['shared']} shared columns, not all outside the image")


def _check_pixels(command: Command, config: Config) -> None:
    pixels = command["tile_width"] * command["tile_height"]
    if pixels > config.accumulator_depth:
        raise StopError(
            ErrorCode.SCRATCHPAD,
            f"a tile of {pixels} pixels, the accumulators hold {config.accumulator_depth}",
        )


def _take(
    command: Command, skip: Command | None, config: Config, stream: WeightStream, passes: int
) -> tuple[NDArray[np.int8], Bytes]:
    """Weights `[blocks, passes * rows, cols]` and parameters `[blocks, words, cols]` of all blocks, from the stream.

    passes: of each block. Those that are left out have no weights in the stream, and zeros here.
    """
    blocks, rows, cols = command["blocks"], config.rows, config.cols
    try:
        executed = list(executed_passes(skip.operands if skip else None, passes))
    except ValueError as error:
        raise StopError(ErrorCode.ILLEGAL_OPERAND, str(error)) from error
    words = stream.take(blocks * (len(executed) * rows + params_words(Params(command["params"]))))
    words = words.reshape(blocks, -1, cols)
    depth = len(executed) * rows
    if len(executed) == passes:
        return words[:, :depth].view(np.int8), words[:, depth:]
    weights = np.zeros((blocks, passes, rows, cols), dtype=np.int8)
    weights[:, executed] = words[:, :depth].view(np.int8).reshape(blocks, len(executed), rows, cols)
    return weights.reshape(blocks, passes * rows, cols), words[:, depth:]


def _pixels(command: Command) -> tuple[Integers, Integers]:
    """Row and column of every pixel of a tile, each `[pixels, 1]`."""
    oy, ox = (axis.reshape(-1, 1) for axis in np.indices((command["tile_height"], command["tile_width"])))
    return oy, ox


def _gather(
    command: Command, scratchpad: Scratchpad, row: Integers, byte: Integers, used: NDArray[np.bool_] | np.bool_
) -> NDArray[np.int8]:
    """Activations `[images, pixels, bytes]`; `pad` where not `used`, and outside the image."""
    inside = used & (row >= 0) & (row < command["height"]) & (byte >= 0) & (byte < command["row_bytes"])
    values = scratchpad.read(command["base"], command["pitch"], row, byte, inside, ring=command["ring"])
    values[:, ~inside] = command["pad"]
    return values
