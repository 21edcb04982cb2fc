# SPDX-License-Identifier: Apache-2.0
"""Lowering of what treats every value by itself: the drain takes an image row as one pixel of many channels."""

from loomwork.arch.command import Command
from loomwork.arch.isa import Combine, Params
from loomwork.compiler.allocate import Allocation
from loomwork.compiler.drain import Pixels, combine_add, drain, requant_identity, requant_shared
from loomwork.compiler.graph import Add, Rescale
from loomwork.compiler.task import Task
from loomwork.compiler.tiling import channel_groups, row_chunks


def lower_add(layer: Add, index: int, allocation: Allocation) -> list[Task]:
    """ADD of two tensors in the scratchpad."""
    settings = [requant_identity(), combine_add(layer, allocation)]
    return _rows(layer.input, layer.output, index, allocation, settings, operand=layer.operand)


def lower_rescale(layer: Rescale, index: int, allocation: Allocation) -> list[Task]:
    """Requantization by itself."""
    settings = [requant_shared(layer.requantize, Params.UNIFORM)]
    return _rows(layer.input, layer.output, index, allocation, settings)


def _rows(
    source: str,
    output: str,
    index: int,
    allocation: Allocation,
    settings: list[Command],
    operand: str | None = None,
) -> list[Task]:
    config = allocation.config
    result = allocation.maps[output]
    tasks = [Task(command=command, layer=index) for command in settings]
    for row, rows in row_chunks(result.height, result.row_bytes, config.accumulator_depth * config.cols):
        for offset, count in channel_groups(result.row_bytes, config.cols):
            tasks.append(
                drain(
                    allocation,
                    index,
                    source=Pixels(map=source, row=row, offset=offset),
                    operand=Pixels(map=operand, row=row, offset=offset) if operand else None,
                    output=Pixels(map=output, row=row, offset=offset),
                    height=rows,
                    width=1,
                    channels=count,
                    combine=Combine.ADD if operand else Combine.NONE,
                )
            )
    return tasks
