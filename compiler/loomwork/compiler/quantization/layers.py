# SPDX-License-Identifier: Apache-2.0
"""What became of each layer: scale, zero point, range and signal-to-noise ratio."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.compiler.quantization.noise import tensor_ratios, weight_ratios
from loomwork.compiler.quantization.operators import QUANTIZED
from loomwork.compiler.quantization.samples import Samples

_MARKS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator, or one network input, and the tensor that it makes.

    operator: its type, with the Relu or Clip that its saturation stands for. tensor: its output in the float model.
    scale, zero_point: of that. low, high: what int8 -128 and 127 stand for there.
    snr_db: of the tensor against the float model on the calibration data, errors from the layers in front included;
    infinite for an exact one. weight_snr_db: of the weights alone, None for a layer without.
    """

    name: str
    operator: str
    tensor: str
    scale: float
    zero_point: int
    low: float
    high: float
    snr_db: float
    weight_snr_db: float | None


def quantized_tensors(quantized: onnx.ModelProto) -> dict[str, tuple[onnx.NodeProto, str]]:
    """Each float tensor that has become int8: its QuantizeLinear, and the tensor that holds what int8 leaves of it."""
    outputs = {value.name for value in quantized.graph.output}
    back = {node.input[0]: node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    found: dict[str, tuple[onnx.NodeProto, str]] = {}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear":
            dequantized = back[node.output[0]]
            # In front of an output the quantizer renames what goes into QuantizeLinear.
            found[dequantized if dequantized in outputs else node.input[0]] = (node, dequantized)
    return found


def describe(model: onnx.ModelProto, quantized: onnx.ModelProto, samples: Samples) -> tuple[Layer, ...]:
    """The layers of a quantized model in the order of its graph, inputs first. model: the prepared float model."""
    tensors = quantized_tensors(quantized)
    values = {tensor.name: tensor for tensor in quantized.graph.initializer}
    ratios = tensor_ratios(model, quantized, {name: other for name, (_, other) in tensors.items()}, samples)
    weights = weight_ratios(model, quantized)
    float_makers = {name: node for node in model.graph.node for name in node.output}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    order = {node.name: index for index, node in enumerate(model.graph.node)}
    layers: list[tuple[int, Layer]] = []
    for tensor, (quantizer, _) in tensors.items():
        node = makers.get(quantizer.input[0])
        scale = float(numpy_helper.to_array(values[quantizer.input[1]]))
        zero_point = int(np.asarray(numpy_helper.to_array(values[quantizer.input[2]])))
        layer = Layer(
            name=node.name if node else tensor,
            operator=_operator(node, float_makers.get(tensor)) if node else "Input",
            tensor=tensor,
            scale=scale,
            zero_point=zero_point,
            low=(INT8_MIN - zero_point) * scale,
            high=(INT8_MAX - zero_point) * scale,
            snr_db=ratios[tensor],
            weight_snr_db=weights.get(node.name) if node else None,
        )
        layers.append((order[node.name] if node else -1, layer))
    return tuple(layer for _, layer in sorted(layers, key=lambda entry: entry[0]))


def _operator(node: onnx.NodeProto, float_maker: onnx.NodeProto | None) -> str:
    fused = float_maker is not None and float_maker.name != node.name
    return f"{node.op_type} + {float_maker.op_type}" if fused and float_maker else node.op_type


def unquantized_nodes(quantized: onnx.ModelProto) -> tuple[str, ...]:
    """Type and name of the nodes that stay as they were: the accelerator has no int8 form of them."""
    read = {name for node in quantized.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    return tuple(
        f"{node.op_type} {node.name}"
        for node in quantized.graph.node
        if node.op_type not in _MARKS and not (node.op_type in QUANTIZED and read.intersection(node.output))
    )
