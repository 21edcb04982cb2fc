"""Arithmetic of the drain in the golden model."""

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.isa import Combine, Command, Params, Pool
from loomwork.arch.numerics import ADD_LEFT_SHIFT, Rounding, requantize, to_int8, wrap_int32

Integers = NDArray[np.int64]


def pixel_grid(command: Command) -> tuple[Integers, Integers]:
    """Row and column of every value of every pooling window, relative to the first.

    Both broadcast to `[height, width, pool_height, pool_width, 1]`; the last axis is for the channels.
    """
    oy = np.arange(command["height"]).reshape(-1, 1, 1, 1, 1)
    ox = np.arange(command["width"]).reshape(1, -1, 1, 1, 1)
    py = np.arange(command["pool_height"]).reshape(1, 1, -1, 1, 1)
    px = np.arange(command["pool_width"]).reshape(1, 1, 1, -1, 1)
    return oy * command["pool_y_step"] + py, ox * command["pool_x_step"] + px


def block_params(
    words: NDArray[np.uint8], command: Command, requant: Command
) -> tuple[Integers | int, Integers | int, Integers | int]:
    """Bias, multiplier and shift of each channel, from `words [blocks, words, cols]` of the stream or from REQUANT."""
    blocks, _, cols = words.shape
    channels = command["channels"]

    def int32(first: int) -> Integers:
        data = np.ascontiguousarray(words[:, first : first + 4]).reshape(blocks, 4 * cols)
        return data.view("<i4").reshape(-1)[:channels].astype(np.int64)

    match Params(command["params"]):
        case Params.UNIFORM:
            return requant["bias"], requant["multiplier"], requant["shift"]
        case Params.BIAS:
            return int32(0), requant["multiplier"], requant["shift"]
        case Params.PER_CHANNEL:
            shift = np.ascontiguousarray(words[:, 8]).view(np.int8).reshape(-1)[:channels]
            return int32(0), int32(4), shift.astype(np.int64)


def combine_and_pool(
    values: NDArray[np.integer],
    words: NDArray[np.uint8],
    operand: NDArray[np.int8] | None,
    command: Command,
    requant: Command,
    combine: Command | None,
) -> NDArray[np.int8]:
    """What a DRAIN writes.

    values, operand: `[images, height, width, pool_height, pool_width, channels]`. words: parameters from the stream,
    `[blocks, words, cols]`. requant, combine: the settings in force. Returns `[images, height, width, channels]`.
    """
    window = (-3, -2)
    values = values.astype(np.int64)
    if command["pool"] == Pool.SUM:
        values = wrap_int32(values.sum(axis=window, keepdims=True))
    bias, multiplier, shift = block_params(words, command, requant)
    scaled = requantize(wrap_int32(values + bias), multiplier, shift, Rounding(requant["rounding"]))
    if command["combine"] == Combine.NONE or combine is None:
        result = _finish(scaled, requant)
    elif command["combine"] == Combine.ADD and operand is not None:
        rounding = Rounding(combine["rounding"])
        first = _finish(scaled, requant).astype(np.int64) - combine["zero_a"]
        second = operand.astype(np.int64) - combine["zero_b"]
        total = requantize(first << ADD_LEFT_SHIFT, combine["multiplier_a"], combine["shift_a"], rounding) + requantize(
            second << ADD_LEFT_SHIFT, combine["multiplier_b"], combine["shift_b"], rounding
        )
        result = _finish(_rescale(total, combine), combine)
    else:
        result = _finish(_rescale(scaled, combine), combine)
    return result.max(axis=window)


def _rescale(values: Integers, setting: Command) -> Integers:
    return requantize(wrap_int32(values), setting["multiplier"], setting["shift"], Rounding(setting["rounding"]))


def _finish(values: Integers, setting: Command) -> NDArray[np.int8]:
    return to_int8(values, setting["zero_point"], setting["minimum"], setting["maximum"])
