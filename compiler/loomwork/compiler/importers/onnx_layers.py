# SPDX-License-Identifier: Apache-2.0
"""Layers of quantized ONNX operators: every number that makes them exact.

Each function takes a unit, the feature maps that it reads and the one that it writes, and returns what becomes of it.
It raises MisfitError for what the accelerator cannot do.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import ADD_LEFT_SHIFT, IDENTITY_MULTIPLIER, IDENTITY_SHIFT, INT8_MAX, INT8_MIN, Rounding
from loomwork.compiler.graph import Add, Convolution, FeatureMap, Layer, MaxPool, Mean, Requantize, Rescale
from loomwork.compiler.importers.grouped import dense_kernel
from loomwork.compiler.importers.onnx_arithmetic import (
    clamp,
    multipliers,
    quantization,
    quantized,
    requantize,
    rescaling,
    result_quantization,
)
from loomwork.compiler.importers.onnx_codes import Index
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_units import StoredWeights, Unit, clamp_bounds
from loomwork.compiler.limits import MAX_DENSE_BYTES, MAX_DILATION, MAX_KERNEL_HEIGHT, MAX_STRIDE, MAX_TAPS

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a layer is made from: the maps that are read and the one that is written.

    places: where the numbers of each source lie. result: where those of the operator's own result do.
    """

    inputs: tuple[FeatureMap, ...]
    places: tuple[Index, ...]
    output: FeatureMap
    result: Index


@dataclass(frozen=True, kw_only=True)
class Built:
    """Layers, in order, and the maps between them."""

    layers: tuple[Layer, ...]
    maps: tuple[FeatureMap, ...] = field(default=())


