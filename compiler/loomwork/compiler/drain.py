# SPDX-License-Identifier: Apache-2.0
"""Building the commands of the drain: settings, and DRAIN with the scratchpad words it touches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.command import Command
from loomwork.arch.isa import ENTRIES_PER_COMMAND, Combine, Params, Pool, Source
from loomwork.arch.numerics import IDENTITY_MULTIPLIER, IDENTITY_SHIFT, INT8_MAX, INT8_MIN, Rounding, divide_multiplier
from loomwork.compiler.graph import Add, Combination, Multiply, Requantize
from loomwork.compiler.task import Region, Task
from loomwork.compiler.tiling import covered
from loomwork.compiler.views import Views


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Pixels of a feature map: the first one's row and byte, and the bytes from one to the next in a row."""

    map: str
    row: int = 0
    offset: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """A pooling window (y, x) and the steps from one to the next."""

    mode: Pool = Pool.NONE
    window: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)


NO_POOLING = Pooling()


def requant_shared(requantize: Requantize, params: Params) -> Command:
    """REQUANT for a `Requantize`; what the stream delivers for each channel is zero here."""
    shared = params is not Params.PER_CHANNEL
    return Command(
        "REQUANT",
        {
            "bias": int(requantize.bias[0]) if params is Params.UNIFORM else 0,
            "multiplier": int(requantize.multiplier[0]) if shared else 0,
            "shift": int(requantize.shift[0]) if shared else 0,
            "zero_point": requantize.zero_point,
            "minimum": requantize.minimum,
            "maximum": requantize.maximum,
            "rounding": requantize.rounding,
        },
    )


def requant_identity(minimum: int = INT8_MIN, maximum: int = INT8_MAX) -> Command:
    """REQUANT that only clamps."""
    return Command(
        "REQUANT",
        {
            "bias": 0,
            "multiplier": IDENTITY_MULTIPLIER,
            "shift": IDENTITY_SHIFT,
            "zero_point": 0,
            "minimum": minimum,
            "maximum": maximum,
            "rounding": Rounding.TFLITE,
        },
    )


def requant_divide(count: int, minimum: int, maximum: int) -> Command:
    """REQUANT that divides a sum by `count`, half away from zero, and clamps."""
    multiplier, shift = divide_multiplier(count)
    return Command(
        "REQUANT",
        {
            "bias": 0,
            "multiplier": multiplier,
            "shift": shift,
            "zero_point": 0,
            "minimum": minimum,
            "maximum": maximum,
            "rounding": Rounding.ONNX,
        },
    )


SECOND_STAGES: dict[type[Combination], Combine] = {Add: Combine.ADD, Multiply: Combine.MULTIPLY}
"""What the drain does for each combination."""


def combine_settings(layer: Combination, views: Views, origin: int) -> Command:
    """COMBINE for a layer whose `operand` lies in the scratchpad; the DRAINs behind it count rows from `origin`."""
    add = layer if isinstance(layer, Add) else None
    return Command(
        "COMBINE",
        {
            "operand_base": views.base(layer.operand, origin),
            "operand_pitch": views.pitch(layer.operand),
            "multiplier_a": add.multiplier_input if add else 0,
            "shift_a": add.shift_input if add else 0,
            "zero_a": layer.zero_input,
            "multiplier_b": add.multiplier_operand if add else 0,
            "shift_b": add.shift_operand if add else 0,
            "zero_b": layer.zero_operand,
            "multiplier": layer.multiplier,
            "shift": layer.shift,
            "zero_point": layer.zero_point,
            "minimum": layer.minimum,
            "maximum": layer.maximum,
            "rounding": layer.rounding,
        },
    )


def set_table(table: NDArray[np.int8]) -> list[Command]:
    """TABLEs that set all of the activation table; see `graph.Table`."""
    return [
        Command("TABLE", {"index": index, **{f"entry_{number}": int(entry) for number, entry in enumerate(entries)}})
        for index, entries in enumerate(table.reshape(-1, ENTRIES_PER_COMMAND))
    ]


def drain(
    views: Views,
    layer: int,
    *,
    output: Pixels,
    height: int,
    width: int,
    channels: int,
    source: Pixels | None = None,
    accumulator_pitch: int = 0,
    operand: Pixels | None = None,
    pooling: Pooling = NO_POOLING,
    combine: Combine = Combine.NONE,
    params: Params = Params.UNIFORM,
) -> Task:
    """A DRAIN of `height` x `width` output pixels of `channels` channels.

    source: the values in the scratchpad; None takes them from the accumulators, `accumulator_pitch` pixels per row.
    operand: the second tensor of a sum or product; with a scratchpad source, at the same row and byte. Rows of both are
    counted from the origin of their views, as COMBINE must know it.
    """
    values = source or operand or Pixels(map=output.map)
    inputs = [pixels.map for pixels in (source, operand) if pixels]
    origin = views.origin(*inputs) if inputs else 0
    rows = covered(height, pooling.window[0], pooling.step[0])
    columns = covered(width, pooling.window[1], pooling.step[1])

    def region(pixels: Pixels, rows: int, columns: int) -> Region:
        end = pixels.offset + (columns - 1) * pixels.step + channels
        return views.region(pixels.map, pixels.row, rows, pixels.offset, end)

    command = Command(
        "DRAIN",
        {
            "source": Source.SCRATCHPAD if source else Source.ACCUMULATOR,
            "in_base": views.base(source.map, origin) if source else 0,
            "in_pitch": views.pitch(source.map) if source else accumulator_pitch,
            "in_row": values.row - origin if inputs else 0,
            "in_offset": values.offset if inputs else 0,
            "in_step": values.step if inputs else 0,
            "out_base": views.base(output.map),
            "out_pitch": views.pitch(output.map),
            "out_row": output.row - views.origin(output.map),
            "out_offset": output.offset,
            "out_step": output.step,
            "width": width,
            "height": height,
            "channels": channels,
            "pool": pooling.mode,
            "pool_height": pooling.window[0],
            "pool_width": pooling.window[1],
            "pool_y_step": pooling.step[0],
            "pool_x_step": pooling.step[1],
            "combine": combine,
            "params": params,
        },
    )
    return Task(
        command=command,
        layer=layer,
        reads=tuple(region(pixels, rows, columns) for pixels in (source, operand) if pixels),
        writes=(region(output, height, width),),
    )
