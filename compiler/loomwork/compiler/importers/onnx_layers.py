# SPDX-License-Identifier: Apache-2.0
"""Layers of quantized ONNX operators without weights: pooling, sums, rescaling.

Each function takes a unit, the feature maps that it reads and the one that it writes, and returns what becomes of it.
It raises MisfitError for what the accelerator cannot do.
"""

from dataclasses import replace

import numpy as np

from loomwork.arch.numerics import ADD_LEFT_SHIFT, INT8_MAX, INT8_MIN, Rounding
from loomwork.compiler.graph import Add, Convolution, FeatureMap, Layer, MaxPool, Mean, Multiply, Rescale
from loomwork.compiler.importers.onnx_arithmetic import (
    clamp,
    multipliers,
    quantization,
    quantized,
    requantize,
    rescaling,
    result_quantization,
    taken_over,
)
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_sight import Built, Sight, Window, window
from loomwork.compiler.importers.onnx_units import Unit, clamp_bounds


def max_pool(unit: Unit, sight: Sight) -> Built:
    """MaxPool and GlobalMaxPool; to another scale by a rescaling behind it."""
    source, result = sight.inputs[0], sight.output
    if unit.node.op == "GlobalMaxPool":
        moves = Window(size=(source.height, source.width), stride=(1, 1), dilation=(1, 1), pad=(0, 0), after=(0, 0))
    else:
        moves = window(unit, tuple(unit.node.attributes["kernel_shape"]))
    if moves.dilation != (1, 1):
        raise MisfitError("its window is dilated")
    low, high = clamp(unit)

    def pool(output: str, minimum: int, maximum: int) -> MaxPool:
        return MaxPool(
            name=unit.name,
            operator=unit.node.op,
            input=source.name,
            output=output,
            window=moves.size,
            stride=moves.stride,
            pad=moves.pad,
            minimum=minimum,
            maximum=maximum,
        )

    if same_numbers(unit):
        return Built(layers=(pool(result.name, low, high),))
    between = FeatureMap(
        name=f"{result.name}/pooled",
        height=result.height,
        width=result.width,
        channels=result.channels,
        zero_point=source.zero_point,
    )
    rescaling = rescaled(unit, between.name, result.name)
    return Built(layers=(pool(between.name, INT8_MIN, INT8_MAX), rescaling), maps=(between,))


def same_numbers(unit: Unit) -> bool:
    """Whether a number that is taken over as it is means the same in the result as in the sources."""
    return all(source.quantization == unit.quantization for source in unit.read)


def rescaled(unit: Unit, source: str, result: str) -> Rescale:
    """The step from the unit's input's scale to its result's."""
    return Rescale(name=unit.name, operator=unit.node.op, input=source, output=result, requantize=rescaling(unit))


def rescale(unit: Unit, sight: Sight) -> Built:
    """Relu and Clip (the unit has their bounds already), QuantizeLinear of what is quantized otherwise."""
    bounds = _own_bounds(unit)
    layer = rescaled(unit, sight.inputs[0].name, sight.output.name)
    rule, own = result_quantization(unit), layer.requantize
    low, high = quantized(bounds[0], rule), quantized(bounds[1], rule)
    own = replace(
        own,
        minimum=min(max(low, own.minimum), own.maximum),
        maximum=max(min(high, own.maximum), own.minimum),
    )
    return Built(layers=(replace(layer, requantize=own),))


def _own_bounds(unit: Unit) -> tuple[float, float]:
    if unit.node.op == "QuantizeLinear":
        return -np.inf, np.inf
    bounds = clamp_bounds(unit.model, unit.node)
    if bounds is None:
        raise MisfitError("its bounds are computed")
    return bounds


