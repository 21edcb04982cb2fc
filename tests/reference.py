# SPDX-License-Identifier: Apache-2.0
"""What a `Graph` means, in plain NumPy integers: the formulas of compiler/graph.py, with no word about commands.

Written for tests, to check importers and passes against tflite-micro and ONNX Runtime before anything is lowered, and
the lowering after.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from loomwork.arch.numerics import requantize
from loomwork.arch.program import HostRuntime
from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Convolution,
    Graph,
    HostPart,
    Layer,
    MaxPool,
    Mean,
    Multiply,
    Partition,
    PoolLayer,
    Rearrange,
    Requantize,
    Rescale,
    Table,
)
from tests.onnx_models import run_onnxruntime
from tests.oracle import Oracle

Int64Array = NDArray[np.int64]
Arrays = dict[str, NDArray[np.generic]]


def run_partition(partition: Partition, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """One inference. inputs: by name, of the tensors' shapes. Returns all tensors of the partition by name."""
    tensors = {tensor.name: tensor for tensor in partition.tensors}
    values: Arrays = dict(inputs)
    for part in partition.parts:
        if isinstance(part, Graph):
            for name, value in run_graph(part, {name: values[name] for name in part.inputs}).items():
                values[name] = value.reshape(tensors[name].shape)
        else:
            results = _run_host(part, [values[name] for name in part.inputs])
            values.update(zip(part.outputs, results, strict=True))
    return values


def _run_host(part: HostPart, inputs: Sequence[NDArray[np.generic]]) -> Sequence[NDArray[np.generic]]:
    if part.runtime is HostRuntime.TFLITE_MICRO:
        return Oracle(part.model).run(inputs)
    model = onnx.load_model_from_string(part.model)
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    image = {name: value.reshape(shape) for name, value, shape in zip(part.inputs, inputs, shapes, strict=True)}
    results = run_onnxruntime(model, image)
    return [results[name] for name in part.outputs]


def run_graph(graph: Graph, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.int8]]:
    """Outputs of an accelerator part by name. inputs: int8, of any shape with the right number of values."""
    values: dict[str, Int64Array] = {}
    for name in graph.inputs:
        feature_map = graph.maps[name]
        shape = (feature_map.height, feature_map.width, feature_map.channels)
        values[name] = inputs[name].astype(np.int64).reshape(shape)
    for layer in graph.layers:
        result = _run_layer(graph, layer, values)
        feature_map = graph.maps[layer.output]
        assert result.shape == (feature_map.height, feature_map.width, feature_map.channels), layer.name
        assert result.min() >= -128, layer.name
        assert result.max() <= 127, layer.name
        values[layer.output] = result
    return {name: values[name].astype(np.int8) for name in graph.outputs}


def _run_layer(graph: Graph, layer: Layer, values: Mapping[str, Int64Array]) -> Int64Array:
    x = values[layer.input]
    output = graph.maps[layer.output]
    size = (output.height, output.width)
    match layer:
        case Convolution():
            return _finish(_convolve(layer, x, size, graph.maps[layer.input].zero_point), layer.requantize)
        case Rearrange():
            return _rearrange(layer, [values[name] for name in layer.reads], (*size, output.channels))
        case MaxPool():
            pooled = [[window.max(axis=(0, 1)) for window in row] for row in _windows(layer, x, size)]
            return np.clip(np.array(pooled), layer.minimum, layer.maximum)
        case AveragePool(rules=rules) if rules is not None:
            pooled = [
                [_finish(window.sum(axis=(0, 1)), rules[window[..., 0].size]) for window in row]
                for row in _windows(layer, x, size)
            ]
            return np.clip(np.array(pooled), layer.minimum, layer.maximum)
        case AveragePool():
            pooled = [[_rounded_mean(window) for window in row] for row in _windows(layer, x, size)]
            return np.clip(np.array(pooled), layer.minimum, layer.maximum)
        case Mean():
            return _finish(x.sum(axis=(0, 1), keepdims=True), layer.requantize)
        case Add():
            return _add(layer, x, values[layer.operand])
        case Multiply():
            product = (x - layer.zero_input) * (values[layer.operand] - layer.zero_operand)
            scaled = requantize(product, layer.multiplier, layer.shift, layer.rounding)
            return np.clip(scaled + layer.zero_point, layer.minimum, layer.maximum)
        case Rescale():
            return _finish(x, layer.requantize)
        case Table():
            entries = dict(zip(range(-128, 128), layer.table.tolist(), strict=True))
            return np.array([entries[value] for value in x.ravel().tolist()], np.int64).reshape(x.shape)
        case _:
            raise TypeError(type(layer).__name__)


