# SPDX-License-Identifier: Apache-2.0
"""Bias correction: what rounding the weights adds to the mean of each channel is taken out of the bias.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2: with
weights W + e instead of W the mean of output channel j moves by E[(e x)_j]. Measured here, not derived: the float model
is given a second layer with the weights e beside each layer, and runs on the calibration data.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from loomwork.compiler.quantization.noise import dequantized_weights
from loomwork.compiler.quantization.samples import Samples
from loomwork.compiler.quantization.session import Session

_CHANNEL = 1
"""Axis of the channels in the output of Conv, ConvTranspose and Gemm."""


def correct_bias(model: onnx.ModelProto, quantized: onnx.ModelProto, samples: Samples) -> onnx.ModelProto:
    """A copy of the float model with corrected biases; its weights, and so their scales, are those of before.

    quantized: the model with the weights whose errors are corrected. A MatMul has no bias and is left alone.
    """
    weights = dequantized_weights(quantized)
    nodes = [node for node in model.graph.node if node.name in weights and node.op_type != "MatMul"]
    shifts = _mean_errors(model, nodes, weights, samples)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in result.graph.node:
        if node.name not in shifts:
            continue
        has_bias = len(node.input) > 2 and bool(node.input[2])
        if has_bias and node.input[2] not in initializers:
            continue
        bias = numpy_helper.to_array(initializers[node.input[2]]) if has_bias else np.float32(0)
        # A new initializer, for the old one may serve several nodes.
        name = f"{node.name}_corrected_bias"
        result.graph.initializer.append(numpy_helper.from_array((bias - shifts[node.name]).astype(np.float32), name))
        del node.input[2:]
        node.input.append(name)
    return result


def _mean_errors(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.float32]],
    samples: Samples,
) -> dict[str, NDArray[np.float64]]:
    """Mean of each output channel of the layers with the errors of the weights in place of the weights."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    outputs: dict[str, str] = {}
    for node in nodes:
        error = weights[node.name] - numpy_helper.to_array(initializers[node.input[1]])
        twin = extended.graph.node.add()
        twin.CopyFrom(node)
        twin.name = f"{node.name}/weight_error"
        outputs[node.name] = f"{node.output[0]}/weight_error"
        extended.graph.initializer.append(numpy_helper.from_array(error, f"{twin.name}/weights"))
        del twin.input[1:], twin.output[:]
        twin.input.append(f"{twin.name}/weights")
        twin.output.append(outputs[node.name])
    session = Session(extended, list(outputs.values()))
    sums: dict[str, NDArray[np.float64]] = {}
    for feed in samples:
        values = session.run(feed)
        for name, output in outputs.items():
            value = values[output].astype(np.float64)
            axes = tuple(axis for axis in range(value.ndim) if axis != _CHANNEL)
            sums[name] = sums.get(name, np.zeros(value.shape[_CHANNEL])) + value.mean(axis=axes)
    return {name: total / len(samples) for name, total in sums.items()}
