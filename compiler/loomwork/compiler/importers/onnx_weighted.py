# SPDX-License-Identifier: Apache-2.0
"""Convolutions made of quantized ONNX operators: those with weights, and sums and products with constants.

Each function takes a unit and what it sees, and returns what becomes of it. It raises MisfitError for what the
accelerator cannot do.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import INT32_MAX
from loomwork.compiler.graph import AveragePool, Convolution
from loomwork.compiler.importers.grouped import dense_kernel
from loomwork.compiler.importers.onnx_arithmetic import clamp, quantization, requantize
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_sight import Built, Pair, Sight, Window, window
from loomwork.compiler.importers.onnx_units import StoredWeights, Unit
from loomwork.compiler.importers.onnx_wide import fits, shared_out
from loomwork.compiler.limits import MAX_DENSE_BYTES, MAX_DILATION, MAX_KERNEL_HEIGHT, MAX_STRIDE, MAX_TAPS
from loomwork.compiler.tiling import pooling_counts


def weights(unit: Unit, position: int, *, wide: bool = False) -> StoredWeights:
    """Quantized constant weights. wide: also those that do not fit int8 once their zero point is taken off."""
    found = unit.stored(position)
    if found is None:
        kind = "computed" if unit.constant(position) is None else "real numbers"
        raise MisfitError(f"its weights are {kind}; the accelerator needs constants quantized to 8 bits")
    if not wide and not fits(found.stored):
        raise MisfitError("its weights without their zero point do not fit int8")
    return found


def channel_scales(found: StoredWeights, axis: int) -> NDArray[np.float32]:
    """Scales of the output channels, which lie along `axis`."""
    if found.scale.size > 1 and found.axis != axis % found.stored.ndim:
        raise MisfitError("its weights have a scale for each of another dimension than the output channels")
    return found.scale


def bias(
    unit: Unit, position: int, scales: NDArray[np.floating], channels: int, factor: float = 1.0
) -> NDArray[np.int64]:
    """Bias of each output channel, times `factor`, in units of `scales` (input scale x weight scale), rounded half to
    even.
    """
    if not unit.has(position):
        return np.zeros(channels, np.int64)
    real = unit.constant(position)
    if real is None:
        raise MisfitError("its bias is computed")
    if real.size not in (1, channels):
        raise MisfitError(f"its bias has shape {'x'.join(map(str, real.shape))}, not one value per output channel")
    steps = np.asarray(scales, np.float64)
    found = unit.stored(position)
    if factor == 1 and found is not None and np.allclose(found.scale.astype(np.float64), steps, rtol=1e-5, atol=0):
        values = found.stored.astype(np.float64)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):  # refused below
            values = np.rint(real.reshape(-1).astype(np.float64) * factor / steps)
    if not (np.abs(values) <= INT32_MAX).all():
        raise MisfitError("its bias does not fit 32 bits in units of its scales")
    return np.broadcast_to(values.reshape(-1), channels).astype(np.int64)


def convolution(unit: Unit, sight: Sight) -> Built:
    """Conv, with one or two spatial dimensions; groups are filled up with zeros to a dense kernel."""
    groups, depth = int(unit.node.attributes.get("group", 1)), sight.inputs[0].channels
    found = weights(unit, 1, wide=groups == 1)
    moves = window(unit, found.stored.shape[2:])
    shared = shared_out(unit, sight, image_kernel(found.stored))
    kernel, depthwise = shared.kernel, groups == depth > 1
    layer = weighted(
        unit,
        shared.sight,
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
    return Built(layers=(*shared.layers, layer), maps=shared.maps)


def image_kernel(stored: NDArray[np.int64]) -> NDArray[np.int64]:
    """`[out, in, (height,) width]` as `[height, width, in, out]`."""
    out, depth, *size = stored.shape
    height, width = [1, *size][-2:]
    return stored.reshape(out, depth, height, width).transpose(2, 3, 1, 0)


def weighted(
    unit: Unit,
    sight: Sight,
    kernel: NDArray[np.int8],
    *,
    scales: NDArray[np.floating],
    bias_position: int = 2,
    bias_factor: float = 1.0,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    pad: Pair = (0, 0),
    depthwise: bool = False,
    repeat: int = 1,
) -> Convolution:
    """A convolution with the unit's bias. kernel: output channels last. scales: of the weights.

    bias_factor: what the bias is multiplied with. repeat: how many times scales and bias stand for the kernel's output
    channels, one set behind the other.
    """
    source = quantization(unit.read[0])
    channels = kernel.shape[3]
    factors = np.float32(source.scale) * np.asarray(scales, np.float32)
    values = np.tile(bias(unit, bias_position, factors, channels // repeat, bias_factor), repeat)
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
    found = weights(unit, 1, wide=True)
    if found.stored.ndim != 2:
        raise MisfitError(f"its matrix has {found.stored.ndim} dimensions; the accelerator needs 2")
    matrix, axis = found.stored, 1
    if attributes.get("transB"):
        matrix, axis = matrix.T, 0
    alpha, beta = (float(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    if not alpha > 0:
        raise MisfitError(f"alpha is {alpha:g}; the accelerator needs a positive one")
    source, depth = sight.inputs[0], matrix.shape[0]
    if unit.shape(0)[-1] != depth:
        raise MisfitError(f"its matrix has {depth} rows, what it multiplies has {unit.shape(0)[-1]} columns")
    if sight.places[0].size == depth:
        # The kernel has the image's shape: where a number lies says which weight is for it.
        kernel = np.empty_like(matrix)
        kernel[sight.places[0].reshape(-1)] = matrix
        shape = (source.height, source.width, source.channels)
    else:
        kernel, shape = matrix, (1, 1, depth)
    shared = shared_out(unit, sight, kernel.reshape(*shape, matrix.shape[1]))
    scales = channel_scales(found, axis) * np.float32(alpha)
    layer = weighted(unit, shared.sight, shared.kernel, scales=scales, bias_factor=beta)
    return Built(layers=(*shared.layers, layer), maps=shared.maps)


def average_pool(unit: Unit, sight: Sight) -> Built:
    """AveragePool as a depthwise convolution with ones, whose sum is divided and rescaled in one rounding; where
    windows count fewer pixels at the border, as sums that are divided each by its own number.
    """
    moves = window(unit, tuple(unit.node.attributes["kernel_shape"]))
    if moves.dilation != (1, 1):
        raise MisfitError("its window is dilated")
    source, result = sight.inputs[0], (sight.output.height, sight.output.width)
    reach = [(count - 1) * step + extent for count, step, extent in zip(result, moves.stride, moves.size, strict=True)]
    sizes = [size + before for size, before in zip((source.height, source.width), moves.pad, strict=True)]
    padded = [size + after for size, after in zip(sizes, moves.after, strict=True)]
    if unit.node.attributes.get("count_include_pad"):
        if any(last > size for last, size in zip(reach, padded, strict=True)):
            raise MisfitError(
                "its last windows leave the padding that counts (ceil_mode); the accelerator needs equal windows"
            )
    elif any(moves.pad) or any(last > size for last, size in zip(reach, sizes, strict=True)):
        return Built(layers=(_clipped_average(unit, sight, moves),))
    channels, count = sight.output.channels, moves.size[0] * moves.size[1]
    kernel = np.ones((*moves.size, 1, channels), np.int8)
    scales = np.asarray([1 / count], np.float32)
    layer = weighted(
        unit, sight, kernel, scales=scales, bias_position=1, stride=moves.stride, pad=moves.pad, depthwise=channels > 1
    )
    return Built(layers=(layer,))


def _clipped_average(unit: Unit, sight: Sight, moves: Window) -> AveragePool:
    """AveragePool that counts the pixels inside the image."""
    source, output, before = sight.inputs[0], sight.output, quantization(unit.read[0])
    sizes = (output.height, output.width), (source.height, source.width)
    try:
        counts = pooling_counts(*sizes, moves.size, moves.stride, moves.pad)
    except ValueError as error:
        raise MisfitError(str(error)) from None
    rules = {
        count: requantize(
            unit, np.asarray([before.scale / count], np.float64), np.array([-before.zero_point * count], np.int64)
        )
        for count in sorted(counts)
    }
    low, high = clamp(unit)
    return AveragePool(
        name=unit.name,
        operator=unit.node.op,
        input=source.name,
        output=output.name,
        window=moves.size,
        stride=moves.stride,
        pad=moves.pad,
        minimum=low,
        maximum=high,
        rules=rules,
    )


def scale_channels(unit: Unit, sight: Sight) -> Built:
    """Mul by a constant, Div by one: of each channel, or of all; a depthwise convolution with 1 and -1."""
    position = next((p for p, source in enumerate(unit.sources) if source is None), None)
    constant = None if position is None else unit.constant(position)
    if constant is None or (unit.node.op == "Div" and position == 0):
        raise MisfitError("it has no constant factor")
    factors = channel_factors(unit, constant, 1 - (position or 0))
    with np.errstate(divide="ignore"):
        factors = np.float32(1) / factors if unit.node.op == "Div" else factors
    if not np.isfinite(factors).all():
        raise MisfitError("it divides by zero")
    return Built(layers=(signed_channels(unit, sight, factors),))


def channel_factors(unit: Unit, constant: NDArray[np.generic], computed: int) -> NDArray[np.float32]:
    """The factor of each channel, or of all, from an input that is stretched to the `computed` one."""
    shape = (1,) * (len(unit.result_shape) - constant.ndim) + constant.shape
    along = [axis for axis, size in enumerate(shape) if size > 1]
    if any(axis != 1 for axis in along) or unit.shape(computed) != unit.result_shape:
        raise MisfitError("its constant has a value for each pixel; the accelerator needs one, or one for each channel")
    return constant.reshape(-1).astype(np.float32)


def signed_channels(unit: Unit, sight: Sight, factors: NDArray[np.floating]) -> Convolution:
    """Each channel times its factor, or all times one: a depthwise convolution with 1 and -1."""
    channels = sight.output.channels
    signs = np.broadcast_to(np.where(factors < 0, -1, 1).astype(np.int8), channels)
    return weighted(
        unit,
        sight,
        np.ascontiguousarray(signs.reshape(1, 1, 1, channels)),
        scales=np.abs(factors),
        bias_position=len(unit.node.inputs),
        depthwise=channels > 1,
    )
