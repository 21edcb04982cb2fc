# SPDX-License-Identifier: Apache-2.0
"""The invariants of a `Graph`, checked after import and between passes."""

from collections.abc import Callable

import numpy as np

from loomwork.arch.numerics import INT8_MAX, INT8_MIN, INT32_MAX, INT32_MIN, MAX_LEFT_SHIFT, MAX_RIGHT_SHIFT
from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Combination,
    CompileError,
    Convolution,
    FeatureMap,
    Graph,
    Layer,
    MaxPool,
    Mean,
    Move,
    Multiply,
    PoolLayer,
    Rearrange,
    Requantize,
    Rescale,
    Table,
)
from loomwork.compiler.tiling import pooling_counts


class VerifyError(CompileError):
    """A graph that does not hold together: a fault of the importer or of a pass, not of the model."""


def verify(graph: Graph) -> None:
    """Raise VerifyError, naming layer and member, unless every invariant of the graph holds."""
    for key, feature_map in graph.maps.items():
        _verify_map(key, feature_map)
    for name in (*graph.inputs, *graph.outputs):
        if name not in graph.maps:
            raise VerifyError(f"the graph's input or output {name!r} has no feature map")
    for names, what in ((graph.inputs, "inputs"), (graph.outputs, "outputs")):
        if len(set(names)) != len(names):
            raise VerifyError(f"the graph's {what} name a feature map twice: {names}")
    written = set(graph.inputs)
    for layer in graph.layers:
        for name in (*layer.reads, layer.output):
            if name not in graph.maps:
                raise _error(layer, f"feature map {name!r} does not exist")
        for name in layer.reads:
            if name not in written:
                raise _error(layer, f"it reads {name!r} before any layer writes it")
        if layer.output in written:
            raise _error(layer, f"it writes {layer.output!r}, which is there already")
        written.add(layer.output)
        _verify_layer(graph, layer)
    for name in graph.outputs:
        if name not in written or name in graph.inputs:
            raise VerifyError(f"no layer writes the graph's output {name!r}")
    unused = set(graph.maps) - written
    if unused:
        raise VerifyError(f"no layer reads or writes the feature maps {sorted(unused)}")


def _error(layer: Layer, problem: str) -> VerifyError:
    return VerifyError(f"{layer.operator} {layer.name!r} ({type(layer).__name__}): {problem}")


def _verify_map(key: str, feature_map: FeatureMap) -> None:
    if feature_map.name != key:
        raise VerifyError(f"feature map {key!r} calls itself {feature_map.name!r}")
    if min(feature_map.height, feature_map.width, feature_map.channels) < 1:
        raise VerifyError(f"feature map {key!r} is empty: {feature_map}")
    if not INT8_MIN <= feature_map.zero_point <= INT8_MAX:
        raise VerifyError(f"feature map {key!r} has zero point {feature_map.zero_point}, outside int8")


def _verify_layer(graph: Graph, layer: Layer) -> None:
    for kind, check in _CHECKS.items():
        if isinstance(layer, kind):
            check(graph, layer)
            return
    raise _error(layer, "no such layer is known")


def _verify_convolution(graph: Graph, layer: Convolution) -> None:
    source, output, kernel = graph.maps[layer.input], graph.maps[layer.output], layer.kernel
    if kernel.dtype != np.int8 or kernel.ndim != 4:
        raise _error(layer, f"the kernel must be int8 of 4 dimensions, not {kernel.dtype} of {kernel.ndim}")
    if kernel.shape[3] != output.channels:
        raise _error(layer, f"the kernel {kernel.shape} does not give {output.channels} channels")
    if layer.depthwise and (kernel.shape[2] != 1 or output.channels % source.channels):
        raise _error(layer, f"the depthwise kernel {kernel.shape} does not fit {source.channels} input channels")
    if not layer.depthwise and kernel.shape[2] != source.channels:
        raise _error(layer, f"the kernel {kernel.shape} does not fit {source.channels} input channels")
    height, width = kernel.shape[:2]
    extent = ((height - 1) * layer.dilation[0] + 1, (width - 1) * layer.dilation[1] + 1)
    if min(*layer.dilation, height, width) < 1:
        raise _error(layer, f"kernel {kernel.shape} and dilation {layer.dilation} must be positive")
    _verify_window(layer, source, output, extent, layer.stride, layer.pad)
    _verify_requantize(layer, layer.requantize, output.channels)


