# SPDX-License-Identifier: Apache-2.0
"""Padding in front of convolutions becomes their own padding."""

from dataclasses import replace

import numpy as np

from loomwork.arch.numerics import IDENTITY_MULTIPLIER, IDENTITY_SHIFT, INT8_MAX, INT8_MIN
from loomwork.compiler.graph import Convolution, Graph, Layer
from loomwork.compiler.passes.rewrite import consumers, remove_map


def fold_pad(graph: Graph) -> Graph:
    """Fold every layer that only pads into the convolutions behind it.

    Exact because both read the zero point outside the image. A padding that anything else reads stays.
    """
    while (padding := next((layer for layer in graph.layers if _can_fold(graph, layer)), None)) is not None:
        graph = _fold(graph, padding)
    return graph


def _can_fold(graph: Graph, layer: Layer) -> bool:
    return (
        isinstance(layer, Convolution)
        and _only_pads(layer)
        and layer.output not in graph.outputs
        and all(isinstance(reader, Convolution) for reader in consumers(graph, layer.output))
        and graph.maps[layer.input].zero_point == graph.maps[layer.output].zero_point
    )


def _only_pads(layer: Convolution) -> bool:
    """Whether every output value is an input value, or the zero point."""
    requantize = layer.requantize
    return (
        layer.kernel.shape[:3] == (1, 1, 1)
        and (layer.depthwise or layer.kernel.shape[3] == 1)
        and layer.stride == (1, 1)
        and bool(np.all(layer.kernel == 1))
        and requantize.multiplier.tolist() == [IDENTITY_MULTIPLIER]
        and requantize.shift.tolist() == [IDENTITY_SHIFT]
        and requantize.bias.tolist() == [0]
        and requantize.zero_point == 0
        and (requantize.minimum, requantize.maximum) == (INT8_MIN, INT8_MAX)
    )


def _fold(graph: Graph, padding: Layer) -> Graph:
    assert isinstance(padding, Convolution)
    layers: list[Layer] = []
    for layer in graph.layers:
        if layer is padding:
            continue
        if isinstance(layer, Convolution) and layer.input == padding.output:
            top, left = layer.pad
            layer = replace(layer, input=padding.input, pad=(top + padding.pad[0], left + padding.pad[1]))
        layers.append(layer)
    return remove_map(replace(graph, layers=tuple(layers)), padding.output)
