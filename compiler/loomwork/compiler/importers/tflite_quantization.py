# SPDX-License-Identifier: Apache-2.0
"""From TFLite's scales to integers, in tflite-micro's own order of operations and floating-point widths.

Older versions multiply the scales of FULLY_CONNECTED in float32; the one we compare with does not.

Sources: tensorflow/lite/kernels/kernel_util.cc (PopulateConvolutionQuantizationParams,
GetQuantizedConvolutionMultipler, CalculateActivationRangeQuantized); tensorflow/lite/micro/kernels: add_common.cc,
activations_common.cc, quantize_common.cc; tensorflow/lite/kernels/internal/reference/reduce.h (QuantizedMeanOrSum).
"""

import math
from collections.abc import Iterable

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType
from numpy.typing import NDArray

from loomwork.arch.numerics import ADD_LEFT_SHIFT, INT8_MAX, INT8_MIN, INT32_MAX, INT32_MIN, quantize_multiplier
from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.tflite_model import Operator, Tensor

_RANGES: dict[int, tuple[float, float]] = {
    ActivationFunctionType.NONE: (-math.inf, math.inf),
    ActivationFunctionType.RELU: (0.0, math.inf),
    ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
    ActivationFunctionType.RELU6: (0.0, 6.0),
}
"""Real values that a fused activation lets through. TANH and SIGN_BIT are not among them: no kernel computes them."""

Int64Array = NDArray[np.int64]


def scale(tensor: Tensor) -> float:
    """The one scale of a tensor; float32, exactly held by a Python float."""
    return float(tensor.scale[0])


def zero_point(tensor: Tensor) -> int:
    """The one zero point of a tensor."""
    return int(tensor.zero_point[0])


def quantized(value: float, tensor: Tensor, operator: Operator) -> int:
    """A real value as `tensor` stores it, not clamped: float32 division, half away from zero."""
    quotient = float(np.float32(value) / tensor.scale[0])
    whole = int(math.copysign(math.floor(abs(quotient) + 0.5), quotient)) if math.isfinite(quotient) else INT32_MAX + 1
    if not INT32_MIN <= whole <= INT32_MAX:
        raise CompileError(f"{operator}: {value} is beyond int32 at the scale {scale(tensor)} of {tensor.name!r}")
    return zero_point(tensor) + whole


def activation_range(operator: Operator, activation: int) -> tuple[int, int]:
    """Clamp of the operator's output for a fused activation. Raises CompileError for one that no kernel computes."""
    if activation not in _RANGES:
        raise CompileError(f"{operator} has the fused activation {activation} of the schema, which no kernel executes")
    output = operator.outputs[0]
    low, high = _RANGES[activation]
    return (
        INT8_MIN if math.isinf(low) else max(INT8_MIN, quantized(low, output, operator)),
        INT8_MAX if math.isinf(high) else min(INT8_MAX, quantized(high, output, operator)),
    )


def multipliers(factors: Iterable[float]) -> tuple[Int64Array, Int64Array]:
    """Q31 multipliers and shifts of rescaling factors."""
    pairs = [quantize_multiplier(factor) for factor in factors]
    return np.array([m for m, _ in pairs], np.int64), np.array([s for _, s in pairs], np.int64)


def weight_factors(source: Tensor, weights: Tensor, output: Tensor) -> list[float]:
    """Rescaling factors of an operator with weights: one, or one per output channel. All in double."""
    return [scale(source) * float(weight) / scale(output) for weight in weights.scale]


def mean_multiplier(source: Tensor, output: Tensor, count: int) -> tuple[int, int]:
    """Multiplier and shift that rescale a sum of `count` values and divide it by `count`, in one rounding step."""
    multiplier, shift = quantize_multiplier(scale(source) / scale(output))
    headroom = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << headroom) // count, shift - headroom


def add_multipliers(a: Tensor, b: Tensor, output: Tensor) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """(multiplier, shift) of both operands and of the sum."""
    twice_largest = 2 * max(scale(a), scale(b))
    return (
        quantize_multiplier(scale(a) / twice_largest),
        quantize_multiplier(scale(b) / twice_largest),
        quantize_multiplier(add_output_factor(a, b, output)),
    )


def add_output_factor(a: Tensor, b: Tensor, output: Tensor) -> float:
    """By what the sum is rescaled at last; below 1, or tflite-micro aborts."""
    return 2 * max(scale(a), scale(b)) / ((1 << ADD_LEFT_SHIFT) * scale(output))