def mean(unit: Unit, sight: Sight) -> Built:
    """GlobalAveragePool and ReduceMean: the sum of all pixels, divided and rescaled in one rounding."""
    source, before = sight.inputs[0], quantization(unit.read[0])
    count = source.height * source.width
    layer = Mean(
        name=unit.name,
        operator=unit.node.op,
        input=source.name,
        output=sight.output.name,
        requantize=requantize(
            unit, np.asarray([before.scale / count], np.float64), np.array([-before.zero_point * count], np.int64)
        ),
    )
    return Built(layers=(layer,))


def add(unit: Unit, sight: Sight) -> Built:
    """Add of two tensors; Sub adds the second one with its sign changed, which a convolution with -1 does."""
    if len(sight.inputs) != 2:
        raise MisfitError("one of its inputs is constant")
    first, second = sight.inputs
    a, b = (quantization(source).scale for source in unit.read)
    before: tuple[Layer, ...] = ()
    maps: tuple[FeatureMap, ...] = ()
    if unit.node.op == "Sub":
        # -(b - z) as int8: with zero point -1 - z the numbers -128 .. 127 change places, none is lost.
        negative = replace(second, name=f"{sight.output.name}/negative", zero_point=-1 - second.zero_point)
        before, maps = (_negation(unit, second, negative),), (negative,)
        second = negative
    return Built(layers=(*before, sum_of(unit, sight.output, (first, a), (second, b))), maps=maps)


def _negation(unit: Unit, source: FeatureMap, result: FeatureMap) -> Convolution:
    return Convolution(
        name=f"{unit.name}/negative",
        operator=unit.node.op,
        input=source.name,
        output=result.name,
        kernel=np.full((1, 1, 1, source.channels), -1, np.int8),
        depthwise=source.channels > 1,
        requantize=taken_over(zero_point=-1),
    )


def multiply(unit: Unit, sight: Sight) -> Built:
    """Mul of two tensors: the product of what they store, rescaled in one rounding."""
    if len(sight.inputs) != 2:
        raise MisfitError("one of its inputs is constant")
    a, b = (quantization(source) for source in unit.read)
    with np.errstate(over="ignore"):  # refused by `requantize`
        factor = np.asarray([a.scale], np.float32) * np.float32(b.scale)
    rule = requantize(unit, factor, np.array([0], np.int64))
    layer = Multiply(
        name=unit.name,
        operator=unit.node.op,
        input=sight.inputs[0].name,
        output=sight.output.name,
        operand=sight.inputs[1].name,
        zero_input=a.zero_point,
        zero_operand=b.zero_point,
        multiplier=int(rule.multiplier[0]),
        shift=int(rule.shift[0]),
        zero_point=rule.zero_point,
        minimum=rule.minimum,
        maximum=rule.maximum,
        rounding=rule.rounding,
    )
    return Built(layers=(layer,))


def sum_of(unit: Unit, output: FeatureMap, first: tuple[FeatureMap, float], second: tuple[FeatureMap, float]) -> Add:
    """The unit's result as the sum of two maps, each given with its scale. Raises MisfitError."""
    (a, scale_a), (b, scale_b), rule = first, second, result_quantization(unit)
    twice_largest = 2 * max(scale_a, scale_b)
    total = twice_largest / ((1 << ADD_LEFT_SHIFT) * rule.scale)
    (m1, m2, m3), (s1, s2, s3) = multipliers(np.array([scale_a / twice_largest, scale_b / twice_largest, total]))
    if max(s1, s2, s3) > 0:
        raise MisfitError("its result has a scale so fine that the sum would have to be enlarged")
    low, high = clamp(unit)
    return Add(
        name=unit.name,
        operator=unit.node.op,
        input=a.name,
        output=output.name,
        operand=b.name,
        multiplier_input=int(m1),
        shift_input=int(s1),
        zero_input=a.zero_point,
        multiplier_operand=int(m2),
        shift_operand=int(s2),
        zero_operand=b.zero_point,
        multiplier=int(m3),
        shift=int(s3),
        zero_point=rule.zero_point,
        minimum=low,
        maximum=high,
        rounding=Rounding.ONNX,
    )
