# SPDX-License-Identifier: Apache-2.0
"""Conditions that a TFLite operator must meet to run on the accelerator.

A check may take for granted that the operator is sound (`tflite_shapes`) and meets the conditions before it in its
list.
"""

import math

import numpy as np

from loomwork.arch.numerics import INT32_MAX, INT32_MIN, MAX_LEFT_SHIFT, quantize_multiplier
from loomwork.compiler.constraints import Constraint, constraint
from loomwork.compiler.importers.tflite_layers import folded_bias, image, kernel
from loomwork.compiler.importers.tflite_model import Operator, Tensor
from loomwork.compiler.importers.tflite_quantization import (
    add_output_factor,
    mean_multiplier,
    scale,
    weight_factors,
    zero_point,
)
from loomwork.compiler.importers.tflite_shapes import bias, operand, paddings, reduced_axes, window
from loomwork.compiler.importers.tflite_table import RefusedError, tabulate
from loomwork.compiler.limits import (
    MAX_DENSE_BYTES,
    MAX_DILATION,
    MAX_HEIGHT,
    MAX_KERNEL_HEIGHT,
    MAX_PIXEL_BYTES,
    MAX_POOL_STRIDE,
    MAX_POOL_WINDOW,
    MAX_ROW_BYTES,
    MAX_STEP_BYTES,
    MAX_STRIDE,
    MAX_TAPS,
)


def activations(operator: Operator) -> list[Tensor]:
    """Tensors that are computed: the inputs without weights, and the output."""
    tensors = operator.inputs[:2] if operator.code == "ADD" else operator.inputs[:1]
    return [tensor for tensor in (*tensors, *operator.outputs) if tensor is not None]


@constraint("int8 inputs and outputs")
def int8_activations(operator: Operator) -> str | None:
    """Float, int16 and legacy uint8 operators stay on the host."""
    for tensor in activations(operator):
        if tensor.dtype != "int8":
            return f"tensor {tensor.name!r} is {tensor.dtype}"
    return None


@constraint("inputs that are computed, not constant")
def computed_inputs(operator: Operator) -> str | None:
    """Constants reach the accelerator as weights only."""
    for tensor in activations(operator)[:-1]:
        if tensor.data is not None:
            return f"tensor {tensor.name!r} is constant"
    return None


@constraint("one image at a time, of at most three dimensions: batch 1")
def one_image(operator: Operator) -> str | None:
    """A feature map has a height, a width and channels."""
    for tensor in activations(operator):
        if len(tensor.shape) > 4 or (len(tensor.shape) == 4 and tensor.shape[0] != 1):
            return f"tensor {tensor.name!r} has shape {tensor.shape}"
    return None


@constraint(f"images of at most {MAX_HEIGHT} rows of at most {MAX_ROW_BYTES} bytes (width x channels)")
def image_fits(operator: Operator) -> str | None:
    """Bounds of what commands can transfer."""
    for tensor in activations(operator):
        height, width, channels = image(tensor)
        if height > MAX_HEIGHT or width * channels > MAX_ROW_BYTES:
            return f"tensor {tensor.name!r} has {height} rows of {width * channels} bytes"
    return None


@constraint("constant int8 weights and constant int32 bias")
def constant_weights(operator: Operator) -> str | None:
    """Weights are laid out when the network is compiled."""
    weights, values = operand(operator, 1), bias(operator)
    if weights.dtype != "int8" or weights.data is None:
        return f"the weights {weights.name!r} are {'computed' if weights.data is None else weights.dtype}"
    if values is not None and (values.dtype != "int32" or values.data is None):
        return f"the bias {values.name!r} is {'computed' if values.data is None else values.dtype}"
    return None


@constraint("weights with zero point 0")
def symmetric_weights(operator: Operator) -> str | None:
    """TFLite's specification of int8 weights."""
    weights = operand(operator, 1)
    return f"the weights {weights.name!r} have another one" if weights.zero_point.any() else None


