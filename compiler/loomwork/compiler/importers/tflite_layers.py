# SPDX-License-Identifier: Apache-2.0
"""Layers of TFLite operators: every number that makes them exact.

Each function takes an operator that meets the conditions of `tflite_operators` and returns its layer. inputs: the
feature maps it reads; their shape may differ from the operator's own view when the layer does not care for it. output:
the name of the feature map it writes.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import ActivationFunctionType
from numpy.typing import NDArray

from loomwork.arch.numerics import IDENTITY_MULTIPLIER, IDENTITY_SHIFT, INT8_MAX, INT8_MIN
from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Convolution,
    FeatureMap,
    Layer,
    MaxPool,
    Mean,
    Requantize,
    Rescale,
    Table,
)
from loomwork.compiler.importers.grouped import dense_kernel
from loomwork.compiler.importers.tflite_model import Operator, Tensor
from loomwork.compiler.importers.tflite_quantization import (
    Int64Array,
    activation_range,
    add_multipliers,
    mean_multiplier,
    multipliers,
    quantized,
    scale,
    weight_factors,
    zero_point,
)
from loomwork.compiler.importers.tflite_shapes import bias, operand, options, paddings, window
from loomwork.compiler.importers.tflite_table import tabulate

Maps = tuple[FeatureMap, ...]


def image(tensor: Tensor) -> tuple[int, int, int]:
    """Height, width and channels of a tensor of one image, or of up to three dimensions: the last are the channels."""
    shape = tensor.shape[1:] if len(tensor.shape) == 4 else tensor.shape
    height, width, channels = (1,) * (3 - len(shape)) + shape
    return height, width, channels


def kernel(operator: Operator) -> NDArray[np.int8]:
    """Weights as `[kernel height, kernel width, input channels of one group, output channels]`."""
    weights = operand(operator, 1).data
    assert weights is not None
    weights = weights.astype(np.int8)
    match operator.code:
        case "CONV_2D":  # [out, height, width, in]
            weights = weights.transpose(1, 2, 3, 0)
        case "DEPTHWISE_CONV_2D":  # [1, height, width, out]
            weights = weights.transpose(1, 2, 0, 3)
        case _:  # [out, in]
            weights = weights.T[np.newaxis, np.newaxis]
    return np.ascontiguousarray(weights)


def folded_bias(operator: Operator, weights: NDArray[np.int8]) -> Int64Array:
    """Bias per output channel with the contribution of the input's zero point. weights: output channels last."""
    sums = weights.reshape(-1, weights.shape[-1]).sum(axis=0, dtype=np.int64)
    tensor = bias(operator)
    values = np.zeros(len(sums), np.int64) if tensor is None or tensor.data is None else tensor.data.ravel()
    return values.astype(np.int64) - zero_point(operand(operator, 0)) * sums


def weight_requantize(operator: Operator, weights: NDArray[np.int8], activation: int) -> Requantize:
    """Requantization of an operator with weights. weights: output channels last."""
    source, constant, output = operand(operator, 0), operand(operator, 1), operator.outputs[0]
    multiplier, shift = multipliers(weight_factors(source, constant, output))
    minimum, maximum = activation_range(operator, activation)
    return Requantize(
        multiplier=multiplier,
        shift=shift,
        bias=folded_bias(operator, weights),
        zero_point=zero_point(output),
        minimum=minimum,
        maximum=maximum,
    )


def convolution(operator: Operator, inputs: Maps, output: str) -> Layer:
    """CONV_2D and DEPTHWISE_CONV_2D; groups are filled up with zeros to a dense kernel."""
    moves, depth = window(operator), inputs[0].channels
    weights = kernel(operator)
    if operator.code == "CONV_2D":
        activation = options(operator, schema.Conv2DOptionsT).fusedActivationFunction
        groups = depth // weights.shape[2]
        depthwise = groups == depth > 1
        requantize = weight_requantize(operator, weights, activation)
        if groups > 1 and not depthwise:
            weights = dense_kernel(weights, groups)
    else:
        activation = options(operator, schema.DepthwiseConv2DOptionsT).fusedActivationFunction
        depthwise = depth > 1
        requantize = weight_requantize(operator, weights, activation)
    return Convolution(
        name=operator.name,
        operator=operator.code,
        input=inputs[0].name,
        output=output,
        kernel=weights,
        stride=moves.stride,
        dilation=moves.dilation,
        pad=moves.pad,
        depthwise=depthwise,
        requantize=requantize,
    )


def fully_connected(operator: Operator, inputs: Maps, output: str) -> Layer:
    """A kernel that covers the whole image, or 1x1 when the operator treats several rows alike."""
    data = operand(operator, 1).data
    assert data is not None
    units, depth = data.shape
    source = inputs[0]
    covers = source.height * source.width * source.channels == depth
    shape = (source.height, source.width, source.channels) if covers else (1, 1, depth)
    weights = np.ascontiguousarray(data.astype(np.int8).reshape(units, *shape).transpose(1, 2, 3, 0))
    activation = options(operator, schema.FullyConnectedOptionsT).fusedActivationFunction
    return Convolution(
        name=operator.name,
        operator=operator.code,
        input=source.name,
        output=output,
        kernel=weights,
        requantize=weight_requantize(operator, weights, activation),
    )


