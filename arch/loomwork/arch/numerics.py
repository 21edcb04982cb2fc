# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic of the accelerator, exact to the bit, defined once for golden model, RTL tests and compiler.

A real-valued rescaling `x * scale` is carried out on integers as `x * multiplier * 2**(shift - 31)` with a Q31
`multiplier` and a binary exponent `shift` (positive = left), in one of two rounding rules.

Sources: TensorFlow Lite 8-bit quantization specification; gemmlowp `fixedpoint.h`
(SaturatingRoundingDoublingHighMul, RoundingDivideByPOT); ONNX operator QLinearConv (round half to even).
"""

from enum import IntEnum
from math import frexp

import numpy as np
from numpy.typing import ArrayLike, NDArray

INT8_MIN, INT8_MAX = -128, 127
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

MAX_LEFT_SHIFT = 7
"""Largest positive `shift` that the requantizer carries out."""
MAX_RIGHT_SHIFT = 31
"""Largest `-shift`."""
ADD_LEFT_SHIFT = 20
"""Headroom TFLite gives both operands of an int8 ADD before it rescales them."""
IDENTITY_MULTIPLIER, IDENTITY_SHIFT = 1 << 30, 1
"""`requantize(x, IDENTITY_MULTIPLIER, IDENTITY_SHIFT)` is `x` in both rounding rules (for |x| < 2**30)."""

Int64Array = NDArray[np.int64]


class Rounding(IntEnum):
    """How the requantizer rounds."""

    TFLITE = 0
    """Twice: to the nearest (half up) after the multiplication, then half away from zero after the shift."""
    ONNX = 1
    """Once: to the nearest, half to even."""


def wrap_int32(x: ArrayLike) -> Int64Array:
    """Keep the low 32 bits of `x` as a signed number: what a 32-bit register does."""
    return (np.asarray(x, dtype=np.int64) + (1 << 31) & 0xFFFF_FFFF) - (1 << 31)


def requantize(x: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, rounding: Rounding) -> Int64Array:
    """Rescale int32 `x` by `multiplier * 2**(shift - 31)`; all arguments broadcast.

    x: int32 values. multiplier: 0 .. 2**31 - 1. shift: -31 .. 7, left when positive; the left shift keeps 32 bits.
    Returns int32 values as int64.
    """
    x, multiplier, shift = (np.asarray(value, dtype=np.int64) for value in (x, multiplier, shift))
    product = wrap_int32(x << np.maximum(shift, 0)) * multiplier
    right = np.maximum(-shift, 0)
    if rounding is Rounding.TFLITE:
        return rounding_divide_by_power_of_two((product + (1 << 30)) >> 31, right)
    total = right + 31
    quotient, remainder = product >> total, product & ((np.int64(1) << total) - 1)
    half = np.int64(1) << (total - 1)
    return quotient + ((remainder > half) | ((remainder == half) & (quotient & 1 == 1)))


def rounding_divide_by_power_of_two(x: ArrayLike, exponent: ArrayLike) -> Int64Array:
    """Divide by `2**exponent`, to the nearest, half away from zero (gemmlowp RoundingDivideByPOT)."""
    x, exponent = np.asarray(x, dtype=np.int64), np.asarray(exponent, dtype=np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + ((x & mask) > threshold)


def to_int8(x: ArrayLike, zero_point: int, minimum: int, maximum: int) -> NDArray[np.int8]:
    """Add the zero point, without overflow, and clamp to the activation range; `maximum` holds where they cross."""
    return np.clip(np.asarray(x, dtype=np.int64) + zero_point, minimum, maximum).astype(np.int8)


def quantize_multiplier(scale: float) -> tuple[int, int]:
    """Express a real `scale`, not negative, as (multiplier, shift), as TFLite's QuantizeMultiplier does.

    Raises ValueError when `scale` is negative or not finite. The shift may exceed what the hardware carries out:
    compare with MAX_LEFT_SHIFT.
    """
    if not 0 <= scale < float("inf"):
        raise ValueError(f"a rescaling factor must be finite and not negative, not {scale}")
    fraction, shift = frexp(scale)
    # C's round(): half away from zero. Adding 0.5 is exact, except beyond 2**31, where int() drops what is lost.
    multiplier = int(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -MAX_RIGHT_SHIFT:
        return 0, 0
    return multiplier, shift


def divide_multiplier(count: int) -> tuple[int, int]:
    """(multiplier, shift) with which `requantize(x, ..., Rounding.ONNX)` is `x / count`, half away from zero.

    The multiplier is slightly more than `1 / count`, so that an exact half lands just beyond it and rounds away from
    zero on both sides, while everything else stays on its side. Holds for `|x| <= 128 * count`, `count` <= 65535:
    the error is below `2**-22`, the distance to a half at least `1 / (2 * count)`.
    """
    if not 1 <= count <= 65535:
        raise ValueError(f"can divide by 1 to 65535, not {count}")
    shift = -(count.bit_length() - 1)
    multiplier = ((1 << (31 - shift)) // count) + 1
    if multiplier >= 1 << 31:
        multiplier, shift = multiplier // 2 + 1, shift + 1
    return multiplier, shift
