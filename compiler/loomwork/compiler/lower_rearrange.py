# SPDX-License-Identifier: Apache-2.0
"""Lowering of rearrangements: the drain copies rectangles of pixels from the scratchpad to the scratchpad."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from loomwork.arch.config import Config
from loomwork.arch.isa import Params
from loomwork.compiler.drain import Pixels, Pooling, drain, requant_shared
from loomwork.compiler.graph import FeatureMap, Graph, Move, Rearrange
from loomwork.compiler.limits import largest
from loomwork.compiler.task import Task
from loomwork.compiler.tiling import MAX_TILE_SIDE, balanced, channel_groups, row_chunk
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.views import Views
from loomwork.compiler.work import Effort, Rows, Work

MAX_SOURCE_STEP = largest("DRAIN", "in_step")
MAX_TARGET_STEP = largest("DRAIN", "out_step")
MAX_ROW_STEP = largest("DRAIN", "pool_y_step")
MAX_COLUMN_STEP = largest("DRAIN", "pool_x_step")


class RearrangeWork(Work):
    """DRAINs from the scratchpad: one for each move, or one for each row where those of the output are not neighbours.

    Raises UnsupportedLayerError for steps that the command set has no room for.
    """

    def __init__(self, layer: Rearrange, index: int, graph: Graph, config: Config) -> None:
        super().__init__(layer, index, graph, config)
        self._rearrange = layer
        self._result = graph.maps[layer.output]
        self._moves = [self._joined(move) for move in layer.moves]
        self.max_rows = row_chunk(self._result.width, config.accumulator_depth)
        for move in self._moves:
            source = graph.maps[layer.reads[move.source]]
            if move.width > 1 and (
                source.channels > MAX_SOURCE_STEP
                or move.step[1] > MAX_COLUMN_STEP
                or self._result.channels * move.target_step[1] > MAX_TARGET_STEP
            ):
                raise UnsupportedLayerError(layer, f"it copies pixels too far apart for the command set: {move}")
            if move.height > 1 and move.step[0] > MAX_ROW_STEP:
                raise UnsupportedLayerError(
                    layer, f"it copies rows {move.step[0]} apart, at most {MAX_ROW_STEP} can be"
                )

    def needs(self, rows: Rows) -> dict[str, Rows]:
        """See `Work`."""
        found: dict[str, Rows] = {}
        for move in self._within(rows):
            name = self._rearrange.reads[move.source]
            own = Rows(move.origin[0], move.origin[0] + (move.height - 1) * move.step[0] + 1)
            known = found.get(name, own)
            found[name] = Rows(min(own.first, known.first), max(own.end, known.end))
        return found

    def effort(self, rows: Rows) -> Effort:
        """See `Work`."""
        lanes = self.config.requant_lanes
        steps = sum(move.height * move.width * ceil(move.channels / lanes) for move in self._within(rows))
        return Effort(array=0, stream=0, drain=steps, tail=steps)

    def tasks(self, rows: Rows, views: Views) -> list[Task]:
        """See `Work`."""
        tasks: list[Task] = []
        for move in self._within(rows):
            rule = self._rearrange.requantize[move.source]
            if move.fill is not None:
                rule = replace(rule, minimum=move.fill, maximum=move.fill)
            tasks.append(Task(command=requant_shared(rule, Params.UNIFORM), layer=self.index))
            for band in _bands(move):
                tasks += self._drains(band, views)
        return tasks

    def _drains(self, move: Move, views: Views) -> Iterator[Task]:
        """The commands of a move whose rows in the output are neighbours."""
        name = self._rearrange.reads[move.source]
        source, result = self.maps[name], self._result
        for left, width in balanced(move.width, MAX_TILE_SIDE):
            for first, channels in channel_groups(move.channels, self.config.cols):
                yield drain(
                    views,
                    self.index,
                    source=Pixels(
                        map=name,
                        row=move.origin[0],
                        offset=_byte(source, move.origin[1] + left * move.step[1], move.channel + first),
                        step=source.channels if width > 1 else 0,
                    ),
                    output=Pixels(
                        map=result.name,
                        row=move.target[0],
                        offset=_byte(result, move.target[1] + left * move.target_step[1], move.target_channel + first),
                        step=result.channels * move.target_step[1] if width > 1 else 0,
                    ),
                    height=move.height,
                    width=width,
                    channels=channels,
                    pooling=Pooling(step=(move.step[0], move.step[1]) if width > 1 else (move.step[0], 1)),
                )

    def _within(self, rows: Rows) -> Iterator[Move]:
        """The parts of the moves that write these rows of the output."""
        for move in self._moves:
            step = move.target_step[0]
            first = max(0, ceil((rows.first - move.target[0]) / step))
            end = min(move.height, ceil((rows.end - move.target[0]) / step))
            if first < end:
                yield replace(
                    move,
                    origin=(move.origin[0] + first * move.step[0], move.origin[1]),
                    target=(move.target[0] + first * step, move.target[1]),
                    height=end - first,
                )

    def _joined(self, move: Move) -> Move:
        """Neighbouring pixels of all channels as one pixel of many: the drain then has no lanes without work."""
        source, channels = self.maps[self._rearrange.reads[move.source]], move.channels
        alike = channels == source.channels == self._result.channels
        if not alike or move.step[1] != 1 or move.target_step[1] != 1 or move.width == 1:
            return move
        # Bytes of a row, counted as channels: `_byte` adds what columns and channels come to.
        return replace(move, width=1, channels=channels * move.width)


def _byte(feature_map: FeatureMap, column: int, channel: int) -> int:
    return column * feature_map.channels + channel


def _bands(move: Move) -> Iterator[Move]:
    """The move in parts whose rows in the output are neighbours."""
    if move.target_step[0] == 1 or move.height == 1:
        yield move
        return
    for row in range(move.height):
        yield replace(
            move,
            origin=(move.origin[0] + row * move.step[0], move.origin[1]),
            target=(move.target[0] + row * move.target_step[0], move.target[1]),
            height=1,
        )
