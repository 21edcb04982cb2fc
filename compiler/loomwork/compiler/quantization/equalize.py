# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalization: channels that lie far apart are brought together without changing what a network computes.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1: for two
convolutions in a row, and an activation with f(s x) = s f(x) for s > 0 between them, channel i of the first is divided
by s_i and its weights in the second multiplied by s_i, with

    s_i = sqrt(r1_i / r2_i),    r1_i, r2_i: largest magnitude among the channel's weights in the first and in the second

which makes both the same. Repeated over chains until it settles. With a scale per output channel the first layer's own
weights gain nothing, but the feature map between the two, which has one scale, and the second layer's weights do.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_BETWEEN = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool")
"""Operators that work on each channel alone and keep a positive factor as it is."""
_SWEEPS, _SETTLED = 40, 1e-3


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two convolutions, the second of which alone reads what the first makes. group: of the second."""

    first: onnx.NodeProto
    second: onnx.NodeProto
    group: int


def equalize(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[tuple[str, str], ...]]:
    """An equalized copy of a prepared model, and the names of the pairs of nodes that were changed."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    initializers = {tensor.name: tensor for tensor in result.graph.initializer}
    pairs = find_pairs(result)
    arrays = {
        name: numpy_helper.to_array(initializers[name]).astype(np.float64)
        for pair in pairs
        for name in (*pair.first.input[1:], pair.second.input[1])
        if name
    }
    for _ in range(_SWEEPS):
        if max((_equalize_pair(pair, arrays) for pair in pairs), default=0.0) < _SETTLED:
            break
    for name, values in arrays.items():
        initializers[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return result, tuple((pair.first.name, pair.second.name) for pair in pairs)


def find_pairs(model: onnx.ModelProto) -> list[Pair]:
    """Pairs of convolutions that can be equalized, in the order of the graph."""
    uses = Counter(name for node in model.graph.node for name in node.input if name)
    uses.update(value.name for value in model.graph.output)
    readers = {name: node for node in model.graph.node for name in node.input if name}
    constants = {tensor.name for tensor in model.graph.initializer}

    def own_weights(node: onnx.NodeProto) -> bool:
        return all(name in constants and uses[name] == 1 for name in node.input[1:] if name)

    pairs: list[Pair] = []
    for first in model.graph.node:
        if first.op_type != "Conv" or not own_weights(first):
            continue
        second = first
        while uses[second.output[0]] == 1 and second.output[0] in readers:
            name = second.output[0]
            second = readers[name]
            if second.input[0] != name or second.op_type not in _BETWEEN:
                break
        if (
            second is not first
            and second.op_type == "Conv"
            and own_weights(second)
            and second.input[0] not in constants
        ):
            group = next((attribute.i for attribute in second.attribute if attribute.name == "group"), 1)
            pairs.append(Pair(first=first, second=second, group=group))
    return pairs


def _equalize_pair(pair: Pair, arrays: dict[str, NDArray[np.float64]]) -> float:
    """Returns how far the largest factor was from 1."""
    first, second = arrays[pair.first.input[1]], arrays[pair.second.input[1]]
    # Input channel c of a grouped convolution is in group c // (channels / group).
    grouped = second.reshape(pair.group, second.shape[0] // pair.group, second.shape[1], -1)
    before = np.abs(first).reshape(len(first), -1).max(axis=1)
    behind = np.abs(grouped).max(axis=(1, 3)).reshape(-1)
    alive = (before > 0) & (behind > 0)
    factor = np.sqrt(np.where(alive, before, 1) / np.where(alive, behind, 1))
    first /= factor.reshape(-1, *[1] * (first.ndim - 1))
    for name in pair.first.input[2:]:
        arrays[name] /= factor
    grouped *= factor.reshape(pair.group, 1, -1, 1)
    arrays[pair.second.input[1]] = grouped.reshape(second.shape)
    return float(np.max(np.abs(factor - 1)))
