# SPDX-License-Identifier: Apache-2.0
"""The drain in the golden model: which commands it refuses, and its arithmetic."""

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.command import Command
from loomwork.arch.config import Config
from loomwork.arch.isa import ENTRIES_PER_COMMAND, TABLE_ENTRIES, Combine, Params, Pool, Source
from loomwork.arch.numerics import ADD_LEFT_SHIFT, INT8_MIN, Rounding, requantize, to_int8, wrap_int32
from loomwork.arch.registers import ErrorCode
from loomwork.sim.golden_memory import Integers, StopError


def check_drain(command: Command, config: Config) -> None:
    """Raise StopError for a DRAIN whose operands exclude each other, or which needs what `config` leaves out."""
    combine, window = Combine(command["combine"]), (command["pool_height"], command["pool_width"])
    if command["source"] == Source.SCRATCHPAD and command["params"] != Params.UNIFORM:
        raise StopError(ErrorCode.ILLEGAL_OPERAND, "parameters per block exist only behind the accumulators")
    if command["pool"] == Pool.NONE and window != (1, 1):
        raise StopError(ErrorCode.ILLEGAL_OPERAND, f"a window of {window[0]} x {window[1]} pixels without pooling")
    if combine.has_operand and command["pool"] == Pool.SUM:
        raise StopError(
            ErrorCode.ILLEGAL_OPERAND, f"the sum of a window has no one operand that {combine.name} could take"
        )
    if (combine is Combine.ADD and not config.residual_add) or (
        combine is Combine.MULTIPLY and not config.elementwise_multiply
    ):
        raise StopError(ErrorCode.ILLEGAL_OPERAND, f"configuration {config.name} is built without {combine.name}")
    if combine is Combine.TABLE:
        check_table(config)


def check_table(config: Config) -> None:
    """Raise StopError when `config` leaves the activation table out."""
    if not config.activation_table:
        raise StopError(ErrorCode.ILLEGAL_OPERAND, f"configuration {config.name} is built without the activation table")


class ActivationTable:
    """The table's entries, as TABLEs set them."""

    def __init__(self) -> None:
        self._entries: dict[int, int] = {}

    def set(self, command: Command) -> None:
        """Carry out a TABLE."""
        first = ENTRIES_PER_COMMAND * command["index"]
        self._entries |= {first + n: command[f"entry_{n}"] for n in range(ENTRIES_PER_COMMAND)}

    def entries(self) -> NDArray[np.int8]:
        """All of them. Raises StopError when one is not set: it would be arbitrary."""
        if len(self._entries) < TABLE_ENTRIES:
            count = TABLE_ENTRIES - len(self._entries)
            raise StopError(ErrorCode.ILLEGAL_OPERAND, f"no TABLE has set {count} entries of the activation table")
        return np.array([self._entries[number] for number in range(TABLE_ENTRIES)], dtype=np.int8)


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
    combine: Command,
    table: NDArray[np.int8] | None = None,
) -> NDArray[np.int8]:
    """What a DRAIN writes.

    values: `[images, height, width, pool_height, pool_width, channels]`. words: parameters from the stream,
    `[blocks, words, cols]`. operand: the second tensor of ADD or MULTIPLY, shaped like `values`; None
    without these.
    requant, combine: the settings in force. table: the activation table's entries; None when it is not used.
    Returns `[images, height, width, channels]`.
    """
    window = (-3, -2)
    values = values.astype(np.int64)
    if command["pool"] == Pool.SUM:
        values = wrap_int32(values.sum(axis=window, keepdims=True))
    bias, multiplier, shift = block_params(words, command, requant)
    scaled = requantize(wrap_int32(values + bias), multiplier, shift, Rounding(requant["rounding"]))
    result = _finish(scaled, requant)
    if operand is not None:
        rounding = Rounding(combine["rounding"])
        first = result.astype(np.int64) - combine["zero_a"]
        second = operand.astype(np.int64) - combine["zero_b"]
        if command["combine"] == Combine.MULTIPLY:
            combined = first * second
        else:
            combined = requantize(first << ADD_LEFT_SHIFT, combine["multiplier_a"], combine["shift_a"], rounding)
            combined += requantize(second << ADD_LEFT_SHIFT, combine["multiplier_b"], combine["shift_b"], rounding)
        result = _finish(requantize(combined, combine["multiplier"], combine["shift"], rounding), combine)
    if table is not None:
        result = table[result.astype(np.int64) - INT8_MIN]
    return result.max(axis=window)


def _finish(values: Integers, setting: Command) -> NDArray[np.int8]:
    return to_int8(values, setting["zero_point"], setting["minimum"], setting["maximum"])
