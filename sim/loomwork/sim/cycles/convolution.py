# SPDX-License-Identifier: Apache-2.0
"""How a command of EXECUTE occupies the array: its passes, in order."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.arch.isa import Params, params_words
from loomwork.arch.reduction import depthwise_columns, depthwise_passes, passes
from loomwork.sim.cycles.commands import Step


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One EXECUTE command.

    blocks: blocks of output channels. segments: of each pass of one block, the cycles its preparation takes.
    columns: cycles in which one pass feeds the array. row_columns: of these, those of the last row; the other rows
    have `shared` fewer. outputs: in which of them each output pixel begins.
    params: words of parameters behind the weights of a block.
    """

    blocks: int
    segments: tuple[int, ...]
    columns: int
    row_columns: int
    shared: int
    outputs: NDArray[np.int64]
    params: int


@cache
def _convolve_segments(rows: int, kernel_rows: int, length: int, row_step: int) -> tuple[int, ...]:
    return tuple(len(segments) for segments in passes(rows, kernel_rows, length, row_step))


def shape_of(command: Step, config: Config) -> Shape:
    """The shape of a CONVOLVE or a DEPTHWISE: one segment of a pass cut per cycle, one pixel or input column fed."""
    operands = command.operands
    width, kernel_rows, row_step = operands["tile_width"], operands["kernel_rows"], operands["row_step"]
    if command.mnemonic == "DEPTHWISE":
        segments = tuple(len(group) for group in depthwise_passes(config.depthwise_groups, kernel_rows, row_step))
        stride, shared = operands["x_stride"], operands["shared"]
        row_columns = depthwise_columns(1, width, stride, operands["taps"], shared)
    else:
        segments = _convolve_segments(config.rows, kernel_rows, operands["length"], row_step)
        stride, shared, row_columns = 1, 0, width
    height = operands["tile_height"]
    return Shape(
        blocks=operands["blocks"],
        segments=segments * operands["tap_count"],
        columns=height * (row_columns - shared) + shared,
        row_columns=row_columns,
        shared=shared,
        outputs=np.add.outer(np.arange(height) * (row_columns - shared), np.arange(width) * stride).ravel(),
        params=params_words(Params(operands["params"])),
    )
