# SPDX-License-Identifier: Apache-2.0
"""Lowering of pooling and mean: the drain reads them from the scratchpad."""

from collections.abc import Iterator
from dataclasses import dataclass

from loomwork.arch.isa import Params, Pool
from loomwork.compiler.allocate import Allocation
from loomwork.compiler.drain import (
    Pixels,
    Pooling,
    drain,
    requant_divide,
    requant_identity,
    requant_shared,
)
from loomwork.compiler.graph import FeatureMap, Layer, MaxPool, Mean, PoolLayer
from loomwork.compiler.limits import largest
from loomwork.compiler.task import Task
from loomwork.compiler.tiling import MAX_TILE_SIDE, Run, balanced, channel_groups, pooling_runs, row_chunks
from loomwork.compiler.unsupported import UnsupportedLayerError

MAX_WINDOW = largest("DRAIN", "pool_height")
"""Most rows or columns of a pooling window."""
MAX_PIXEL_STEP = largest("DRAIN", "in_step")
"""Most bytes from one pixel to the next."""


@dataclass(frozen=True)
class _Part:
    """A rectangle of output pixels whose windows have the same size."""

    rows: Run
    columns: Run


def lower_pool(layer: PoolLayer, index: int, allocation: Allocation) -> list[Task]:
    """One DRAIN for each rectangle of output pixels with equal (clipped) windows, each divided by its own count.

    Raises UnsupportedLayerError for windows that the command set cannot express.
    """
    source, result = allocation.maps[layer.input], allocation.maps[layer.output]
    mode = Pool.MAX if isinstance(layer, MaxPool) else Pool.SUM
    tasks: list[Task] = []
    for part in _parts(layer, source, result, allocation.config.accumulator_depth):
        window = (part.rows.size, part.columns.size)
        _check_window(layer, window)
        if isinstance(layer, MaxPool):
            settings = requant_identity(layer.minimum, layer.maximum)
        else:
            settings = requant_divide(window[0] * window[1], layer.minimum, layer.maximum)
        for first, channels in channel_groups(source.channels, allocation.config.cols):
            tasks.append(Task(command=settings, layer=index))
            tasks.append(
                drain(
                    allocation,
                    index,
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
                        step=_step(layer, result),
                    ),
                    height=part.rows.count,
                    width=part.columns.count,
                    channels=channels,
                    pooling=Pooling(mode=mode, window=window, step=(part.rows.step, part.columns.step)),
                )
            )
    return tasks


def lower_mean(layer: Mean, index: int, allocation: Allocation) -> list[Task]:
    """The sum of the whole image, requantized; raises UnsupportedLayerError for an image that is too large."""
    source = allocation.maps[layer.input]
    window = (source.height, source.width)
    _check_window(layer, window)
    tasks = [Task(command=requant_shared(layer.requantize, Params.UNIFORM), layer=index)]
    for first, channels in channel_groups(source.channels, allocation.config.cols):
        tasks.append(
            drain(
                allocation,
                index,
                source=Pixels(map=layer.input, offset=first, step=_step(layer, source)),
                output=Pixels(map=layer.output, offset=first),
                height=1,
                width=1,
                channels=channels,
                pooling=Pooling(mode=Pool.SUM, window=window, step=(0, 0)),
            )
        )
    return tasks


def _parts(layer: PoolLayer, source: FeatureMap, result: FeatureMap, values: int) -> Iterator[_Part]:
    rows = pooling_runs(result.height, source.height, layer.window[0], layer.stride[0], layer.pad[0])
    columns = pooling_runs(result.width, source.width, layer.window[1], layer.stride[1], layer.pad[1])
    for row in rows:
        for start, count in row_chunks(row.count, result.width, values):
            for column in columns:
                for left, width in balanced(column.count, MAX_TILE_SIDE):
                    yield _Part(_slice(row, start, count), _slice(column, left, width))


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
