# SPDX-License-Identifier: Apache-2.0
"""Lowering of convolutions, alone or fused with what follows."""

from dataclasses import dataclass
from math import ceil

from loomwork.arch.command import Command
from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Params, Pool, Window
from loomwork.arch.isa import params_words as words_of_params
from loomwork.arch.skip import skip_operands
from loomwork.compiler.drain import (
    NO_POOLING,
    SECOND_STAGES,
    Pixels,
    Pooling,
    combine_settings,
    drain,
    requant_shared,
    set_table,
)
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Convolution, FeatureMap, Graph, MaxPool
from loomwork.compiler.limits import largest
from loomwork.compiler.mapping import Mapping, map_convolution
from loomwork.compiler.sparsity import BlockRun, block_runs
from loomwork.compiler.task import Region, Task
from loomwork.compiler.tiling import MAX_TILE_SIDE, Tile, balanced, channel_groups, covered, largest_tile
from loomwork.compiler.views import Views
from loomwork.compiler.weights import ConstantPool, params_mode
from loomwork.compiler.work import Effort, Rows, Work

MAX_STEP_BYTES = min(largest("CONVOLVE", "x_step"), largest("DRAIN", "out_step"))
"""Most bytes from one pixel of a tile to the next."""
MAX_ROW_STEP = largest("CONVOLVE", "y_step")
"""Most image rows from one row of a tile to the next."""

ACCUMULATOR_CYCLES = 45
"""From the last pixel of a block of one pass to the release of its accumulators."""
DRAIN_GAP_CYCLES = 6
"""From the last step of a DRAIN to the first one of the next."""


@dataclass(frozen=True)
class _Group:
    """Output channels that one STREAM serves, as runs of one CONVOLVE each, and its place in CONSTANTS."""

    runs: tuple[BlockRun, ...]
    offset: int
    words: int