Build = Callable[[Unit, Sight], Built]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window over an image: (y, x) each. pad: before the image."""

    size: Pair
    stride: Pair
    dilation: Pair
    pad: Pair
    after: Pair


def window(unit: Unit, size: tuple[int, ...]) -> Window:
    """The window of a convolution or pooling, with one spatial dimension or two. size: of the kernel."""
    attributes = unit.node.attributes
    count = len(size)
    if count > 2 or count != len(unit.shape(0)) - 2:
        raise MisfitError(f"it goes over {len(unit.shape(0)) - 2} dimensions; the accelerator needs one or two")
    stride = tuple(attributes.get("strides") or [1] * count)
    dilation = tuple(attributes.get("dilations") or [1] * count)
    pads = list(attributes.get("pads") or [0] * 2 * count)
    before, after = pads[:count], pads[count:]
    mode = attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for axis in range(count):
            reach = (unit.result_shape[2 + axis] - 1) * stride[axis] + (size[axis] - 1) * dilation[axis] + 1
            total = max(0, reach - unit.shape(0)[2 + axis])
            small = total // 2
            before[axis], after[axis] = (small, total - small) if mode == "SAME_UPPER" else (total - small, small)
    elif mode == "VALID":
        before, after = [0] * count, [0] * count
    if min(*before, *after) < 0:
        raise MisfitError(f"its padding {pads} is negative")
    return Window(
        size=_pair(size, 1),
        stride=_pair(stride, 1),
        dilation=_pair(dilation, 1),
        pad=_pair(before, 0),
        after=_pair(after, 0),
    )


def _pair(values: tuple[int, ...] | list[int], missing: int) -> Pair:
    y, x = [missing, *(int(value) for value in values)][-2:]
    return y, x


def weights(unit: Unit, position: int) -> StoredWeights:
    """Quantized constant weights that fit int8 when their zero point is taken off."""
    found = unit.stored(position)
    if found is None:
        kind = "computed" if unit.constant(position) is None else "real numbers"
        raise MisfitError(f"its weights are {kind}; the accelerator needs constants quantized to 8 bits")
    if found.stored.size and (found.stored.min() < INT8_MIN or found.stored.max() > INT8_MAX):
        raise MisfitError("its weights without their zero point do not fit int8")
    return found


def channel_scales(found: StoredWeights, axis: int) -> NDArray[np.float32]:
    """Scales of the output channels, which lie along `axis`."""
    if found.scale.size > 1 and found.axis != axis % found.stored.ndim:
        raise MisfitError("its weights have a scale for each of another dimension than the output channels")
    return found.scale


def bias(unit: Unit, position: int, scales: NDArray[np.floating], channels: int) -> NDArray[np.int64]:
    """Bias of each output channel in units of `scales` (input scale x weight scale), rounded half to even."""
    if not unit.has(position):
        return np.zeros(channels, np.int64)
    real = unit.constant(position)
    if real is None:
        raise MisfitError("its bias is computed")
    if real.size not in (1, channels):
        raise MisfitError(f"its bias has shape {'x'.join(map(str, real.shape))}, not one value per output channel")
    steps = np.asarray(scales, np.float64)
    found = unit.stored(position)
    if found is not None and np.allclose(found.scale.astype(np.float64), steps, rtol=1e-5, atol=0):
        values = found.stored.astype(np.float64)
    else:
        values = np.rint(real.reshape(-1).astype(np.float64) / steps)
    return np.broadcast_to(values.reshape(-1), channels).astype(np.int64)


def convolution(unit: Unit, sight: Sight) -> Built:
    """Conv, with one or two spatial dimensions; groups are filled up with zeros to a dense kernel."""
    found = weights(unit, 1)
    moves = window(unit, found.stored.shape[2:])
    kernel = image_kernel(found.stored)
    groups, depth = int(unit.node.attributes.get("group", 1)), sight.inputs[0].channels
    depthwise = groups == depth > 1
    layer = weighted(
        unit,
        sight,
        kernel,
        scales=channel_scales(found, 0),
        stride=moves.stride,
        dilation=moves.dilation,
        pad=moves.pad,
        depthwise=depthwise,
    )
    if groups > 1 and not depthwise:
        if kernel.size * groups > MAX_DENSE_BYTES:
            raise MisfitError(f"its {groups} groups would take {kernel.size * groups} bytes as a dense kernel")
        layer = replace(layer, kernel=dense_kernel(kernel, groups))
    return Built(layers=(layer,))


def image_kernel(stored: NDArray[np.int64]) -> NDArray[np.int8]:
    """`[out, in, (height,) width]` as `[height, width, in, out]`."""
    out, depth, *size = stored.shape
    height, width = [1, *size][-2:]
    return np.ascontiguousarray(stored.astype(np.int8).reshape(out, depth, height, width).transpose(2, 3, 1, 0))


def weighted(
    unit: Unit,
    sight: Sight,
    kernel: NDArray[np.int8],
    *,
    scales: NDArray[np.floating],
    bias_position: int = 2,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    pad: Pair = (0, 0),
    depthwise: bool = False,
    repeat: int = 1,
) -> Convolution:
    """A convolution with the unit's bias. kernel: output channels last. scales: of the weights.

    repeat: how many times scales and bias stand for the kernel's output channels, one set behind the other.
    """
    source = quantization(unit.read[0])
    channels = kernel.shape[3]
    factors = np.float32(source.scale) * np.asarray(scales, np.float32)
    values = np.tile(bias(unit, bias_position, factors, channels // repeat), repeat)
    if factors.size > 1:
        factors = np.tile(factors, repeat)
    sums = kernel.reshape(-1, channels).sum(axis=0, dtype=np.int64)
    tapped = depthwise or dilation[1] > 1
    if kernel.shape[0] > MAX_KERNEL_HEIGHT or (tapped and kernel.shape[1] > MAX_TAPS) or max(dilation) > MAX_DILATION:
        raise MisfitError(
            f"its kernel is {kernel.shape[0]}x{kernel.shape[1]} with dilation {dilation[0]}x{dilation[1]}; the "
            f"accelerator has room for {MAX_KERNEL_HEIGHT} rows, {MAX_TAPS} columns when depthwise or dilated, and a "
            f"dilation of {MAX_DILATION}"
        )
    if stride[0] > MAX_STRIDE and sight.output.height > 1:
        raise MisfitError(f"its stride is {stride[0]}; the accelerator has room for {MAX_STRIDE}")
    return Convolution(
        name=unit.name,
        operator=unit.node.op,
        input=sight.inputs[0].name,
        output=sight.output.name,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pad=pad,
        depthwise=depthwise,
        requantize=requantize(unit, factors, values - source.zero_point * sums),
    )


def dense(unit: Unit, sight: Sight) -> Built:
    """Gemm and MatMul with a constant matrix: a kernel that covers the image, or of 1x1 for several rows."""
    attributes = unit.node.attributes if unit.node.op == "Gemm" else {}
    if attributes.get("transA") and unit.shape(0)[0] > 1:
        raise MisfitError("it transposes what is computed (transA)")
    found = weights(unit, 1)
    if found.stored.ndim != 2:
        raise MisfitError(f"its matrix has {found.stored.ndim} dimensions; the accelerator needs 2")
    matrix, axis = found.stored.astype(np.int8), 1
    if attributes.get("transB"):
        matrix, axis = matrix.T, 0
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    if (alpha, beta if unit.has(2) else 1.0) != (1.0, 1.0):
        raise MisfitError(f"alpha is {alpha:g} and beta {beta:g}; the accelerator needs 1")
    source, depth = sight.inputs[0], matrix.shape[0]
    if sight.places[0].size == depth:
        # The kernel has the image's shape: where a number lies says which weight is for it.
        kernel = np.empty_like(matrix)
        kernel[sight.places[0].reshape(-1)] = matrix
        shape = (source.height, source.width, source.channels)
    else:
        kernel, shape = matrix, (1, 1, depth)
    kernel = np.ascontiguousarray(kernel.reshape(*shape, matrix.shape[1]))
    return Built(layers=(weighted(unit, sight, kernel, scales=channel_scales(found, axis)),))


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


def average_pool(unit: Unit, sight: Sight) -> Built:
    """AveragePool as a depthwise convolution with ones, whose sum is divided and rescaled in one rounding."""
    moves = window(unit, tuple(unit.node.attributes["kernel_shape"]))
    if moves.dilation != (1, 1):
        raise MisfitError("its window is dilated")
    if (any(moves.pad) or any(moves.after)) and not unit.node.attributes.get("count_include_pad"):
        raise MisfitError("its windows at the border count fewer pixels; the accelerator needs equal windows")
    result = (sight.output.height, sight.output.width)
    for axis, size in enumerate((sight.inputs[0].height, sight.inputs[0].width)):
        last = (result[axis] - 1) * moves.stride[axis] + moves.size[axis]
        if last > size + moves.pad[axis] + moves.after[axis]:
            raise MisfitError("its last windows leave the image (ceil_mode); the accelerator needs equal windows")
    channels, count = sight.output.channels, moves.size[0] * moves.size[1]
    kernel = np.ones((*moves.size, 1, channels), np.int8)
    scales = np.asarray([1 / count], np.float32)
    layer = weighted(
        unit, sight, kernel, scales=scales, bias_position=1, stride=moves.stride, pad=moves.pad, depthwise=channels > 1
    )
    return Built(layers=(layer,))


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
    zero_operand = quantization(unit.read[1]).zero_point
    before: tuple[Layer, ...] = ()
    maps: tuple[FeatureMap, ...] = ()
    if unit.node.op == "Sub":
        # -(b - z) as int8: with zero point -1 - z the numbers -128 .. 127 change places, none is lost.
        negative = replace(second, name=f"{sight.output.name}/negative", zero_point=-1 - zero_operand)
        before, maps = (_negation(unit, second, negative),), (negative,)
        second, zero_operand = negative, negative.zero_point
    return Built(layers=(*before, _sum(unit, sight, first, second, zero_operand)), maps=maps)


def _negation(unit: Unit, source: FeatureMap, result: FeatureMap) -> Convolution:
    return Convolution(
        name=result.name,
        operator=unit.node.op,
        input=source.name,
        output=result.name,
        kernel=np.full((1, 1, 1, source.channels), -1, np.int8),
        depthwise=source.channels > 1,
        requantize=Requantize(
            multiplier=np.array([IDENTITY_MULTIPLIER], np.int64),
            shift=np.array([IDENTITY_SHIFT], np.int64),
            bias=np.array([0], np.int64),
            zero_point=-1,
            rounding=Rounding.ONNX,
        ),
    )


def _sum(unit: Unit, sight: Sight, first: FeatureMap, second: FeatureMap, zero_operand: int) -> Add:
    a, b, rule = quantization(unit.read[0]), quantization(unit.read[1]), result_quantization(unit)
    twice_largest = 2 * max(a.scale, b.scale)
    total = twice_largest / ((1 << ADD_LEFT_SHIFT) * rule.scale)
    (m1, m2, m3), (s1, s2, s3) = multipliers(np.array([a.scale / twice_largest, b.scale / twice_largest, total]))
    if max(s1, s2, s3) > 0:
        raise MisfitError("its result has a scale so fine that the sum would have to be enlarged")
    low, high = clamp(unit)
    return Add(
        name=unit.name,
        operator=unit.node.op,
        input=first.name,
        output=sight.output.name,
        operand=second.name,
        multiplier_input=int(m1),
        shift_input=int(s1),
        zero_input=a.zero_point,
        multiplier_operand=int(m2),
        shift_operand=int(s2),
        zero_operand=zero_operand,
        multiplier=int(m3),
        shift=int(s3),
        zero_point=rule.zero_point,
        minimum=low,
        maximum=high,
        rounding=Rounding.ONNX,
    )


def scale_channels(unit: Unit, sight: Sight) -> Built:
    """Mul by a constant, Div by one: of each channel, or of all; a depthwise convolution with 1 and -1."""
    position = next((p for p, source in enumerate(unit.sources) if source is None), None)
    constant = None if position is None else unit.constant(position)
    if constant is None or (unit.node.op == "Div" and position == 0):
        raise MisfitError("it has no constant factor")
    channels = sight.output.channels
    shape = (1,) * (len(unit.result_shape) - constant.ndim) + constant.shape
    along = [axis for axis, size in enumerate(shape) if size > 1]
    if any(axis != 1 for axis in along) or unit.shape(1 - (position or 0)) != unit.result_shape:
        raise MisfitError("its constant has a value for each pixel; the accelerator needs one, or one for each channel")
    factors = constant.reshape(-1).astype(np.float32)
    with np.errstate(divide="ignore"):
        factors = 1 / factors if unit.node.op == "Div" else factors
    if not np.isfinite(factors).all():
        raise MisfitError("it divides by zero")
    signs = np.broadcast_to(np.where(factors < 0, -1, 1).astype(np.int8), channels)
    layer = weighted(
        unit,
        sight,
        np.ascontiguousarray(signs.reshape(1, 1, 1, channels)),
        scales=np.abs(factors),
        bias_position=len(unit.node.inputs),
        depthwise=channels > 1,
    )
    return Built(layers=(layer,))
