# SPDX-License-Identifier: Apache-2.0
"""Weights and requantization parameters in the order in which the array takes them from the stream."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.arch.isa import Params
from loomwork.arch.numerics import wrap_int32
from loomwork.arch.reduction import depthwise_passes, passes
from loomwork.compiler.graph import Convolution, Requantize
from loomwork.compiler.mapping import Mapping
from loomwork.compiler.sparsity import BlockRun


class ConstantPool:
    """The contents of the CONSTANTS window; equal pieces are stored once."""

    ALIGNMENT = 64

    def __init__(self) -> None:
        self._data = bytearray()
        self._offsets: dict[bytes, int] = {}
        self._streams: dict[tuple[int, int, Mapping, tuple[BlockRun, ...]], tuple[Convolution, int]] = {}

    def add_stream(self, layer: Convolution, mapping: Mapping, config: Config, runs: tuple[BlockRun, ...]) -> int:
        """Store what `pack_weights` makes of these arguments; returns its offset.

        Layers that share the arrays of their kernel and requantization, as the parts of one do, are packed once.
        """
        key = id(layer.kernel), id(layer.requantize), mapping, runs
        if key not in self._streams:
            # The layer is kept, so that no other object takes the identities of its members.
            self._streams[key] = layer, self.add(pack_weights(layer, mapping, config, runs))
        return self._streams[key][1]

    def add(self, piece: bytes) -> int:
        """Store a piece, padded to ALIGNMENT; returns its offset."""
        if piece not in self._offsets:
            self._offsets[piece] = len(self._data)
            self._data += piece + bytes(-len(piece) % self.ALIGNMENT)
        return self._offsets[piece]

    def __bytes__(self) -> bytes:
        return bytes(self._data)


def params_mode(requantize: Requantize) -> Params:
    """Which parameters follow each block's weights."""
    shared = all(len(np.unique(values)) == 1 for values in (requantize.multiplier, requantize.shift))
    return Params.BIAS if shared else Params.PER_CHANNEL


def pack_weights(layer: Convolution, mapping: Mapping, config: Config, runs: Sequence[BlockRun]) -> bytes:
    """The stream of these output channels, for one tile of pixels.

    For each block of `cols` output channels: for each tap (or group of taps), for each pass that is executed, `rows`
    words of `cols` int8 weights (zero where the reduction has no byte or the layer no channel); then the block's
    parameters.
    """
    params = params_mode(layer.requantize)
    pack = _depthwise_tiles if mapping.depthwise else _dense_tiles
    pieces: list[bytes] = []
    for run in runs:
        for block in range(run.first // config.cols, run.first // config.cols + run.blocks):
            tiles = pack(layer, mapping, config, block).reshape(mapping.passes, -1)
            if run.executed is not None:
                tiles = tiles[np.array(run.executed)]
            pieces += [tiles.tobytes(), _block_params(layer, config, block, params)]
    return b"".join(pieces)


def _depthwise_tiles(layer: Convolution, mapping: Mapping, config: Config, block: int) -> NDArray[np.int8]:
    """The weight tiles of one block of a DEPTHWISE: `[tap groups, passes, row groups, depthwise_taps, cols]`."""
    height, width, _, outputs = layer.kernel.shape
    first = block * config.cols
    count = min(config.cols, outputs - first)
    kernel = np.zeros((height, mapping.tap_count * mapping.taps, config.cols), dtype=np.int8)
    kernel[:, :width, :count] = layer.kernel[:, :, 0, first : first + count]
    taps = kernel.reshape(height, mapping.tap_count, mapping.taps, config.cols).swapaxes(0, 1)
    cut = list(depthwise_passes(config.depthwise_groups, height, mapping.row_step))
    tiles = np.zeros(
        (mapping.tap_count, len(cut), config.depthwise_groups, config.depthwise_taps, config.cols), dtype=np.int8
    )
    for number, kernel_rows in enumerate(cut):
        tiles[:, number, : len(kernel_rows), : mapping.taps] = taps[:, kernel_rows.start : kernel_rows.stop]
    return tiles


def _dense_tiles(layer: Convolution, mapping: Mapping, config: Config, block: int) -> NDArray[np.int8]:
    """The weight tiles of one block of a CONVOLVE: `[taps, passes * rows, cols]`."""
    places, passes = _places(config.rows, mapping.kernel_rows, mapping.length, mapping.row_step)
    tiles = np.zeros((mapping.tap_count, passes * config.rows, config.cols), dtype=np.int8)
    kernel = _block_kernel(layer, mapping, config, block)
    tiles[:, places] = kernel.swapaxes(0, 1).reshape(mapping.tap_count, -1, config.cols)
    return tiles


@cache
def _places(rows: int, kernel_rows: int, length: int, row_step: int) -> tuple[NDArray[np.int64], int]:
    """For each byte of the reduction, its array row, counted over all passes; and the number of passes."""
    sizes = [sum(segment.length for segment in segments) for segments in passes(rows, kernel_rows, length, row_step)]
    # The kernel rows lie end to end, and passes cut them where they come: each takes the next bytes of the reduction.
    behind = np.cumsum(sizes)
    gaps = np.arange(len(sizes)) * rows - (behind - sizes)
    return np.arange(behind[-1]) + np.repeat(gaps, sizes), len(sizes)


def _block_kernel(layer: Convolution, mapping: Mapping, config: Config, block: int) -> NDArray[np.int8]:
    """The weights of one block as `[kernel rows, taps, length, cols]`."""
    height, width, _, outputs = layer.kernel.shape
    first = block * config.cols
    count = min(config.cols, outputs - first)
    reads = mapping.length if mapping.diagonal else mapping.input_channels
    kernel = np.zeros((height, width, reads, config.cols), dtype=np.int8)
    part = layer.kernel[..., first : first + count]
    if layer.depthwise:
        columns = np.arange(count)
        multiplier = outputs // mapping.input_channels
        first_input = first // multiplier if mapping.diagonal else 0
        kernel[:, :, (first + columns) // multiplier - first_input, columns] = part[:, :, 0, :]
    else:
        kernel[..., :count] = part
    return kernel.reshape(height, mapping.tap_count, mapping.length, config.cols)


def _block_params(layer: Convolution, config: Config, block: int, params: Params) -> bytes:
    """The parameters of one block; see `arch.isa.Params`."""
    outputs = layer.kernel.shape[3]
    first = block * config.cols

    def column_values(values: NDArray[np.int64], dtype: str) -> bytes:
        padded = np.zeros(config.cols, dtype=np.int64)
        part = np.broadcast_to(values, outputs)[first : first + config.cols]
        padded[: len(part)] = part
        return padded.astype(dtype).tobytes()

    requantize = layer.requantize
    data = column_values(wrap_int32(requantize.bias), "<i4")
    if params is Params.PER_CHANNEL:
        data += column_values(requantize.multiplier, "<i4") + column_values(requantize.shift, "i1")
    return data
