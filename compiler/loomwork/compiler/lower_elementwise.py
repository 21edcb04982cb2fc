# SPDX-License-Identifier: Apache-2.0
"""Lowering of what treats every value by itself: the drain takes an image row as one pixel of many channels."""

from math import ceil

from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Params
from loomwork.compiler.drain import (
    SECOND_STAGES,
    Pixels,
    combine_settings,
    drain,
    requant_identity,
    requant_shared,
    set_table,
)
from loomwork.compiler.graph import Combination, Graph, Rescale, Table
from loomwork.compiler.task import Task
from loomwork.compiler.tiling import channel_groups, row_chunk
from loomwork.compiler.views import Views
from loomwork.compiler.work import Effort, Rows, Work


class ElementwiseWork(Work):
    """Sum or product of two tensors in the scratchpad, or requantization or a table by itself."""

    def __init__(self, layer: Combination | Rescale | Table, index: int, graph: Graph, config: Config) -> None:
        super().__init__(layer, index, graph, config)
        self._operand = layer.operand if isinstance(layer, Combination) else None
        self._combine = Combine.TABLE if isinstance(layer, Table) else Combine.NONE
        if isinstance(layer, Combination):
            self._combine = SECOND_STAGES[type(layer)]
        self._row_bytes = graph.maps[layer.output].row_bytes
        self.max_rows = row_chunk(self._row_bytes, config.accumulator_depth * config.cols)

    def needs(self, rows: Rows) -> dict[str, Rows]:
        """See `Work`."""
        return dict.fromkeys([self.layer.input] if self._operand is None else [self.layer.input, self._operand], rows)

    def effort(self, rows: Rows) -> Effort:
        """See `Work`."""
        steps = (rows.end - rows.first) * ceil(self._row_bytes / self.config.requant_lanes)
        steps *= 1 if self._operand is None else 2
        return Effort(array=0, stream=0, drain=steps, tail=steps)

    def tasks(self, rows: Rows, views: Views) -> list[Task]:
        """See `Work`."""
        layer = self.layer
        if isinstance(layer, Combination):
            settings = [requant_identity(), combine_settings(layer, views, views.origin(layer.input, layer.operand))]
        elif isinstance(layer, Table):
            settings = [requant_identity(), *set_table(layer.table)]
        else:
            assert isinstance(layer, Rescale)
            settings = [requant_shared(layer.requantize, Params.UNIFORM)]
        tasks = [Task(command=command, layer=self.index) for command in settings]
        for offset, count in channel_groups(self._row_bytes, self.config.cols):
            tasks.append(
                drain(
                    views,
                    self.index,
                    source=Pixels(map=layer.input, row=rows.first, offset=offset),
                    operand=Pixels(map=self._operand, row=rows.first, offset=offset) if self._operand else None,
                    output=Pixels(map=layer.output, row=rows.first, offset=offset),
                    height=rows.end - rows.first,
                    width=1,
                    channels=count,
                    combine=self._combine,
                )
            )
        return tasks
