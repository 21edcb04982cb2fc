# SPDX-License-Identifier: Apache-2.0
"""Interval arithmetic: which values each channel of each feature map can take, whatever the inputs are.

A channel whose range is a single value is constant: it has that value in every pixel of every image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import (
    ADD_LEFT_SHIFT,
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    INT32_MIN,
    requantize,
    to_int8,
)
from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Convolution,
    Graph,
    Layer,
    Mean,
    Multiply,
    PoolLayer,
    Rearrange,
    Requantize,
    Rescale,
    Table,
)

Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class ValueRange:
    """Bounds of the values of each channel, both included. low, high: `[channels]` int64."""

    low: Int64Array
    high: Int64Array

    @property
    def constant(self) -> NDArray[np.bool_]:
        """`[channels]`: whether the channel has one value only, which is then `low`."""
        return self.low == self.high


def value_ranges(graph: Graph) -> dict[str, ValueRange]:
    """The range of every feature map by name. An input may hold any int8 value."""
    ranges = {
        name: ValueRange(
            np.full(graph.maps[name].channels, INT8_MIN, np.int64),
            np.full(graph.maps[name].channels, INT8_MAX, np.int64),
        )
        for name in graph.inputs
    }
    for layer in graph.layers:
        ranges[layer.output] = _output_range(graph, layer, ranges)
    return ranges


def reaches_padding(graph: Graph, layer: Convolution) -> bool:
    """Whether some window of the convolution leaves the image, where it reads the input's zero point."""
    source, output = graph.maps[layer.input], graph.maps[layer.output]
    return any(
        before > 0 or (count - 1) * stride - before + (taps - 1) * dilation + 1 > size
        for before, count, stride, taps, dilation, size in zip(
            layer.pad,
            (output.height, output.width),
            layer.stride,
            layer.kernel.shape[:2],
            layer.dilation,
            (source.height, source.width),
            strict=True,
        )
    )


def sum_range(graph: Graph, layer: Convolution, source: ValueRange) -> ValueRange:
    """The range of a convolution's sums of products with the bias, before they wrap to int32, by output channel.

    Where windows leave the image, an input value may also be the zero point. Positive weights carry bounds over,
    negative ones swap them.
    """
    low, high = source.low, source.high
    if reaches_padding(graph, layer):
        zero_point = graph.maps[layer.input].zero_point
        low, high = np.minimum(low, zero_point), np.maximum(high, zero_point)
    kernel = layer.kernel.astype(np.int64)
    positive, negative = np.maximum(kernel, 0).sum(axis=(0, 1)), np.minimum(kernel, 0).sum(axis=(0, 1))
    if layer.depthwise:
        multiplier = kernel.shape[3] // len(low)
        low, high = np.repeat(low, multiplier), np.repeat(high, multiplier)
        bounds = positive[0] * low + negative[0] * high, positive[0] * high + negative[0] * low
    else:
        bounds = low @ positive + high @ negative, high @ positive + low @ negative
    return ValueRange(bounds[0] + layer.requantize.bias, bounds[1] + layer.requantize.bias)


def _output_range(graph: Graph, layer: Layer, ranges: Mapping[str, ValueRange]) -> ValueRange:
    source = ranges[layer.input]
    match layer:
        case Convolution():
            return _requantized(sum_range(graph, layer, source), layer.requantize)
        case Mean():
            pixels = graph.maps[layer.input].height * graph.maps[layer.input].width
            bias = layer.requantize.bias
            return _requantized(ValueRange(source.low * pixels + bias, source.high * pixels + bias), layer.requantize)
        case Rescale():
            bias = layer.requantize.bias
            return _requantized(ValueRange(source.low + bias, source.high + bias), layer.requantize)
        case Table():
            return _looked_up(layer.table, source)
        case AveragePool(rules=rules) if rules is not None:
            sums = [
                _requantized(ValueRange(source.low * count + rule.bias, source.high * count + rule.bias), rule)
                for count, rule in rules.items()
            ]
            low, high = np.min([each.low for each in sums], axis=0), np.max([each.high for each in sums], axis=0)
            return ValueRange(np.clip(low, layer.minimum, layer.maximum), np.clip(high, layer.minimum, layer.maximum))
        case PoolLayer():
            # Maximum and rounded mean of values in a range are in it, and of equal values are that value.
            return ValueRange(
                np.clip(source.low, layer.minimum, layer.maximum), np.clip(source.high, layer.minimum, layer.maximum)
            )
        case Rearrange():
            return _rearranged(layer, graph.maps[layer.output].channels, [ranges[name] for name in layer.reads])
        case Add():
            operand = ranges[layer.operand]
            return ValueRange(_sum(layer, source.low, operand.low), _sum(layer, source.high, operand.high))
        case Multiply():
            return _product(layer, source, ranges[layer.operand])
        case _:
            raise TypeError(f"no range is known for a layer of type {type(layer).__name__}")


