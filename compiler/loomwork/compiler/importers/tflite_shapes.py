# SPDX-License-Identifier: Apache-2.0
"""Shapes and options of the operators that we know: what a sound file always fulfils.

tflite-micro believes what a file says and computes nonsense or crashes on what does not fit together, so that this is
checked for operators that stay on the host, too. Every check raises CompileError.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.tflite_model import Operator, Tensor

Options = TypeVar("Options")

FREE = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
"""Operators that leave the bytes of a tensor as they are."""


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image, pairs as (y, x). pad: rows above and columns to the left of the image."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]


def fail(operator: Operator, problem: str) -> CompileError:
    """The error for an operator that does not hold together."""
    return CompileError(f"{operator} is damaged: {problem}")


def options(operator: Operator, kind: type[Options]) -> Options:
    """The operator's options. Raises CompileError when it has those of another kind, or none."""
    found = operator.table.builtinOptions
    if not isinstance(found, kind):
        raise fail(operator, f"it needs {kind.__name__.removesuffix('T')}, but has {type(found).__name__}")
    return found


def operand(operator: Operator, index: int) -> Tensor:
    """An input that must be there."""
    tensor = operator.inputs[index] if index < len(operator.inputs) else None
    if tensor is None:
        raise fail(operator, f"input {index} is missing")
    return tensor


def bias(operator: Operator) -> Tensor | None:
    """The bias of an operator with weights, None when it has none."""
    return operator.inputs[2] if len(operator.inputs) > 2 else None


