# SPDX-License-Identifier: Apache-2.0
"""From the scales of an ONNX model to integers: what ONNX Runtime's quantized kernels come to.

They multiply sums with a float32 factor and round once, half to even. Sources: ONNX operators QLinearConv and
QuantizeLinear; ONNX Runtime, onnxruntime/core/providers/cpu/quantization/qlinearconv.cc and quantize_linear_matmul.cc
(factor = input scale * weight scale / output scale, in float32).
"""

import math

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import (
    IDENTITY_MULTIPLIER,
    IDENTITY_SHIFT,
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    INT32_MIN,
    MAX_LEFT_SHIFT,
    Rounding,
    quantize_multiplier,
)
from loomwork.compiler.graph import Requantize
from loomwork.compiler.importers.onnx_codes import Codes, Quantization
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_units import Unit

Int64Array = NDArray[np.int64]


def quantization(codes: Codes) -> Quantization:
    """How a source is quantized. Raises MisfitError when no operator says so."""
    if codes.quantization is None:
        raise MisfitError("its input has numbers without a scale")
    return codes.quantization


def result_quantization(unit: Unit) -> Quantization:
    """How the result is quantized. Raises MisfitError when no operator says so."""
    if unit.quantization is None:
        raise MisfitError("its result has numbers without a scale")
    return unit.quantization


def quantized(value: float, rule: Quantization) -> int:
    """A real number as QuantizeLinear stores it, within int8."""
    if math.isinf(value):
        return INT8_MAX if value > 0 else INT8_MIN
    with np.errstate(over="ignore"):  # clipped below
        stored = np.rint(np.float32(value) / np.float32(rule.scale)) + rule.zero_point
    return int(np.clip(stored, INT8_MIN, INT8_MAX))


def clamp(unit: Unit) -> tuple[int, int]:
    """The least and the largest number that the unit stores."""
    if unit.quantization is None:
        return INT8_MIN, INT8_MAX
    return quantized(unit.low, unit.quantization), quantized(unit.high, unit.quantization)


def multipliers(factors: NDArray[np.floating]) -> tuple[Int64Array, Int64Array]:
    """Q31 multipliers and shifts of rescaling factors. Raises MisfitError for one that is too large."""
    if not np.isfinite(factors).all():
        raise MisfitError("its scales multiply sums by more than a float32 holds")
    pairs = [quantize_multiplier(float(factor)) for factor in np.atleast_1d(factors)]
    if any(shift > MAX_LEFT_SHIFT for _, shift in pairs):
        raise MisfitError(
            f"its scales multiply sums by {float(np.max(factors)):g}; the accelerator needs less than "
            f"{1 << MAX_LEFT_SHIFT}"
        )
    return np.array([m for m, _ in pairs], np.int64), np.array([s for _, s in pairs], np.int64)


def requantize(unit: Unit, factors: NDArray[np.floating], bias: Int64Array, *, result_scale: bool = True) -> Requantize:
    """Requantization of sums to the unit's result. factors: of the sums, before they are divided by its scale.

    result_scale: False when the factors are divided by it already. Raises MisfitError.
    """
    rule = result_quantization(unit)
    if result_scale:
        with np.errstate(over="ignore"):  # refused below
            factors = np.asarray(factors, np.float32) / np.float32(rule.scale)
    if bias.min() < INT32_MIN or bias.max() > INT32_MAX:
        raise MisfitError("its bias does not fit 32 bits together with what the zero point contributes")
    multiplier, shift = multipliers(factors)
    low, high = clamp(unit)
    return Requantize(
        multiplier=multiplier,
        shift=shift,
        bias=np.atleast_1d(bias).astype(np.int64),
        zero_point=rule.zero_point,
        minimum=low,
        maximum=high,
        rounding=Rounding.ONNX,
    )


def rescaling(unit: Unit, which: int = 0) -> Requantize:
    """The step from the scale of one of the unit's sources to that of its result. Raises MisfitError."""
    before = quantization(unit.read[which])
    return requantize(unit, np.asarray([before.scale], np.float32), np.array([-before.zero_point], np.int64))


def taken_over(minimum: int = INT8_MIN, maximum: int = INT8_MAX, *, zero_point: int = 0) -> Requantize:
    """Numbers as they are, but for a clamp and what is added to all of them."""
    return Requantize(
        multiplier=np.array([IDENTITY_MULTIPLIER], np.int64),
        shift=np.array([IDENTITY_SHIFT], np.int64),
        bias=np.array([0], np.int64),
        zero_point=zero_point,
        minimum=minimum,
        maximum=maximum,
        rounding=Rounding.ONNX,
    )
