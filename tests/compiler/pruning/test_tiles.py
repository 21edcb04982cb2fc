# SPDX-License-Identifier: Apache-2.0
"""Which tiles pruning chooses: the smallest of plain loops over the array's blocks."""

import numpy as np
import pytest

from loomwork.arch.config import TINY
from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.tiles import (
    TiledWeights,
    check_sparsity,
    convolution_tiles,
    count_tiles,
    dense_tiles,
    smallest_tiles,
)


def tiled(name: str, weights: np.ndarray) -> TiledWeights:
    outputs, inputs, *kernel = weights.shape
    if not kernel:
        return TiledWeights(name=name, weights=weights, tiles=dense_tiles(outputs, inputs, TINY))
    height, width = kernel
    return TiledWeights(name=name, weights=weights, tiles=convolution_tiles((outputs, inputs, height, width), TINY))


def noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_tiles_of_a_dense_layer_are_blocks_of_its_matrix():
    weights = noise(8, 12)
    (keep,) = smallest_tiles([tiled("dense", weights)], 0.5, "network")
    norms = {(o, i): np.square(weights[o : o + 4, i : i + 4]).sum() for o in (0, 4) for i in (0, 4, 8)}
    expected = np.ones((8, 12), bool)
    for o, i in sorted(norms, key=lambda place: norms[place])[:3]:
        expected[o : o + 4, i : i + 4] = False
    np.testing.assert_array_equal(keep, expected)


def test_tiles_of_a_convolution_are_channels_of_one_tap():
    weights = noise(4, 4, 3, 3)
    (keep,) = smallest_tiles([tiled("conv", weights)], 0.34, "layer")
    norms = np.square(weights).sum(axis=(0, 1))
    expected = np.ones((3, 3), bool)
    expected.flat[np.argsort(norms, axis=None)[:3]] = False  # 0.34 of 9 tiles
    np.testing.assert_array_equal(keep, np.broadcast_to(expected, (4, 4, 3, 3)))


def test_a_flattened_map_has_the_channels_of_a_pixel_side_by_side():
    tiles = dense_tiles(4, 4 * 2 * 3, TINY, (4, 2, 3)).reshape(4, 4, 2, 3)
    assert len(np.unique(tiles)) == 6
    for y, x in np.ndindex(2, 3):
        assert len(np.unique(tiles[:, :, y, x])) == 1


def test_over_the_network_the_scale_of_a_layer_does_not_matter():
    even, uneven = np.ones((4, 16), np.float32), np.repeat([[1, 1, 9, 9]], 4, axis=1).repeat(4, axis=0)
    keeps = smallest_tiles([tiled("even", even), tiled("uneven", 100 * uneven)], 0.25, "network")
    assert [int(keep.size - keep.sum()) // 16 for keep in keeps] == [0, 2]
    keeps = smallest_tiles([tiled("even", even), tiled("uneven", 100 * uneven)], 0.25, "layer")
    assert [int(keep.size - keep.sum()) // 16 for keep in keeps] == [1, 1]


@pytest.mark.parametrize("scope", ["network", "layer"])
def test_the_strongest_tile_of_each_layer_stays(scope):
    small, large = noise(4, 8), noise(8, 16, seed=2)
    keeps = smallest_tiles([tiled("small", small), tiled("large", large)], 0.99, scope)
    assert [int(keep.sum()) for keep in keeps] == [16, 16]
    strongest = max((0, 4), key=lambda i: np.square(small[:, i : i + 4]).sum())
    assert keeps[0][:, strongest : strongest + 4].all()


def test_what_is_in_no_tile_stays_and_numbers_may_have_gaps():
    tiles = np.repeat([[0, -1, 7, 3]], 4, axis=0)
    layer = TiledWeights(name="gaps", weights=np.array([[4.0, 0.1, 1.0, 2.0]] * 4), tiles=tiles)
    (keep,) = smallest_tiles([layer], 2 / 3, "network")
    np.testing.assert_array_equal(keep, [[True, True, False, False]] * 4)
    zeroed = TiledWeights(name="gaps", weights=layer.weights * keep, tiles=tiles)
    count = count_tiles(zeroed)
    assert (count.name, count.tiles, count.zero) == ("gaps", 3, 2)


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, 50, float("nan")])
def test_a_sparsity_that_is_no_share(sparsity: float):
    with pytest.raises(
        CompileError, match=r"^sparsity is the share .*at least 0 and below 1, not .*; 0.5 removes half"
    ):
        check_sparsity(sparsity)


def test_sparsity_0_is_one():
    check_sparsity(0)
    (keep,) = smallest_tiles([tiled("dense", noise(8, 8))], 0, "network")
    assert keep.all()