def _finish(sums: Int64Array, rule: Requantize) -> Int64Array:
    scaled = requantize(sums + rule.bias, rule.multiplier, rule.shift, rule.rounding)
    return np.clip(scaled + rule.zero_point, rule.minimum, rule.maximum)


def _rearrange(layer: Rearrange, sources: list[Int64Array], shape: tuple[int, int, int]) -> Int64Array:
    result = np.full((shape[0], shape[1] * shape[2]), 1 << 20, np.int64)
    rescaled = [_finish(source, rule) for source, rule in zip(sources, layer.requantize, strict=True)]
    for move in layer.moves:
        source = rescaled[move.source]
        for y, x in np.ndindex(move.height, move.width):
            row, column = move.target[0] + y * move.target_step[0], move.target[1] + x * move.target_step[1]
            target = column * shape[2] + move.target_channel
            read = (move.origin[1] + x * move.step[1]) * source.shape[2] + move.channel
            values = source[move.origin[0] + y * move.step[0]].reshape(-1)[read : read + move.channels]
            result[row, target : target + move.channels] = values if move.fill is None else move.fill
    return result.reshape(shape)


def _convolve(layer: Convolution, x: Int64Array, size: tuple[int, int], pad_value: int) -> Int64Array:
    """Sums of products `[*size, output channels]`, on an image framed by as much padding as the windows reach."""
    kernel_height, kernel_width, _, channels = layer.kernel.shape
    (sy, sx), (dy, dx), (top, left) = layer.stride, layer.dilation, layer.pad
    height = max(x.shape[0] + top, (size[0] - 1) * sy + (kernel_height - 1) * dy + 1)
    width = max(x.shape[1] + left, (size[1] - 1) * sx + (kernel_width - 1) * dx + 1)
    image = np.full((height, width, x.shape[2]), pad_value, np.int64)
    image[top : top + x.shape[0], left : left + x.shape[1]] = x
    if layer.depthwise:
        image = np.repeat(image, channels // x.shape[2], axis=2)
    # Products of int8 summed up stay far below 2**53: float64, for which there is a fast product, is exact.
    total = np.zeros((*size, channels), np.float64)
    for i in range(kernel_height):
        for j in range(kernel_width):
            tap = image[i * dy :, j * dx :][: (size[0] - 1) * sy + 1 : sy, : (size[1] - 1) * sx + 1 : sx]
            weights = layer.kernel[i, j].astype(np.float64)
            total += tap * weights[0] if layer.depthwise else tap.astype(np.float64) @ weights
    return total.astype(np.int64)


def _windows(layer: PoolLayer, x: Int64Array, size: tuple[int, int]) -> list[list[Int64Array]]:
    """The pixels under each window, as far as they lie in the image."""
    rows: list[list[Int64Array]] = []
    for oy in range(size[0]):
        y = oy * layer.stride[0] - layer.pad[0]
        row: list[Int64Array] = []
        for ox in range(size[1]):
            left = ox * layer.stride[1] - layer.pad[1]
            row.append(x[max(y, 0) : y + layer.window[0], max(left, 0) : left + layer.window[1]])
        rows.append(row)
    return rows


def _rounded_mean(window: Int64Array) -> Int64Array:
    total, count = window.sum(axis=(0, 1)), window.shape[0] * window.shape[1]
    return np.sign(total) * ((np.abs(total) + count // 2) // count)


def _add(layer: Add, a: Int64Array, b: Int64Array) -> Int64Array:
    first = requantize((a - layer.zero_input) << 20, layer.multiplier_input, layer.shift_input, layer.rounding)
    second = requantize((b - layer.zero_operand) << 20, layer.multiplier_operand, layer.shift_operand, layer.rounding)
    total = requantize(first + second, layer.multiplier, layer.shift, layer.rounding)
    return np.clip(total + layer.zero_point, layer.minimum, layer.maximum)
