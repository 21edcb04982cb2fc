# SPDX-License-Identifier: Apache-2.0
"""Lowering of convolutions, alone or fused with what follows."""

from dataclasses import dataclass
from math import ceil

from loomwork.arch.command import Command
from loomwork.arch.isa import Combine, Params, Pool, Window
from loomwork.arch.isa import params_words as words_of_params
from loomwork.compiler.allocate import Allocation
from loomwork.compiler.drain import NO_POOLING, Pixels, Pooling, combine_add, drain, requant_shared
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Convolution, MaxPool
from loomwork.compiler.limits import largest
from loomwork.compiler.mapping import Mapping, map_convolution
from loomwork.compiler.task import Region, Task
from loomwork.compiler.tiling import MAX_TILE_SIDE, Tile, accumulator_tiles, channel_groups, covered
from loomwork.compiler.weights import ConstantPool, pack_weights, params_mode

MAX_STEP_BYTES = min(largest("CONVOLVE", "x_step"), largest("DRAIN", "out_step"))
"""Most bytes from one pixel of a tile to the next."""
MAX_ROW_STEP = largest("CONVOLVE", "y_step")
"""Most image rows from one row of a tile to the next."""


@dataclass(frozen=True)
class _Group:
    """Output channels of one CONVOLVE and the place of their stream in CONSTANTS."""

    first: int
    channels: int
    blocks: int
    offset: int
    words: int


def lower_convolution(
    layer: Convolution | FusedConvolution, index: int, allocation: Allocation, pool: ConstantPool
) -> list[Task]:
    """STREAM, CONVOLVE and DRAIN for each tile and each group of output channels.

    Raises UnsupportedLayerError for what the command set cannot express.
    """
    fused = layer if isinstance(layer, FusedConvolution) else None
    convolution = fused.convolution if fused else layer
    assert isinstance(convolution, Convolution)
    config = allocation.config
    source, result = allocation.maps[layer.input], allocation.maps[layer.output]
    mapping = map_convolution(convolution, source, config)
    params = params_mode(convolution.requantize)
    groups: list[_Group] = []
    for first, channels in channel_groups(result.channels, config.cols):
        data = pack_weights(convolution, mapping, config, first, channels)
        blocks = ceil(channels / config.cols)
        words = blocks * (mapping.passes * config.rows + words_of_params(params))
        groups.append(_Group(first, channels, blocks, pool.add(data), words))

    pooling = _pooling(fused.pool) if fused and fused.pool else NO_POOLING
    # A tile of one row or column takes no step, however large the step would be.
    widest_step = max(convolution.stride[1] * source.channels, result.channels)
    tiles = accumulator_tiles(
        result.height,
        result.width,
        config.accumulator_depth,
        window=pooling.window,
        stride=pooling.step,
        max_height=1 if convolution.stride[0] > MAX_ROW_STEP else MAX_TILE_SIDE,
        max_width=1 if widest_step > MAX_STEP_BYTES else MAX_TILE_SIDE,
    )
    tasks: list[Task] = []
    for tile in tiles:
        values = Tile(
            tile.y * pooling.step[0],
            tile.x * pooling.step[1],
            covered(tile.height, pooling.window[0], pooling.step[0]),
            covered(tile.width, pooling.window[1], pooling.step[1]),
        )
        for group in groups:
            tasks.append(_stream(group, index))
            tasks.append(_convolve(convolution, mapping, values, group, params, index, allocation))
            tasks.append(Task(command=requant_shared(convolution.requantize, params), layer=index))
            operand = None
            if fused and fused.add:
                tasks.append(Task(command=combine_add(fused.add, allocation), layer=index))
                operand = Pixels(
                    map=fused.add.operand,
                    row=values.y,
                    offset=values.x * result.channels + group.first,
                    step=result.channels if values.width > 1 else 0,
                )
            tasks.append(
                drain(
                    allocation,
                    index,
                    output=Pixels(
                        map=layer.output,
                        row=tile.y,
                        offset=tile.x * result.channels + group.first,
                        step=result.channels if tile.width > 1 else 0,
                    ),
                    height=tile.height,
                    width=tile.width,
                    channels=group.channels,
                    accumulator_pitch=values.width,
                    operand=operand,
                    pooling=pooling,
                    combine=Combine.ADD if operand else Combine.NONE,
                    params=params,
                )
            )
    return tasks


def _pooling(pool: MaxPool) -> Pooling:
    return Pooling(mode=Pool.MAX, window=pool.window, step=pool.stride)


def _stream(group: _Group, index: int) -> Task:
    operands = {"window": Window.CONSTANTS, "offset": group.offset, "words": group.words}
    return Task(command=Command("STREAM", operands), layer=index)


def _convolve(
    layer: Convolution,
    mapping: Mapping,
    tile: Tile,
    group: _Group,
    params: Params,
    index: int,
    allocation: Allocation,
) -> Task:
    source = allocation.maps[layer.input]
    stride_y, stride_x = layer.stride
    x_start = (tile.x * stride_x - layer.pad[1]) * source.channels
    x_start += group.first // allocation.config.cols * mapping.block_step
    columns = mapping.x_stride * (tile.width - 1) + mapping.taps
    step = source.channels if mapping.depthwise else stride_x * source.channels
    operands = {
        "base": allocation.base[layer.input],
        "pitch": allocation.pitch(layer.input),
        "height": source.height,
        "row_bytes": source.row_bytes,
        "x_start": x_start,
        "x_step": step if columns > 1 else 0,
        "y_start": tile.y * stride_y - layer.pad[0],
        "y_step": stride_y if tile.height > 1 else 0,
        "tap_count": mapping.tap_count,
        "tap_step": mapping.tap_step,
        "row_step": mapping.row_step,
        "kernel_rows": mapping.kernel_rows,
        "tile_width": tile.width,
        "tile_height": tile.height,
        "blocks": group.blocks,
        "block_step": mapping.block_step,
        "pad": source.zero_point,
        "params": params,
    }
    if mapping.depthwise:
        operands |= {"taps": mapping.taps, "x_stride": mapping.x_stride}
    else:
        operands["length"] = mapping.length
    region = _read_region(layer.input, operands, columns, mapping.length, allocation)
    return Task(command=Command(mapping.mnemonic, operands), layer=index, reads=(region,) if region else ())


def _read_region(
    name: str, operands: dict[str, int], columns: int, length: int, allocation: Allocation
) -> Region | None:
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
    return allocation.region(name, first_row, end_row - first_row, first_byte, end_byte)
