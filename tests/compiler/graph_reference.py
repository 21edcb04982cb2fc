"""What the layers of a graph compute, written straight from their definitions; shares no arithmetic with the project."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loomwork.compiler.graph import Add, AveragePool, Convolution, Graph, Layer, MaxPool, Mean, Requantize, Rescale

Tensor = NDArray[np.int64]
"""`[images, height, width, channels]`."""


def execute(graph: Graph, inputs: dict[str, NDArray[np.int8]]) -> dict[str, NDArray[np.int8]]:
    """The graph's outputs by name, `[images, height, width, channels]`."""
    values: dict[str, Tensor] = {name: value.astype(np.int64) for name, value in inputs.items()}
    for layer in graph.layers:
        target = graph.maps[layer.output]
        result = _run(layer, values, graph.maps[layer.input].zero_point, (target.height, target.width))
        assert result.shape[1:] == (target.height, target.width, target.channels), layer
        values[layer.output] = result
    return {name: values[name].astype(np.int8) for name in graph.outputs}


def _run(layer: Layer, values: dict[str, Tensor], zero: int, size: tuple[int, int]) -> Tensor:
    x = values[layer.input]
    match layer:
        case Convolution():
            return _requantize(_convolve(layer, x, zero, size), layer.requantize)
        case MaxPool():
            return np.clip(_pool(layer, x, size, lambda window: window.max(axis=(1, 2))), layer.minimum, layer.maximum)
        case AveragePool():
            return np.clip(_pool(layer, x, size, _mean), layer.minimum, layer.maximum)
        case Mean():
            total = x.sum(axis=(1, 2), keepdims=True) + layer.requantize.bias
            scaled = _scale(total, layer.requantize.multiplier, layer.requantize.shift)
            average = _divide_half_away(scaled, x.shape[1] * x.shape[2])
            return np.clip(average + layer.requantize.zero_point, layer.requantize.minimum, layer.requantize.maximum)
        case Add():
            a = _scale((x - layer.zero_input) * 2**20, layer.multiplier_input, layer.shift_input)
            b = _scale(
                (values[layer.operand] - layer.zero_operand) * 2**20, layer.multiplier_operand, layer.shift_operand
            )
            total = _scale(a + b, layer.multiplier, layer.shift)
            return np.clip(total + layer.zero_point, layer.minimum, layer.maximum)
        case Rescale():
            return _requantize(x, layer.requantize)
        case _:
            raise AssertionError(layer)


def _convolve(layer: Convolution, x: Tensor, zero: int, size: tuple[int, int]) -> Tensor:
    kernel = layer.kernel.astype(np.int64)
    height, width, _, outputs = kernel.shape
    (stride_y, stride_x), (dilation_y, dilation_x) = layer.stride, layer.dilation
    # More padding than any window reaches.
    below = size[0] * stride_y + height * dilation_y
    right = size[1] * stride_x + width * dilation_x
    padded = np.pad(
        x, ((0, 0), (layer.pad[0], below), (layer.pad[1], right), (0, 0)), constant_values=zero
    )
    total = np.zeros((len(x), *size, outputs), dtype=np.int64)
    for ky in range(height):
        for kx in range(width):
            part = padded[
                :,
                ky * dilation_y : ky * dilation_y + size[0] * stride_y : stride_y,
                kx * dilation_x : kx * dilation_x + size[1] * stride_x : stride_x,
            ]
            if layer.depthwise:
                total += np.repeat(part, outputs // x.shape[3], axis=3) * kernel[ky, kx, 0]
            else:
                total += part @ kernel[ky, kx]
    return total


def _pool(layer: MaxPool | AveragePool, x: Tensor, size: tuple[int, int], reduce: Any) -> Tensor:
    result = np.zeros((len(x), *size, x.shape[3]), dtype=np.int64)
    for oy in range(size[0]):
        for ox in range(size[1]):
            y, left = oy * layer.stride[0] - layer.pad[0], ox * layer.stride[1] - layer.pad[1]
            window = x[:, max(0, y) : y + layer.window[0], max(0, left) : left + layer.window[1]]
            result[:, oy, ox] = reduce(window)
    return result


def _mean(window: Tensor) -> Tensor:
    return _divide_half_away(window.sum(axis=(1, 2)), window.shape[1] * window.shape[2])


def _divide_half_away(x: Tensor, count: int) -> Tensor:
    return np.sign(x) * ((np.abs(x) + count // 2) // count)


def _requantize(x: Tensor, requantize: Requantize) -> Tensor:
    total = (x + requantize.bias).astype(np.int32).astype(np.int64)
    scaled = _scale(total, requantize.multiplier, requantize.shift)
    return np.clip(scaled + requantize.zero_point, requantize.minimum, requantize.maximum)


def _scale(x: Tensor, multiplier: Any, shift: Any) -> Tensor:
    """gemmlowp: SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT, as their C++ has it."""
    shift = np.asarray(shift)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    product = (x * 2**left).astype(np.int32).astype(np.int64) * multiplier
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.sign(nudged) * (np.abs(nudged) >> 31)
    mask = (1 << right) - 1
    threshold = (mask >> 1) + (high < 0)
    return (high >> right) + ((high & mask) > threshold)
