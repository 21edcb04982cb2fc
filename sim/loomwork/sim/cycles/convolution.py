# SPDX-License-Identifier: Apache-2.0
"""How a command of EXECUTE occupies the array: its passes, in order."""

from dataclasses import dataclass
from functools import cache

from loomwork.arch.config import Config
from loomwork.arch.isa import Params, params_words
from loomwork.arch.reduction import passes
from loomwork.sim.cycles.commands import Step


@dataclass(frozen=True, slots=True)
class Shape:
    """One EXECUTE command.

    blocks: blocks of output channels. segments: of each pass of one block, the cycles its preparation takes.
    columns: cycles in which one pass feeds the array. params: words of parameters behind the weights of a block.
    """

    blocks: int
    segments: tuple[int, ...]
    columns: int
    params: int


@cache
def _segments(rows: int, kernel_rows: int, length: int, row_step: int) -> tuple[int, ...]:
    return tuple(len(segments) for segments in passes(rows, kernel_rows, length, row_step))


def shape_of(command: Step, config: Config) -> Shape:
    """The shape of a CONVOLVE: one pixel per cycle, one segment of a pass cut per cycle."""
    operands = command.operands
    cut = _segments(config.rows, operands["kernel_rows"], operands["length"], operands["row_step"])
    return Shape(
        blocks=operands["blocks"],
        segments=cut * operands["tap_count"],
        columns=operands["tile_width"] * operands["tile_height"],
        params=params_words(Params(operands["params"])),
    )