@constraint("a bias that fits int32 together with what the input's zero point adds to it")
def bias_fits(operator: Operator) -> str | None:
    """The zero point is folded into the bias when the network is compiled."""
    largest = int(max(folded_bias(operator, kernel(operator)), key=abs))
    return None if INT32_MIN <= largest <= INT32_MAX else f"it comes to {largest}"


@constraint(f"rescaling by less than {1 << MAX_LEFT_SHIFT} (input scale x weight scale / output scale)")
def rescaling_fits(operator: Operator) -> str | None:
    """What the requantizer can shift to the left."""
    return _too_large(_factors(operator))


def _factors(operator: Operator) -> list[float]:
    source, output = operand(operator, 0), operator.outputs[0]
    if operator.code in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return weight_factors(source, operand(operator, 1), output)
    return [scale(source) / scale(output)]


def _too_large(factors: list[float]) -> str | None:
    if quantize_multiplier(max(factors))[1] > MAX_LEFT_SHIFT:
        return f"it rescales by {max(factors):g}"
    return None


same_rescaling: Constraint[Operator] = Constraint(
    f"rescaling by less than {1 << MAX_LEFT_SHIFT} (input scale / output scale)", rescaling_fits.check
)


@constraint("scales and zero points that tflite-micro executes")
def tabulated(operator: Operator) -> str | None:
    """It computes the table."""
    try:
        tabulate(operator)
    except RefusedError as error:
        return f"tflite-micro refuses its quantization ({error})"
    return None


@constraint(f"strides of at most {MAX_STRIDE}, and of at most {MAX_STEP_BYTES} bytes along a row")
def convolution_stride(operator: Operator) -> str | None:
    """A stride does not matter where there is one output only."""
    stride, source, output = window(operator).stride, operand(operator, 0), operator.outputs[0]
    if output.shape[1] > 1 and stride[0] > MAX_STRIDE:
        return f"its vertical stride is {stride[0]}"
    if output.shape[2] > 1 and stride[1] * source.shape[3] > MAX_STEP_BYTES:
        return f"its horizontal stride is {stride[1]} pixels of {source.shape[3]} bytes"
    return None


@constraint(
    f"kernels of at most {MAX_KERNEL_HEIGHT} rows, {MAX_TAPS} columns when depthwise or dilated, and dilation of at "
    f"most {MAX_DILATION}"
)
def convolution_kernel(operator: Operator) -> str | None:
    """Bounds of the commands' operands."""
    moves = window(operator)
    tapped = operator.code == "DEPTHWISE_CONV_2D" or moves.dilation[1] > 1
    if moves.size[0] > MAX_KERNEL_HEIGHT or (tapped and moves.size[1] > MAX_TAPS) or max(moves.dilation) > MAX_DILATION:
        return f"its kernel is {moves.size[0]}x{moves.size[1]} with dilation {moves.dilation[0]}x{moves.dilation[1]}"
    return None


@constraint(f"groups whose dense kernel takes at most {MAX_DENSE_BYTES >> 20} MiB (a group per channel is depthwise)")
def groups_fit(operator: Operator) -> str | None:
    """A grouped convolution is executed as a dense one, with zeros between the groups."""
    weights, depth = operand(operator, 1), operand(operator, 0).shape[3]
    dense = math.prod(weights.shape[:3]) * depth
    if 1 < weights.shape[3] < depth and dense > MAX_DENSE_BYTES:
        return f"its {depth // weights.shape[3]} groups would take {dense} bytes"
    return None


@constraint("input rows of as many values as the weights have columns, or a single row")
def fully_connected_rows(operator: Operator) -> str | None:
    """Several rows are the pixels of a 1x1 convolution."""
    source, depth = operand(operator, 0), operand(operator, 1).shape[1]
    if source.elements != depth and image(source)[2] != depth:
        return f"the input {source.shape} is cut into rows of {depth} values"
    return None


@constraint("operands of the same shape")
def same_shapes(operator: Operator) -> str | None:
    """Broadcasting stays on the host."""
    a, b = operand(operator, 0), operand(operator, 1)
    return f"it adds shapes {a.shape} and {b.shape}" if a.shape != b.shape else None