def window(operator: Operator) -> Window:
    """Kernel, stride, dilation and padding of a convolution or pooling; fits the output's shape."""
    source, output = operand(operator, 0), operator.outputs[0]
    if operator.code in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        pool = options(operator, schema.Pool2DOptionsT)
        size, dilation = (pool.filterHeight, pool.filterWidth), (1, 1)
        stride, padding = (pool.strideH, pool.strideW), pool.padding
    else:
        kind = schema.Conv2DOptionsT if operator.code == "CONV_2D" else schema.DepthwiseConv2DOptionsT
        conv = options(operator, kind)
        weights = operand(operator, 1)
        size = (weights.shape[1], weights.shape[2])
        dilation = (conv.dilationHFactor, conv.dilationWFactor)
        stride, padding = (conv.strideH, conv.strideW), conv.padding
    if min(*size, *stride, *dilation) < 1:
        raise fail(operator, f"kernel {size}, stride {stride} and dilation {dilation} must be positive")
    pads: list[int] = []
    for axis in range(2):
        length, produced = source.shape[1 + axis], output.shape[1 + axis]
        extent = (size[axis] - 1) * dilation[axis] + 1
        if padding == schema.Padding.SAME:
            expected = -(-length // stride[axis])
            pads.append(max((expected - 1) * stride[axis] + extent - length, 0) // 2)
        elif padding == schema.Padding.VALID:
            expected = (length - extent) // stride[axis] + 1
            pads.append(0)
        else:
            raise fail(operator, f"padding {padding} is neither SAME nor VALID")
        if produced != expected:
            raise fail(operator, f"its output has shape {output.shape}, axis {axis + 1} should be {expected}")
    return Window(size, stride, dilation, (pads[0], pads[1]))


def check_shapes(operator: Operator) -> None:
    """Raise CompileError for an operator of a kind we know whose tensors do not fit together."""
    check = _CHECKS.get(operator.code)
    if check is None:
        return
    if len(operator.outputs) != 1:
        raise fail(operator, f"it has {len(operator.outputs)} outputs, not one")
    check(operator)
    if operator.code not in FREE:
        for tensor in (*operator.inputs[:2], *operator.outputs):
            if tensor is not None and tensor.dtype == "int8":
                _check_quantization(operator, tensor)


def _check_quantization(operator: Operator, tensor: Tensor) -> None:
    if len(tensor.scale) == 0:
        raise fail(operator, f"int8 tensor {tensor.name!r} has no scale; quantize the whole model")
    if not (np.isfinite(tensor.scale).all() and (tensor.scale > 0).all()):
        raise fail(operator, f"tensor {tensor.name!r} has a scale that is not a positive number")
    if tensor.zero_point.min() < INT8_MIN or tensor.zero_point.max() > INT8_MAX:
        raise fail(operator, f"tensor {tensor.name!r} has a zero point outside int8")
    if len(tensor.scale) > 1 and tensor.data is None:
        raise fail(operator, f"tensor {tensor.name!r} has a scale per channel, which only weights can have")


def _expect_rank(operator: Operator, rank: int, *tensors: Tensor) -> None:
    for tensor in tensors:
        if len(tensor.shape) != rank:
            raise fail(operator, f"tensor {tensor.name!r} has shape {tensor.shape}, not {rank} dimensions")


def _check_bias(operator: Operator, channels: int) -> None:
    tensor = bias(operator)
    if tensor is not None and tensor.elements != channels:
        raise fail(operator, f"its bias has {tensor.elements} values for {channels} output channels")


def _check_convolution(operator: Operator) -> None:
    source, weights, output = operand(operator, 0), operand(operator, 1), operator.outputs[0]
    _expect_rank(operator, 4, source, weights, output)
    depth, channels = source.shape[3], output.shape[3]
    if operator.code == "CONV_2D":
        group = weights.shape[3]
        if group == 0 or depth % group or channels != weights.shape[0] or channels % (depth // group):
            raise fail(operator, f"weights {weights.shape} do not fit {depth} input and {channels} output channels")
        axis = 0
    else:
        multiplier = options(operator, schema.DepthwiseConv2DOptionsT).depthMultiplier
        if weights.shape[0] != 1 or weights.shape[3] != channels or depth * multiplier != channels:
            raise fail(
                operator,
                f"weights {weights.shape} and depth multiplier {multiplier} do not fit {depth} input and {channels} "
                f"output channels",
            )
        axis = 3
    if len(weights.scale) > 1 and (len(weights.scale) != channels or weights.axis != axis):
        raise fail(operator, f"its weights have {len(weights.scale)} scales along axis {weights.axis}")
    if source.shape[0] != output.shape[0]:
        raise fail(operator, f"its batch changes from {source.shape[0]} to {output.shape[0]}")
    _check_bias(operator, channels)
    window(operator)


def _check_fully_connected(operator: Operator) -> None:
    source, weights, output = operand(operator, 0), operand(operator, 1), operator.outputs[0]
    _expect_rank(operator, 2, weights)
    units, depth = weights.shape
    if depth == 0 or source.elements % depth or output.elements != source.elements // depth * units:
        raise fail(operator, f"weights {weights.shape} do not lead from shape {source.shape} to {output.shape}")
    if options(operator, schema.FullyConnectedOptionsT).weightsFormat:
        raise fail(operator, "its weights are shuffled, which no current kernel reads")
    if len(weights.scale) > 1 and (len(weights.scale) != units or weights.axis != 0):
        raise fail(operator, f"its weights have {len(weights.scale)} scales along axis {weights.axis}")
    _check_bias(operator, units)


def _check_pool(operator: Operator) -> None:
    source, output = operand(operator, 0), operator.outputs[0]
    _expect_rank(operator, 4, source, output)
    if source.shape[0] != output.shape[0] or source.shape[3] != output.shape[3]:
        raise fail(operator, f"pooling cannot lead from shape {source.shape} to {output.shape}")
    window(operator)


def _check_binary(operator: Operator) -> None:
    a, b, output = operand(operator, 0), operand(operator, 1), operator.outputs[0]
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        shape = None
    if shape != output.shape:
        raise fail(operator, f"shapes {a.shape} and {b.shape} do not give {output.shape}")


def _check_mean(operator: Operator) -> None:
    source, output = operand(operator, 0), operator.outputs[0]
    operand(operator, 1)
    axes = reduced_axes(operator)
    kept = [n for axis, n in enumerate(source.shape) if axes is None or axis not in axes]
    if axes is not None and math.prod(kept) != output.elements:
        raise fail(operator, f"axes {sorted(axes)} of shape {source.shape} do not give {output.shape}")


def multiplications(operator: Operator) -> int:
    """Multiply-accumulates of an operator; 0 for one that does not multiply with weights."""
    result = operator.outputs[0].elements
    match operator.code:
        case "CONV_2D" | "FULLY_CONNECTED":
            return result * math.prod(operand(operator, 1).shape[1:])
        case "DEPTHWISE_CONV_2D":
            return result * math.prod(operand(operator, 1).shape[1:3])
        case _:
            return 0


def reduced_axes(operator: Operator) -> set[int] | None:
    """Axes over which MEAN goes, None when they are computed at run time."""
    rank, values = len(operand(operator, 0).shape), operand(operator, 1).data
    if values is None:
        return None
    axes = [int(axis) for axis in np.atleast_1d(values).ravel()]
    if any(not -rank <= axis < rank for axis in axes):
        raise fail(operator, f"axes {axes} do not exist in {rank} dimensions")
    return {axis % rank for axis in axes}


def paddings(operator: Operator) -> list[tuple[int, int]] | None:
    """(before, after) per dimension of a PAD, None when they are computed at run time."""
    values = operand(operator, 1).data
    if values is None:
        return None
    return [(int(before), int(after)) for before, after in values.reshape(-1, 2)]


def _check_pad(operator: Operator) -> None:
    source, output = operand(operator, 0), operator.outputs[0]
    if operand(operator, 1).elements != 2 * len(source.shape):
        raise fail(operator, f"its paddings have shape {operand(operator, 1).shape} for {len(source.shape)} dimensions")
    pads = paddings(operator)
    if pads is None:
        return
    shape = tuple(before + n + after for n, (before, after) in zip(source.shape, pads, strict=True))
    if shape != output.shape or min(min(pair) for pair in pads) < 0:
        raise fail(operator, f"paddings {pads} of shape {source.shape} do not give {output.shape}")


def _check_same_shape(operator: Operator) -> None:
    source, output = operand(operator, 0), operator.outputs[0]
    if source.shape != output.shape:
        raise fail(operator, f"it cannot lead from shape {source.shape} to {output.shape}")


def _check_reshape(operator: Operator) -> None:
    source, output = operand(operator, 0), operator.outputs[0]
    if source.elements != output.elements or source.dtype != output.dtype:
        raise fail(operator, f"{source.dtype} {source.shape} cannot become {output.dtype} {output.shape}")


_CHECKS: dict[str, Callable[[Operator], None]] = {
    "CONV_2D": _check_convolution,
    "DEPTHWISE_CONV_2D": _check_convolution,
    "FULLY_CONNECTED": _check_fully_connected,
    "MAX_POOL_2D": _check_pool,
    "AVERAGE_POOL_2D": _check_pool,
    "MEAN": _check_mean,
    "PAD": _check_pad,
    "PADV2": _check_pad,
    **dict.fromkeys(("ADD", "SUB", "MUL"), _check_binary),
    **dict.fromkeys(FREE, _check_reshape),
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "SOFTMAX", "QUANTIZE", "DEQUANTIZE"), _check_same_shape),
    **dict.fromkeys(("LOGISTIC", "TANH", "LEAKY_RELU", "HARD_SWISH", "ELU"), _check_same_shape),
}