def _verify_pool(graph: Graph, layer: PoolLayer) -> None:
    source, output = graph.maps[layer.input], graph.maps[layer.output]
    if source.channels != output.channels:
        raise _error(layer, f"it reads {source.channels} and writes {output.channels} channels")
    _verify_window(layer, source, output, layer.window, layer.stride, layer.pad)
    for axis in range(2):
        size, produced = (source.height, source.width)[axis], (output.height, output.width)[axis]
        last = (produced - 1) * layer.stride[axis] - layer.pad[axis]
        if layer.pad[axis] >= layer.window[axis] or last >= size:
            raise _error(layer, f"a window of {layer.window} padded by {layer.pad} misses the image")
    _verify_clamp(layer, layer.minimum, layer.maximum)


def _verify_window(
    layer: Layer,
    source: FeatureMap,
    output: FeatureMap,
    extent: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
) -> None:
    """extent: pixels the window covers, dilation included. The window may leave the image, but not short of its end."""
    if min(*extent, *stride) < 1 or min(pad) < 0:
        raise _error(layer, f"window {extent}, stride {stride} must be positive and padding {pad} not negative")
    for axis, name in ((0, "height"), (1, "width")):
        size, produced = (source.height, source.width)[axis], (output.height, output.width)[axis]
        reach = (produced - 1) * stride[axis] + extent[axis]
        if size + pad[axis] - reach >= stride[axis]:
            raise _error(layer, f"{name} {size}, padded by {pad[axis]}, gives more than {produced} outputs")


def _verify_average(graph: Graph, layer: AveragePool) -> None:
    _verify_pool(graph, layer)
    if layer.rules is None:
        return
    source, output = graph.maps[layer.input], graph.maps[layer.output]
    sizes = (output.height, output.width), (source.height, source.width)
    for count in pooling_counts(*sizes, layer.window, layer.stride, layer.pad) - set(layer.rules):
        raise _error(layer, f"it has no rule for a window of {count} pixels")
    for rule in layer.rules.values():
        _verify_requantize(layer, rule, 1)


def _verify_mean(graph: Graph, layer: Mean) -> None:
    source, output = graph.maps[layer.input], graph.maps[layer.output]
    if (output.height, output.width, output.channels) != (1, 1, source.channels):
        raise _error(layer, f"the mean of {source.channels} channels is {output}")
    _verify_requantize(layer, layer.requantize, 1)


def _verify_rescale(graph: Graph, layer: Rescale) -> None:
    _verify_same_shape(graph, layer, layer.input)
    _verify_requantize(layer, layer.requantize, 1)


def _verify_table(graph: Graph, layer: Table) -> None:
    _verify_same_shape(graph, layer, layer.input)
    entries = INT8_MAX - INT8_MIN + 1
    if layer.table.dtype != np.int8 or layer.table.shape != (entries,):
        raise _error(layer, f"the table must be int8 of {entries} entries, not {layer.table.dtype} {layer.table.shape}")


def _verify_add(graph: Graph, layer: Add) -> None:
    for multiplier, shift in (
        (layer.multiplier_input, layer.shift_input),
        (layer.multiplier_operand, layer.shift_operand),
    ):
        _verify_range(layer, "multiplier", multiplier, 0, INT32_MAX)
        _verify_range(layer, "shift", shift, -MAX_RIGHT_SHIFT, 0)
    _verify_combination(graph, layer)


def _verify_combination(graph: Graph, layer: Combination) -> None:
    _verify_same_shape(graph, layer, layer.input)
    _verify_same_shape(graph, layer, layer.operand)
    _verify_range(layer, "multiplier", layer.multiplier, 0, INT32_MAX)
    # A sum has been shifted to the left already, so far that more would leave 32 bits.
    left = 0 if isinstance(layer, Add) else MAX_LEFT_SHIFT
    _verify_range(layer, "shift", layer.shift, -MAX_RIGHT_SHIFT, left)
    for zero in (layer.zero_input, layer.zero_operand, layer.zero_point):
        _verify_range(layer, "zero point", zero, INT8_MIN, INT8_MAX)
    _verify_clamp(layer, layer.minimum, layer.maximum)


