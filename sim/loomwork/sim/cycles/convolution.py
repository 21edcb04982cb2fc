# SPDX-License-Identifier: Apache-2.0
"""How a command of EXECUTE occupies the array: its passes, in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.arch.isa import Params, Unit, params_words
from loomwork.arch.reduction import depthwise_columns, depthwise_passes, passes
from loomwork.arch.skip import executed_passes
from loomwork.sim.cycles.commands import Step


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One CONVOLVE or DEPTHWISE.

    blocks: blocks of output channels. passes: numbers of the passes of one block that are executed. tap_passes: passes
    of one tap, executed or not. segments: of each executed pass, the cycles its preparation takes; left_out: those that
    the passes left out in front of it take.
    columns: cycles in which one pass feeds the array. row_columns: of these, those of the last row; the other rows
    have `shared` fewer. outputs: in which of them each output pixel begins.
    params: words of parameters behind the weights of a block.
    """

    blocks: int
    passes: tuple[int, ...]
    tap_passes: int
    segments: tuple[int, ...]
    left_out: tuple[int, ...]
    columns: int
    row_columns: int
    shared: int
    outputs: NDArray[np.int64]
    params: int


@cache
def _convolve_segments(rows: int, kernel_rows: int, length: int, row_step: int) -> tuple[int, ...]:
    return tuple(len(segments) for segments in passes(rows, kernel_rows, length, row_step))


def shapes_of(commands: Sequence[Step], config: Config) -> list[Shape | None]:
    """The shapes of the commands of EXECUTE among `commands`, in order; a SKIP has none, and counts in the next one's.

    Raises ValueError for a SKIP whose last pass the command behind it does not have.
    """
    shapes: list[Shape | None] = []
    skip = None
    for command in commands:
        if command.mnemonic == "SKIP":
            shapes.append(None)
            skip = command
        elif command.unit is Unit.EXECUTE:
            shapes.append(shape_of(command, config, skip))
            skip = None
    return shapes


def shape_of(command: Step, config: Config, skip: Step | None = None) -> Shape:
    """The shape of a CONVOLVE or a DEPTHWISE: one segment of a pass cut per cycle, one pixel or input column fed.

    skip: the SKIP in front of it. Raises ValueError when its last pass is none of the command.
    """
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
    of_block = segments * operands["tap_count"]
    executed = executed_passes(skip.operands if skip else None, len(of_block))
    return Shape(
        blocks=operands["blocks"],
        passes=executed,
        tap_passes=len(segments),
        segments=tuple(of_block[number] for number in executed),
        left_out=tuple(sum(of_block[before + 1 : number]) for before, number in pairwise((-1, *executed))),
        columns=height * (row_columns - shared) + shared,
        row_columns=row_columns,
        shared=shared,
        outputs=np.add.outer(np.arange(height) * (row_columns - shared), np.arange(width) * stride).ravel(),
        params=params_words(Params(operands["params"])),
    )