@constraint("an output scale above the larger input scale / 2**19, as tflite-micro does")
def add_rescaling(operator: Operator) -> str | None:
    """tflite-micro's arithmetic has no room for more."""
    factor = add_output_factor(operand(operator, 0), operand(operator, 1), operator.outputs[0])
    # Rounded to Q31, a factor just below 1 becomes 1.
    return f"the sum is rescaled by {factor:g}" if quantize_multiplier(factor)[1] > 0 else None


@constraint("the same scale and zero point for input and output, as TFLite specifies")
def same_quantization(operator: Operator) -> str | None:
    """Pooling and padding work on the stored values."""
    source, output = operand(operator, 0), operator.outputs[0]
    if scale(source) != scale(output) or zero_point(source) != zero_point(output):
        return (
            f"the input has scale {scale(source):g} and zero point {zero_point(source)}, the output "
            f"{scale(output):g} and {zero_point(output)}"
        )
    return None


@constraint(
    f"windows of at most {MAX_POOL_WINDOW}x{MAX_POOL_WINDOW} pixels of the image, strides of at most "
    f"{MAX_POOL_STRIDE}, and at most {MAX_PIXEL_BYTES} channels"
)
def pool_window(operator: Operator) -> str | None:
    """Bounds of the commands' operands."""
    moves, source, output = window(operator), operand(operator, 0), operator.outputs[0]
    for axis, name in ((0, "height"), (1, "width")):
        seen = min(moves.size[axis], source.shape[1 + axis])
        if seen > MAX_POOL_WINDOW:
            return f"the {name} of its window is {seen}"
        if output.shape[1 + axis] > 1 and moves.stride[axis] > MAX_POOL_STRIDE:
            return f"its stride along the {name} is {moves.stride[axis]}"
    return f"it has {source.shape[3]} channels" if source.shape[3] > MAX_PIXEL_BYTES else None


@constraint(f"a mean over height and width of the image, each at most {MAX_POOL_WINDOW}")
def global_mean(operator: Operator) -> str | None:
    """An axis of length 1 may be left out, or joined."""
    source, axes = operand(operator, 0), reduced_axes(operator)
    if axes is None:
        return "its axes are computed"
    sizes = {axis: size for axis, size in enumerate(source.shape) if size > 1}
    channels = len(source.shape) - 1
    if len(source.shape) < 2 or channels in axes or any(axis not in axes for axis in sizes if axis != channels):
        return f"it goes over axes {sorted(axes)} of shape {source.shape}"
    height, width, _ = image(source)
    return f"the image is {height}x{width}" if max(height, width) > MAX_POOL_WINDOW else None


@constraint(f"rescaling by less than {1 << MAX_LEFT_SHIFT} (input scale / output scale / pixels)")
def mean_rescaling(operator: Operator) -> str | None:
    """What the requantizer can shift to the left."""
    source, output = operand(operator, 0), operator.outputs[0]
    height, width, _ = image(source)
    _, shift = mean_multiplier(source, output, height * width)
    return f"it rescales by {scale(source) / scale(output):g}" if shift > MAX_LEFT_SHIFT else None


@constraint("constant padding of height and width only")
def image_padding(operator: Operator) -> str | None:
    """Channels and batch stay as they are."""
    pads, source = paddings(operator), operand(operator, 0)
    if pads is None or len(source.shape) != 4:
        return f"it pads shape {source.shape} by {pads or 'computed amounts'}"
    return f"it pads by {pads}" if any(pads[0]) or any(pads[3]) else None


@constraint("the zero point as the padding value")
def zero_padding(operator: Operator) -> str | None:
    """A convolution reads the zero point outside the image."""
    values = operator.inputs[2] if len(operator.inputs) > 2 else None
    if values is None:
        return None
    if values.data is None or values.elements != 1:
        return f"the padding value {values.name!r} is {'computed' if values.data is None else 'not one number'}"
    value = int(np.ravel(values.data)[0])
    return f"it pads with {value}" if value != zero_point(operand(operator, 0)) else None