def add(operator: Operator, inputs: Maps, output: str) -> Layer:
    """ADD of two feature maps."""
    a, b, result = operand(operator, 0), operand(operator, 1), operator.outputs[0]
    first, second, total = add_multipliers(a, b, result)
    minimum, maximum = activation_range(operator, options(operator, schema.AddOptionsT).fusedActivationFunction)
    return Add(
        name=operator.name,
        operator=operator.code,
        input=inputs[0].name,
        output=output,
        operand=inputs[1].name,
        multiplier_input=first[0],
        shift_input=first[1],
        zero_input=zero_point(a),
        multiplier_operand=second[0],
        shift_operand=second[1],
        zero_operand=zero_point(b),
        multiplier=total[0],
        shift=total[1],
        zero_point=zero_point(result),
        minimum=minimum,
        maximum=maximum,
    )


def pool(operator: Operator, inputs: Maps, output: str) -> Layer:
    """MAX_POOL_2D and AVERAGE_POOL_2D."""
    moves = window(operator)
    minimum, maximum = activation_range(operator, options(operator, schema.Pool2DOptionsT).fusedActivationFunction)
    layer = MaxPool if operator.code == "MAX_POOL_2D" else AveragePool
    return layer(
        name=operator.name,
        operator=operator.code,
        input=inputs[0].name,
        output=output,
        window=moves.size,
        stride=moves.stride,
        pad=moves.pad,
        minimum=minimum,
        maximum=maximum,
    )


def mean(operator: Operator, inputs: Maps, output: str) -> Layer:
    """MEAN over the image."""
    source, result = operand(operator, 0), operator.outputs[0]
    count = inputs[0].height * inputs[0].width
    multiplier, shift = mean_multiplier(source, result, count)
    requantize = _uniform(multiplier, shift, -zero_point(source) * count, zero_point(result))
    return Mean(
        name=operator.name,
        operator=operator.code,
        input=inputs[0].name,
        output=output,
        requantize=requantize,
    )


def pad(operator: Operator, inputs: Maps, output: str) -> Layer:
    """PAD of an image: each channel convolved with a single 1."""
    pads = paddings(operator)
    assert pads is not None
    return Convolution(
        name=operator.name,
        operator=operator.code,
        input=inputs[0].name,
        output=output,
        kernel=np.ones((1, 1, 1, inputs[0].channels), np.int8),
        pad=(pads[1][0], pads[2][0]),
        depthwise=inputs[0].channels > 1,
        requantize=_uniform(IDENTITY_MULTIPLIER, IDENTITY_SHIFT, 0, 0),
    )


def rescale(operator: Operator, inputs: Maps, output: str) -> Layer:
    """QUANTIZE from int8 to int8, RELU and RELU_N1_TO_1: to another scale and zero point, then clamp."""
    source, result = operand(operator, 0), operator.outputs[0]
    multiplier, shift = multipliers([scale(source) / scale(result)])
    minimum, maximum = activation_range(operator, _RESCALE_CLAMPS[operator.code])
    requantize = _uniform(int(multiplier[0]), int(shift[0]), -zero_point(source), zero_point(result), minimum, maximum)
    return _rescale(operator, inputs, output, requantize)


def relu6(operator: Operator, inputs: Maps, output: str) -> Layer:
    """RELU6: tflite-micro clamps the input's values and leaves the output's scale out of account."""
    source = operand(operator, 0)
    minimum, maximum = zero_point(source), min(INT8_MAX, quantized(6.0, source, operator))
    requantize = _uniform(IDENTITY_MULTIPLIER, IDENTITY_SHIFT, 0, 0, minimum, maximum)
    return _rescale(operator, inputs, output, requantize)


def table(operator: Operator, inputs: Maps, output: str) -> Layer:
    """LOGISTIC, TANH, LEAKY_RELU, HARD_SWISH and ELU: functions of one value."""
    return Table(
        name=operator.name,
        operator=operator.code,
        input=inputs[0].name,
        output=output,
        table=tabulate(operator),
    )


_RESCALE_CLAMPS = {
    "QUANTIZE": ActivationFunctionType.NONE,
    "RELU": ActivationFunctionType.RELU,
    "RELU_N1_TO_1": ActivationFunctionType.RELU_N1_TO_1,
}


def _rescale(operator: Operator, inputs: Maps, output: str, requantize: Requantize) -> Rescale:
    return Rescale(
        name=operator.name, operator=operator.code, input=inputs[0].name, output=output, requantize=requantize
    )


def _uniform(
    multiplier: int, shift: int, bias: int, zero: int, minimum: int = INT8_MIN, maximum: int = INT8_MAX
) -> Requantize:
    """Requantization that all channels share."""
    return Requantize(
        multiplier=np.array([multiplier], np.int64),
        shift=np.array([shift], np.int64),
        bias=np.array([bias], np.int64),
        zero_point=zero,
        minimum=minimum,
        maximum=maximum,
    )
