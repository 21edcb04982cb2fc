# SPDX-License-Identifier: Apache-2.0
"""Signal-to-noise ratios: how much of the float model is left in the quantized one."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from loomwork.compiler.quantization.samples import Samples
from loomwork.compiler.quantization.session import Session

Array = NDArray[np.generic]

FLOOR_DB = -100.0
"""Ratio of noise where there should be nothing."""
EXACT_DB = 120.0
"""What an exact tensor counts in a mean; that of float32's own rounding is about 140 dB."""


class Ratio:
    """Ratio of the sum of squares of a signal to that of its error, over any number of arrays."""

    def __init__(self) -> None:
        self._signal = 0.0
        self._noise = 0.0

    def add(self, wanted: Array, got: Array) -> None:
        """Count two arrays of the same shape."""
        reference = wanted.astype(np.float64)
        self._signal += float(np.square(reference).sum())
        self._noise += float(np.square(got.astype(np.float64) - reference).sum())

    @property
    def db(self) -> float:
        """In decibel; infinite when there is no error at all."""
        if self._noise == 0:
            return math.inf
        return max(FLOOR_DB, 10 * math.log10(self._signal / self._noise)) if self._signal else FLOOR_DB


def mean_db(ratios: Iterable[float]) -> float:
    """Mean of ratios of several outputs, with a limit on what an exact one adds."""
    limited = [min(ratio, EXACT_DB) for ratio in ratios]
    return sum(limited) / len(limited)


def output_ratios(wanted: list[dict[str, Array]], quantized: onnx.ModelProto, samples: Samples) -> dict[str, float]:
    """Ratio at each of a network's outputs. wanted: what the float model gave, by sample and output."""
    session = Session(quantized)
    ratios = {name: Ratio() for name in session.names}
    for feed, expected in zip(samples, wanted, strict=True):
        for name, value in session.run(feed).items():
            ratios[name].add(expected[name], value)
    return {name: ratio.db for name, ratio in ratios.items()}


def tensor_ratios(
    model: onnx.ModelProto, quantized: onnx.ModelProto, tensors: Mapping[str, str], samples: Samples
) -> dict[str, float]:
    """Ratio of tensors inside, the errors of all layers in front of them included.

    tensors: names in the float model to names in the quantized one.
    """
    reference, measured = Session(model, list(tensors)), Session(quantized, list(tensors.values()))
    ratios = {name: Ratio() for name in tensors}
    for feed in samples:
        wanted, got = {**feed, **reference.run(feed)}, measured.run(feed)
        for name, other in tensors.items():
            ratios[name].add(wanted[name], got[other])
    return {name: ratio.db for name, ratio in ratios.items()}


def dequantized_weights(quantized: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """What the weights of each Conv, Gemm and the like have become, by the node's name."""
    initializers = {tensor.name: tensor for tensor in quantized.graph.initializer}
    made = {node.output[0]: node for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.name: _dequantize(made[node.input[1]], initializers)
        for node in quantized.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
        and node.input[1] in made
        and made[node.input[1]].input[0] in initializers
    }


def _dequantize(node: onnx.NodeProto, initializers: Mapping[str, onnx.TensorProto]) -> NDArray[np.float32]:
    integers, scale = (numpy_helper.to_array(initializers[name]) for name in node.input[:2])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if scale.ndim:
        scale = scale.reshape([-1 if index == axis % integers.ndim else 1 for index in range(integers.ndim)])
    return integers.astype(np.float32) * scale  # the zero point of weights is 0


def weight_ratios(model: onnx.ModelProto, quantized: onnx.ModelProto) -> dict[str, float]:
    """Ratio of the weights of each layer, by the node's name."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    found: dict[str, float] = {}
    for name, weights in dequantized_weights(quantized).items():
        ratio = Ratio()
        ratio.add(numpy_helper.to_array(initializers[nodes[name].input[1]]), weights)
        found[name] = ratio.db
    return found