def _verify_rearrange(graph: Graph, layer: Rearrange) -> None:
    output = graph.maps[layer.output]
    if len(layer.requantize) != len(layer.reads):
        raise _error(layer, f"it has {len(layer.requantize)} requantizations for {len(layer.reads)} maps")
    for rule in layer.requantize:
        _verify_requantize(layer, rule, 1)
    written = np.zeros((output.height, output.row_bytes), np.uint8)
    for move in layer.moves:
        if min(move.height, move.width, move.channels, *move.target_step) < 1:
            raise _error(layer, f"{move} has sizes that are not positive")
        if not 0 <= move.source < len(layer.reads):
            raise _error(layer, f"{move} is from a map that it does not read")
        source = graph.maps[layer.reads[move.source]]
        _verify_move(layer, move, source, move.origin, move.step, move.channel)
        _verify_move(layer, move, output, move.target, move.target_step, move.target_channel)
        rows = move.target[0] + np.arange(move.height) * move.target_step[0]
        columns = move.target[1] + np.arange(move.width) * move.target_step[1]
        first = columns * output.channels + move.target_channel
        written[np.ix_(rows, (first[:, np.newaxis] + np.arange(move.channels)).ravel())] += 1
        if move.fill is not None:
            _verify_range(layer, "fill", move.fill, INT8_MIN, INT8_MAX)
    if (written != 1).any():
        raise _error(layer, f"its moves write {int((written != 1).sum())} numbers not just once")


def _verify_move(
    layer: Layer, move: Move, feature_map: FeatureMap, pixel: tuple[int, int], step: tuple[int, int], channel: int
) -> None:
    """Whether all pixels of a move lie inside a map, and their channels in the pixel, or in the row if there is one."""
    counts = (move.height, move.width)
    row, column = (first + (count - 1) * by for first, count, by in zip(pixel, counts, step, strict=True))
    room = feature_map.channels if move.width > 1 else (feature_map.width - column) * feature_map.channels
    inside = row < feature_map.height and column < feature_map.width and channel + move.channels <= room
    if min(*pixel, *step, channel) < 0 or not inside:
        raise _error(layer, f"{move} leaves {feature_map}")


def _verify_same_shape(graph: Graph, layer: Layer, name: str) -> None:
    source, output = graph.maps[name], graph.maps[layer.output]
    if (source.height, source.width, source.channels) != (output.height, output.width, output.channels):
        raise _error(layer, f"{source} and {output} differ in shape")


def _verify_requantize(layer: Layer, requantize: Requantize, channels: int) -> None:
    for name, values, low, high in (
        ("multiplier", requantize.multiplier, 0, INT32_MAX),
        ("shift", requantize.shift, -MAX_RIGHT_SHIFT, MAX_LEFT_SHIFT),
        ("bias", requantize.bias, INT32_MIN, INT32_MAX),
    ):
        if values.dtype != np.int64 or values.shape not in ((1,), (channels,)):
            raise _error(layer, f"{name} must be int64 of 1 or {channels} values, not {values.dtype} {values.shape}")
        _verify_range(layer, name, int(values.min()), low, high)
        _verify_range(layer, name, int(values.max()), low, high)
    _verify_range(layer, "zero point", requantize.zero_point, INT8_MIN, INT8_MAX)
    _verify_clamp(layer, requantize.minimum, requantize.maximum)


def _verify_clamp(layer: Layer, minimum: int, maximum: int) -> None:
    _verify_range(layer, "minimum", minimum, INT8_MIN, maximum)
    _verify_range(layer, "maximum", maximum, minimum, INT8_MAX)


def _verify_range(layer: Layer, name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise _error(layer, f"{name} must be from {low} to {high}, not {value}")


_CHECKS: dict[type[Layer], Callable[..., None]] = {
    Convolution: _verify_convolution,
    MaxPool: _verify_pool,
    AveragePool: _verify_average,
    Mean: _verify_mean,
    Add: _verify_add,
    Multiply: _verify_combination,
    Rescale: _verify_rescale,
    Rearrange: _verify_rearrange,
    Table: _verify_table,
}