class ConvolutionWork(Work):
    """STREAM, CONVOLVE and DRAIN for each tile and each group of output channels.

    Raises UnsupportedLayerError for what the command set cannot express.
    """

    def __init__(
        self, layer: Convolution | FusedConvolution, index: int, graph: Graph, config: Config, pool: ConstantPool | None
    ) -> None:
        super().__init__(layer, index, graph, config)
        self._fused = layer if isinstance(layer, FusedConvolution) else None
        convolution = self._fused.convolution if self._fused else layer
        assert isinstance(convolution, Convolution)
        self._convolution = convolution
        self._source, self._result = graph.maps[layer.input], graph.maps[layer.output]
        self._mapping = map_convolution(convolution, self._source, config)
        self._params = params_mode(convolution.requantize)
        self._groups: list[_Group] = []
        for first, channels in channel_groups(self._result.channels, config.cols):
            runs = block_runs(convolution, self._mapping, self._source, config, first, channels)
            offset = pool.add_stream(convolution, self._mapping, config, runs) if pool else 0
            parameters = words_of_params(self._params)
            words = sum(run.blocks * (run.executed_passes(self._mapping) * config.rows + parameters) for run in runs)
            self._groups.append(_Group(runs, offset, words))
        self._pooling = _pooling(self._fused.pool) if self._fused and self._fused.pool else NO_POOLING
        self._combine = Combine.NONE
        if self._fused and self._fused.combination:
            self._combine = SECOND_STAGES[type(self._fused.combination)]
        elif self._fused and self._fused.table is not None:
            self._combine = Combine.TABLE
        self._needs: dict[Rows, dict[str, Rows]] = {}
        # A tile of one row or column takes no step, however large the step would be.
        widest_step = max(convolution.stride[1] * self._source.channels, self._result.channels)
        self.max_rows, self._tile_width = largest_tile(
            self._result.width,
            config.accumulator_depth,
            window=self._pooling.window,
            stride=self._pooling.step,
            max_height=1 if convolution.stride[0] > MAX_ROW_STEP else MAX_TILE_SIDE,
            max_width=1 if widest_step > MAX_STEP_BYTES else MAX_TILE_SIDE,
        )

    def needs(self, rows: Rows) -> dict[str, Rows]:
        """See `Work`."""
        # The planner asks again and again.
        if rows not in self._needs:
            self._needs[rows] = self._needed(rows)
        return self._needs[rows]

    def _needed(self, rows: Rows) -> dict[str, Rows]:
        layer, pooling = self._convolution, self._pooling
        values = Rows(
            rows.first * pooling.step[0],
            rows.first * pooling.step[0] + covered(rows.end - rows.first, pooling.window[0], pooling.step[0]),
        )
        first = values.first * layer.stride[0] - layer.pad[0]
        end = (values.end - 1) * layer.stride[0] - layer.pad[0] + covered(layer.kernel.shape[0], 1, layer.dilation[0])
        needs: dict[str, Rows] = {}
        if max(first, 0) < min(end, self._source.height):
            needs[self.layer.input] = Rows(max(first, 0), min(end, self._source.height))
        if self._fused and self._fused.operand:
            # The operand may be the convolution's own input.
            other = needs.get(self._fused.operand, values)
            needs[self._fused.operand] = Rows(min(other.first, values.first), max(other.end, values.end))
        return needs

    def effort(self, rows: Rows) -> Effort:
        """See `Work`."""
        config, pooling = self.config, self._pooling
        array = stream = drain_steps = tail = 0
        for tile in self._tiles(rows):
            values = _values(tile, pooling)
            steps = tile.height * tile.width * pooling.window[0] * pooling.window[1] * config.channel_groups
            for group in self._groups:
                shared = _shared(self._convolution, self._mapping, values, self._source)
                every_pass = self._mapping.cycles(values.height, values.width, config, shared=shared)
                for run in group.runs:
                    passes = run.executed_passes(self._mapping)
                    block = every_pass * passes // self._mapping.passes
                    if passes == 1:
                        # A third block waits until the first has left its accumulators.
                        block = max(block, (block + ACCUMULATOR_CYCLES) // 2)
                    array += run.blocks * block
                    drain_steps += run.blocks * steps + DRAIN_GAP_CYCLES
                stream += ceil(group.words * config.cols / config.bus_bytes)
            # The drain is close behind an only pass.
            tail = 0 if self._groups[-1].runs[-1].executed_passes(self._mapping) == 1 else steps
        return Effort(array=array, stream=stream, drain=drain_steps, tail=tail)

    def tasks(self, rows: Rows, views: Views) -> list[Task]:
        """See `Work`."""
        layer, fused, index = self._convolution, self._fused, self.index
        tasks: list[Task] = []
        for tile in self._tiles(rows):
            values = _values(tile, self._pooling)
            for group in self._groups:
                tasks.append(_stream(group, index))
                for number, run in enumerate(group.runs):
                    if run.executed is not None:
                        tasks.append(Task(command=Command("SKIP", skip_operands(run.executed)), layer=index))
                    tasks.append(_convolve(layer, self._mapping, values, run, self._params, index, self._source, views))
                    if number == 0:
                        tasks.append(Task(command=requant_shared(layer.requantize, self._params), layer=index))
                        if fused and (combination := fused.combination):
                            origin = views.origin(combination.operand)
                            tasks.append(Task(command=combine_settings(combination, views, origin), layer=index))
                        if fused and fused.table is not None:
                            # Behind the CONVOLVE: while the array works there is time for so many commands.
                            tasks += [Task(command=command, layer=index) for command in set_table(fused.table)]
                    tasks.append(self._drain(tile, values, run, views))
        return tasks

    def _drain(self, tile: Tile, values: Tile, run: BlockRun, views: Views) -> Task:
        """DRAIN of one CONVOLVE."""
        fused, channels = self._fused, self._result.channels
        operand = None
        if fused and fused.combination:
            operand = Pixels(
                map=fused.combination.operand,
                row=values.y,
                offset=values.x * channels + run.first,
                step=channels if values.width > 1 else 0,
            )
        return drain(
            views,
            self.index,
            output=Pixels(
                map=self.layer.output,
                row=tile.y,
                offset=tile.x * channels + run.first,
                step=channels if tile.width > 1 else 0,
            ),
            height=tile.height,
            width=tile.width,
            channels=run.channels,
            accumulator_pitch=values.width,
            operand=operand,
            pooling=self._pooling,
            combine=self._combine,
            params=self._params,
        )

    def _tiles(self, rows: Rows) -> list[Tile]:
        return [
            Tile(rows.first, x, rows.end - rows.first, columns)
            for x, columns in balanced(self._result.width, self._tile_width)
        ]


def _values(tile: Tile, pooling: Pooling) -> Tile:
    """The values behind a tile of pooled pixels."""
    return Tile(
        tile.y * pooling.step[0],
        tile.x * pooling.step[1],
        covered(tile.height, pooling.window[0], pooling.step[0]),
        covered(tile.width, pooling.window[1], pooling.step[1]),
    )


def _pooling(pool: MaxPool) -> Pooling:
    return Pooling(mode=Pool.MAX, window=pool.window, step=pool.stride)


def _shared(layer: Convolution, mapping: Mapping, tile: Tile, source: FeatureMap) -> int:
    """Columns of padding that neighbouring rows of a tile have in common."""
    return mapping.shared(tile.x * layer.stride[1] - layer.pad[1], tile.width, source)


def _stream(group: _Group, index: int) -> Task:
    operands = {"window": Window.CONSTANTS, "offset": group.offset, "words": group.words}
    return Task(command=Command("STREAM", operands), layer=index)


def _convolve(
    layer: Convolution,
    mapping: Mapping,
    tile: Tile,
    run: BlockRun,
    params: Params,
    index: int,
    source: FeatureMap,
    views: Views,
) -> Task:
    stride_y, stride_x = layer.stride
    x_start = (tile.x * stride_x - layer.pad[1]) * source.channels
    x_start += run.first // views.config.cols * mapping.block_step
    columns = mapping.x_stride * (tile.width - 1) + mapping.taps
    step = source.channels if mapping.depthwise else stride_x * source.channels
    origin = views.origin(layer.input)
    operands = {
        "base": views.base(layer.input),
        "pitch": views.pitch(layer.input),
        "height": source.height - origin,
        "row_bytes": source.row_bytes,
        "x_start": x_start,
        "x_step": step if columns > 1 else 0,
        "y_start": tile.y * stride_y - layer.pad[0] - origin,
        "y_step": stride_y if tile.height > 1 else 0,
        "tap_count": mapping.tap_count,
        "tap_step": mapping.tap_step,
        "row_step": mapping.row_step,
        "kernel_rows": mapping.kernel_rows,
        "tile_width": tile.width,
        "tile_height": tile.height,
        "blocks": run.blocks,
        "block_step": mapping.block_step,
        "pad": source.zero_point,
        "params": params,
        "ring": views.ring(layer.input),
    }
    if mapping.depthwise:
        operands |= {"taps": mapping.taps, "x_stride": mapping.x_stride}
        operands["shared"] = _shared(layer, mapping, tile, source)
    else:
        operands["length"] = mapping.length
    region = _read_region(layer.input, operands, columns, mapping.length, views)
    return Task(command=Command(mapping.mnemonic, operands), layer=index, reads=(region,) if region else ())


def _read_region(name: str, operands: dict[str, int], columns: int, length: int, views: Views) -> Region | None:
    """The part of the image that a CONVOLVE or a DEPTHWISE reads; None when it reads only padding.

    columns, length: it takes `length` bytes at so many places of an image row, `x_step` apart.
    """
    first_row = operands["y_start"]
    end_row = first_row + (operands["tile_height"] - 1) * operands["y_step"]
    end_row += covered(operands["kernel_rows"], 1, operands["row_step"])
    first_byte = operands["x_start"]
    end_byte = first_byte + (columns - 1) * operands["x_step"]
    end_byte += (operands["blocks"] - 1) * operands["block_step"]
    end_byte += (operands["tap_count"] - 1) * operands["tap_step"] + length
    first_row, end_row = max(0, first_row), min(operands["height"], end_row)
    first_byte, end_byte = max(0, first_byte), min(operands["row_bytes"], end_byte)
    if first_row >= end_row or first_byte >= end_byte:
        return None
    return views.region(name, first_row + views.origin(name), end_row - first_row, first_byte, end_byte)