def _rearranged(layer: Rearrange, channels: int, sources: Sequence[ValueRange]) -> ValueRange:
    """Of each channel of the output, whatever any move brings there."""
    rescaled = [
        _requantized(ValueRange(source.low + rule.bias, source.high + rule.bias), rule)
        for source, rule in zip(sources, layer.requantize, strict=True)
    ]
    low, high = np.full(channels, INT8_MAX, np.int64), np.full(channels, INT8_MIN, np.int64)
    for move in layer.moves:
        # Channels that run on into the next pixels begin there from 0 again.
        count = np.arange(move.channels)
        found = rescaled[move.source]
        read, target = (move.channel + count) % len(found.low), (move.target_channel + count) % channels
        least, most = (found.low[read], found.high[read]) if move.fill is None else (move.fill, move.fill)
        np.minimum.at(low, target, least)
        np.maximum.at(high, target, most)
    return ValueRange(low, high)


def _requantized(sums: ValueRange, rule: Requantize) -> ValueRange:
    """What requantization makes of a range of sums.

    It is monotone (multipliers are not negative), as long as neither the sum nor its left shift wraps around; where
    one might, only the clamp is certain.
    """
    left = np.maximum(rule.shift, 0)
    exact = (sums.low << left >= INT32_MIN) & (sums.high << left <= INT32_MAX)

    def bound(value: Int64Array) -> Int64Array:
        scaled = requantize(value, rule.multiplier, rule.shift, rule.rounding)
        return to_int8(scaled, rule.zero_point, rule.minimum, rule.maximum).astype(np.int64)

    return ValueRange(
        np.where(exact, bound(sums.low), rule.minimum),
        np.where(exact, bound(sums.high), rule.maximum),
    )


def _looked_up(table: NDArray[np.int8], source: ValueRange) -> ValueRange:
    """The least and the greatest of the entries that each channel's values can select."""
    entries = table.astype(np.int64)
    selected = [
        entries[low - INT8_MIN : high - INT8_MIN + 1] for low, high in zip(source.low, source.high, strict=True)
    ]
    return ValueRange(
        np.array([part.min() for part in selected], np.int64), np.array([part.max() for part in selected], np.int64)
    )


def _sum(layer: Add, values: Int64Array, operand: Int64Array) -> Int64Array:
    """The sum, monotone in both operands: no step of it can wrap around."""
    first = requantize(
        (values - layer.zero_input) << ADD_LEFT_SHIFT, layer.multiplier_input, layer.shift_input, layer.rounding
    )
    second = requantize(
        (operand - layer.zero_operand) << ADD_LEFT_SHIFT,
        layer.multiplier_operand,
        layer.shift_operand,
        layer.rounding,
    )
    total = requantize(first + second, layer.multiplier, layer.shift, layer.rounding)
    return to_int8(total, layer.zero_point, layer.minimum, layer.maximum).astype(np.int64)


def _product(layer: Multiply, values: ValueRange, operand: ValueRange) -> ValueRange:
    """The product: bounded by those of the bounds, and monotone from there on. No step of it can wrap around."""
    products = np.stack(
        [
            (one - layer.zero_input) * (other - layer.zero_operand)
            for one in (values.low, values.high)
            for other in (operand.low, operand.high)
        ]
    )

    def finished(product: Int64Array) -> Int64Array:
        scaled = requantize(product, layer.multiplier, layer.shift, layer.rounding)
        return to_int8(scaled, layer.zero_point, layer.minimum, layer.maximum).astype(np.int64)

    return ValueRange(finished(products.min(axis=0)), finished(products.max(axis=0)))
