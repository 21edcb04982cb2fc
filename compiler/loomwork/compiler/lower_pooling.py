# SPDX-License-Identifier: Apache-2.0
"""Lowering of pooling and mean: the drain reads them from the scratchpad."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from loomwork.arch.config import Config
from loomwork.arch.isa import Params, Pool
from loomwork.compiler.drain import (
    Pixels,
    Pooling,
    drain,
    requant_divide,
    requant_identity,
    requant_shared,
)
from loomwork.compiler.graph import AveragePool, FeatureMap, Graph, Layer, MaxPool, Mean, PoolLayer
from loomwork.compiler.limits import largest
from loomwork.compiler.task import Task
from loomwork.compiler.tiling import MAX_TILE_SIDE, Run, balanced, channel_groups, covered, pooling_runs, row_chunk
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.views import Views
from loomwork.compiler.work import Effort, Rows, Work

MAX_WINDOW = largest("DRAIN", "pool_height")
"""Most rows or columns of a pooling window."""
MAX_PIXEL_STEP = largest("DRAIN", "in_step")
"""Most bytes from one pixel to the next."""


@dataclass(frozen=True)
class _Part:
    """A rectangle of output pixels whose windows have the same size."""

    rows: Run
    columns: Run


class PoolWork(Work):
    """One DRAIN for each rectangle of output pixels with equal (clipped) windows, each divided by its own count.

    Raises UnsupportedLayerError for windows that the command set cannot express.
    """

    def __init__(self, layer: PoolLayer, index: int, graph: Graph, config: Config) -> None:
        super().__init__(layer, index, graph, config)
        self._pool = layer
        self._source, self._result = graph.maps[layer.input], graph.maps[layer.output]
        axes = zip(
            (self._result.height, self._result.width),
            (self._source.height, self._source.width),
            *(layer.window, layer.stride, layer.pad),
            strict=True,
        )
        self._rows, self._columns = (pooling_runs(*axis) for axis in axes)
        _check_window(layer, (max(run.size for run in self._rows), max(run.size for run in self._columns)))
        self.max_rows = row_chunk(self._result.width, config.accumulator_depth)

    def needs(self, rows: Rows) -> dict[str, Rows]:
        """See `Work`."""
        runs = list(_within(self._rows, rows))
        last = runs[-1]
        return {self.layer.input: Rows(runs[0].start, last.start + covered(last.count, last.size, last.step))}

    def effort(self, rows: Rows) -> Effort:
        """See `Work`."""
        values = (rows.end - rows.first) * self._result.width * self._pool.window[0] * self._pool.window[1]
        steps = values * ceil(self._source.channels / self.config.requant_lanes)
        return Effort(array=0, stream=0, drain=steps, tail=steps)

    def tasks(self, rows: Rows, views: Views) -> list[Task]:
        """See `Work`."""
        layer, source = self._pool, self._source
        mode = Pool.MAX if isinstance(layer, MaxPool) else Pool.SUM
        tasks: list[Task] = []
        for part in self._parts(rows):
            window = (part.rows.size, part.columns.size)
            if isinstance(layer, MaxPool):
                settings = requant_identity(layer.minimum, layer.maximum)
            elif isinstance(layer, AveragePool) and layer.rules is not None:
                rule = replace(layer.rules[window[0] * window[1]], minimum=layer.minimum, maximum=layer.maximum)
                settings = requant_shared(rule, Params.UNIFORM)
            else:
                settings = requant_divide(window[0] * window[1], layer.minimum, layer.maximum)
            for first, channels in channel_groups(source.channels, self.config.cols):
                tasks.append(Task(command=settings, layer=self.index))
                tasks.append(
                    drain(
                        views,
                        self.index,
                        source=Pixels(
                            map=layer.input,
                            row=part.rows.start,
                            offset=part.columns.start * source.channels + first,
                            step=_step(layer, source),
                        ),
                        output=Pixels(
                            map=layer.output,
                            row=part.rows.first,
                            offset=part.columns.first * source.channels + first,
                            step=_step(layer, self._result),
                        ),
                        height=part.rows.count,
                        width=part.columns.count,
                        channels=channels,
                        pooling=Pooling(mode=mode, window=window, step=(part.rows.step, part.columns.step)),
                    )
                )
        return tasks

    def _parts(self, rows: Rows) -> Iterator[_Part]:
        for run in _within(self._rows, rows):
            for column in self._columns:
                for left, width in balanced(column.count, MAX_TILE_SIDE):
                    yield _Part(run, _slice(column, left, width))


class MeanWork(Work):
    """The sum of the whole image, requantized; raises UnsupportedLayerError for an image that is too large."""

    max_rows = 1

    def __init__(self, layer: Mean, index: int, graph: Graph, config: Config) -> None:
        super().__init__(layer, index, graph, config)
        self._mean = layer
        self._source = graph.maps[layer.input]
        self._window = (self._source.height, self._source.width)
        _check_window(layer, self._window)

    def needs(self, rows: Rows) -> dict[str, Rows]:
        """See `Work`."""
        del rows  # there is one
        return {self.layer.input: Rows(0, self._source.height)}

    def effort(self, rows: Rows) -> Effort:
        """See `Work`."""
        del rows
        steps = self._window[0] * self._window[1] * ceil(self._source.channels / self.config.requant_lanes)
        return Effort(array=0, stream=0, drain=steps, tail=steps)

    def tasks(self, rows: Rows, views: Views) -> list[Task]:
        """See `Work`."""
        del rows
        layer, source = self._mean, self._source
        tasks = [Task(command=requant_shared(layer.requantize, Params.UNIFORM), layer=self.index)]
        for first, channels in channel_groups(source.channels, self.config.cols):
            tasks.append(
                drain(
                    views,
                    self.index,
                    source=Pixels(map=layer.input, offset=first, step=_step(layer, source)),
                    output=Pixels(map=layer.output, offset=first),
                    height=1,
                    width=1,
                    channels=channels,
                    pooling=Pooling(mode=Pool.SUM, window=self._window, step=(0, 0)),
                )
            )
        return tasks


def _within(runs: list[Run], rows: Rows) -> Iterator[Run]:
    """The parts of the runs whose output positions are among `rows`."""
    for run in runs:
        first, end = max(run.first, rows.first), min(run.first + run.count, rows.end)
        if first < end:
            yield _slice(run, first - run.first, end - first)


def _slice(run: Run, first: int, count: int) -> Run:
    return Run(run.first + first, count, run.start + first * run.step, run.size, run.step)


def _step(layer: Layer, feature_map: FeatureMap) -> int:
    if feature_map.width == 1:
        return 0
    if feature_map.channels > MAX_PIXEL_STEP:
        raise UnsupportedLayerError(
            layer, f"it pools {feature_map.channels} channels, the command set has room for {MAX_PIXEL_STEP}"
        )
    return feature_map.channels


def _check_window(layer: Layer, window: tuple[int, int]) -> None:
    if max(window) > MAX_WINDOW:
        raise UnsupportedLayerError(
            layer, f"it pools over {window[0]}x{window[1]} pixels, the drain over at most {MAX_WINDOW}x{MAX_WINDOW}"
        )
