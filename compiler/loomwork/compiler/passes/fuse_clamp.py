# SPDX-License-Identifier: Apache-2.0
"""A clamp behind a layer, RELU with equal scales for instance, becomes the layer's own."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from loomwork.arch.numerics import IDENTITY_MULTIPLIER, IDENTITY_SHIFT
from loomwork.compiler.graph import AveragePool, Combination, Convolution, Graph, Layer, MaxPool, Mean, Rescale, Table
from loomwork.compiler.passes.rewrite import consumers, remove_map


def fuse_clamp(graph: Graph) -> Graph:
    """Fuse every rescaling that only clamps into the layer that computes its input, if nothing else reads that.

    Exact because such a rescaling returns each value as it is, but for the clamp.
    """
    while (pair := next(_pairs(graph), None)) is not None:
        graph = _fuse(graph, *pair)
    return graph


def _pairs(graph: Graph) -> Iterator[tuple[Layer, Rescale]]:
    """Layers and the clamps behind them that can be fused."""
    producers = {layer.output: layer for layer in graph.layers}
    for clamp in graph.layers:
        if (
            isinstance(clamp, Rescale)
            and _only_clamps(clamp)
            and clamp.input in producers
            and clamp.input not in graph.outputs
            and len(consumers(graph, clamp.input)) == 1
        ):
            yield producers[clamp.input], clamp


def _only_clamps(layer: Rescale) -> bool:
    requantize = layer.requantize
    return (
        requantize.multiplier.tolist() == [IDENTITY_MULTIPLIER]
        and requantize.shift.tolist() == [IDENTITY_SHIFT]
        and requantize.bias.tolist() == [-requantize.zero_point]
    )


def _fuse(graph: Graph, producer: Layer, clamp: Rescale) -> Graph:
    low, high = clamp.requantize.minimum, clamp.requantize.maximum
    fused = _clamped(replace(producer, output=clamp.output), low, high)
    layers = tuple(fused if layer is producer else layer for layer in graph.layers if layer is not clamp)
    return remove_map(replace(graph, layers=layers), clamp.input)


def _clamped(layer: Layer, low: int, high: int) -> Layer:
    """The layer with a second clamp behind its own: clamping is monotone, so that it acts on the bounds."""

    def clamp(bound: int) -> int:
        return min(max(bound, low), high)

    match layer:
        case Convolution() | Mean() | Rescale():
            own = layer.requantize
            return replace(layer, requantize=replace(own, minimum=clamp(own.minimum), maximum=clamp(own.maximum)))
        case MaxPool() | AveragePool() | Combination():
            return replace(layer, minimum=clamp(layer.minimum), maximum=clamp(layer.maximum))
        case Table():
            return replace(layer, table=np.clip(layer.table, low, high))
        case _:
            raise TypeError(f"a layer of type {type(layer).__name__} has no clamp")
