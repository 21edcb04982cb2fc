# SPDX-License-Identifier: Apache-2.0
"""How a command of EXECUTE occupies the array: its passes, in order."""

from dataclasses import dataclass
from functools import cache

from loomwork.arch.config import Config
from loomwork.arch.isa import Params, params_words
from loomwork.arch.reduction import depthwise_columns, depthwise_passes, passes
from loomwork.sim.cycles.commands import Step


@dataclass(frozen=True, slots=True)
class Shape:
    """One EXECUTE command.

    blocks: blocks of output channels. segments: of each pass of one block, the cycles its preparation takes.
    columns: cycles in which one pass feeds the array. tail: of these, the ones behind the beginning of the last output.
    params: words of parameters behind the weights of a block.
    """

    blocks: int
    segments: tuple[int, ...]
    columns: int
    tail: int
    params: int


@cache
def _convolve_segments(rows: int, kernel_rows: int, length: int, row_step: int) -> tuple[int, ...]:
    return tuple(len(segments) for segments in passes(rows, kernel_rows, length, row_step))


def shape_of(command: Step, config: Config) -> Shape:
    """The shape of a CONVOLVE or a DEPTHWISE: one segment of a pass cut per cycle, one pixel or input column fed."""
    operands = command.operands
    width, kernel_rows, row_step = operands["tile_width"], operands["kernel_rows"], operands["row_step"]
    if command.mnemonic == "DEPTHWISE":
        taps = operands["taps"]
        segments = tuple(len(group) for group in depthwise_passes(config.depthwise_groups, kernel_rows, row_step))
        width, tail = depthwise_columns(width, operands["x_stride"], taps), taps - 1
    else:
        segments, tail = _convolve_segments(config.rows, kernel_rows, operands["length"], row_step), 0
    return Shape(
        blocks=operands["blocks"],
        segments=segments * operands["tap_count"],
        columns=width * operands["tile_height"],
        tail=tail,
        params=params_words(Params(operands["params"])),
    )
