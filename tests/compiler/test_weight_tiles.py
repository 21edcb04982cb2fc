# SPDX-License-Identifier: Apache-2.0
"""The weight tiles that a kernel is made of."""

from dataclasses import replace

import numpy as np
import pytest

from loomwork.arch.config import BASE, SMALL, TINY, Config
from loomwork.arch.isa import MASK_PASSES, params_words
from loomwork.compiler.graph import Convolution
from loomwork.compiler.mapping import Mapping, map_convolution
from loomwork.compiler.sparsity import BlockRun
from loomwork.compiler.weight_tiles import MAX_PASSES, weight_tiles
from loomwork.compiler.weights import pack_weights, params_mode
from tests.compiler.random_graphs import GraphMaker

SHAPES = [
    (BASE, (1, 1, 40, 37), (1, 1)),
    (BASE, (3, 3, 20, 16), (1, 1)),
    (BASE, (5, 2, 1, 18), (2, 1)),  # passes of several kernel rows
    (SMALL, (3, 3, 13, 9), (2, 2)),  # taps on their own
    (TINY, (2, 3, 7, 5), (4, 3)),
    (TINY, (1, 3, 10, 4), (1, 2)),
]


def convolution(
    shape: tuple[int, int, int, int], dilation: tuple[int, int], config: Config
) -> tuple[Convolution, Mapping]:
    maker = GraphMaker(1)
    source = maker.input(16, 16, shape[2])
    maker.convolution(source, shape[3], kernel=shape[:2], dilation=dilation)
    layer = maker.layers[0]
    assert isinstance(layer, Convolution)
    return layer, map_convolution(layer, maker.maps[source], config)


@pytest.mark.parametrize(("config", "shape", "dilation"), SHAPES)
def test_weights_of_one_number_are_those_of_one_tile_in_the_stream(
    config: Config, shape: tuple[int, int, int, int], dilation: tuple[int, int]
):
    """With nothing but one tile's weights, the stream is zero everywhere but in the tile of that number."""
    layer, mapping = convolution(shape, dilation, config)
    tiles = weight_tiles(shape, config, dilation=dilation)
    assert tiles.shape == shape
    assert np.array_equal(np.unique(tiles), np.arange(mapping.blocks * mapping.passes))
    params = params_words(params_mode(layer.requantize)) * config.cols
    size = config.weight_tile_bytes
    for number in range(mapping.blocks * mapping.passes):
        kernel = np.where(tiles == number, 1, 0).astype(np.int8)
        runs = [BlockRun(0, shape[3], mapping.blocks)]
        stream = np.frombuffer(pack_weights(replace(layer, kernel=kernel), mapping, config, runs), np.uint8)
        blocks = stream.reshape(mapping.blocks, -1)[:, : mapping.passes * size]
        assert blocks.shape[1] + params == stream.size // mapping.blocks
        sums = blocks.reshape(-1, size).sum(axis=1)
        assert np.flatnonzero(sums).tolist() == [number]
        assert sums[number] == (tiles == number).sum() <= size


def test_zeros_bring_nothing_in_a_depthwise_convolution():
    assert (weight_tiles((3, 3, 1, 20), BASE, depthwise=True) == -1).all()


def test_zeros_bring_nothing_behind_the_mask_and_in_endless_blocks():
    # One pass for each 4 input channels.
    tiles = weight_tiles((1, 1, 4 * MASK_PASSES + 8, 6), TINY)
    assert (tiles[0, 0, : 4 * MASK_PASSES] >= 0).all()
    assert (tiles[0, 0, 4 * MASK_PASSES :] == -1).all()
    assert tiles[0, 0, 0].tolist() == [0] * 4 + [MASK_PASSES + 2] * 2
    assert (weight_tiles((1, 1, 4 * MAX_PASSES, 4), TINY) >= 0).sum() == 4 * 4 * MASK_PASSES
    assert (weight_tiles((1, 1, 4 * MAX_PASSES + 1, 4), TINY) == -1).all()
