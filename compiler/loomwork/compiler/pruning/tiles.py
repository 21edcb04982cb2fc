# SPDX-License-Identifier: Apache-2.0
"""Which weight tiles of a network pruning sets to zero: those with the smallest weights.

A tile is what the array holds at once, see `weight_tiles`. Magnitude decides, after Han et al.,
https://arxiv.org/abs/1506.02626, for blocks instead of single weights. A tile's score is the root of the mean square of
its weights, divided by that of all weights of its layer: the scale of a layer in front of a normalization is arbitrary,
and a tile at an edge has fewer weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.compiler.graph import CompileError
from loomwork.compiler.weight_tiles import weight_tiles

Scope = Literal["network", "layer"]
"""Where sparsity is reached: over all layers together, or in each of them alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TiledWeights:
    """The weights of one layer. tiles: the tile that each of them is in, -1 for none; an array of the same shape."""

    name: str
    weights: NDArray[np.floating]
    tiles: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TileCount:
    """How many tiles a layer has, and how many of them hold zeros only. name: of the layer or of its weights."""

    name: str
    tiles: int
    zero: int


def check_sparsity(sparsity: float) -> None:
    """Raise CompileError unless sparsity is a share that leaves something over."""
    if not 0 <= sparsity < 1:  # NaN, too, is neither
        raise CompileError(
            f"sparsity is the share that is removed, at least 0 and below 1, not {sparsity:g}; 0.5 removes half"
        )


def convolution_tiles(
    shape: tuple[int, int, int, int], config: Config, dilation: tuple[int, int] = (1, 1)
) -> NDArray[np.int64]:
    """Tiles of a kernel `[outputs, inputs, height, width]`, the order of PyTorch and ONNX."""
    outputs, inputs, height, width = shape
    return weight_tiles((height, width, inputs, outputs), config, dilation=dilation).transpose(3, 2, 0, 1)


def dense_tiles(
    outputs: int, inputs: int, config: Config, flattened: tuple[int, int, int] | None = None
) -> NDArray[np.int64]:
    """Tiles of a matrix `[outputs, inputs]`.

    flattened: channels, height and width of the feature map whose elements the inputs are, if they are. PyTorch and
    ONNX flatten channel by channel, the accelerator has a pixel's channels side by side.
    """
    tiles = weight_tiles((1, 1, inputs, outputs), config)[0, 0].T
    if flattened is None:
        return tiles
    channels, height, width = flattened
    return tiles.reshape(outputs, height, width, channels).transpose(0, 3, 1, 2).reshape(outputs, inputs)


def smallest_tiles(layers: Sequence[TiledWeights], sparsity: float, scope: Scope) -> list[NDArray[np.bool_]]:
    """For each layer the mask of the weights to keep, of the shape of its weights.

    `sparsity` of the tiles are dropped, rounded to the nearest number; but the strongest of each layer always stays, so
    that no layer's output is constant. Equal scores: the tile that comes later goes first.
    """
    scores = [tile_scores(layer) for layer in layers]
    kept = [np.ones(len(values), dtype=bool) for values in scores]
    groups = [list(range(len(layers)))] if scope == "network" else [[index] for index in range(len(layers))]
    for group in groups:
        total = sum(len(scores[index]) for index in group)
        candidates = sorted(
            (float(score), index, -tile)
            for index in group
            for tile, score in enumerate(scores[index])
            if tile != int(np.argmax(scores[index]))
        )
        for _, index, tile in candidates[: round(sparsity * total)]:
            kept[index][-tile] = False
    return [_spread(mask, layer) for layer, mask in zip(layers, kept, strict=True)]


def tile_scores(layer: TiledWeights) -> NDArray[np.float64]:
    """The score of each tile that there is, in the order of their numbers, which may have gaps."""
    tiled = layer.tiles >= 0
    _, places, sizes = np.unique(layer.tiles[tiled], return_inverse=True, return_counts=True)
    squares = np.square(layer.weights[tiled].astype(np.float64))
    mean = squares.mean() if squares.size else 0.0
    return np.sqrt(np.bincount(places, squares, len(sizes)) / sizes / (mean or 1.0))


def _spread(kept: NDArray[np.bool_], layer: TiledWeights) -> NDArray[np.bool_]:
    """From tiles to their weights; what is in no tile stays, for zeros bring nothing there."""
    mask = np.ones(layer.tiles.shape, dtype=bool)
    tiled = layer.tiles >= 0
    _, places = np.unique(layer.tiles[tiled], return_inverse=True)
    mask[tiled] = kept[places]
    return mask


def count_tiles(layer: TiledWeights) -> TileCount:
    """How many tiles are zero."""
    scores = tile_scores(layer)
    return TileCount(name=layer.name, tiles=len(scores), zero=int(np.count_nonzero(scores == 0)))
