# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, against gemmlowp's C code put into Python's integers, and against exact fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loomwork.arch.isa import BY_MNEMONIC
from loomwork.arch.numerics import (
    ADD_LEFT_SHIFT,
    IDENTITY_MULTIPLIER,
    IDENTITY_SHIFT,
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    INT32_MIN,
    MAX_LEFT_SHIFT,
    MAX_RIGHT_SHIFT,
    Rounding,
    divide_multiplier,
    quantize_multiplier,
    requantize,
    rounding_divide_by_power_of_two,
    to_int8,
    wrap_int32,
)


def c_divide(numerator: int, denominator: int) -> int:
    """Division of C: towards zero."""
    quotient = abs(numerator) // abs(denominator)
    return quotient if (numerator < 0) == (denominator < 0) else -quotient


def c_int32(x: int) -> int:
    """What a 32-bit register holds."""
    return int.from_bytes((x % (1 << 32)).to_bytes(4, "little"), "little", signed=True)


def saturating_rounding_doubling_high_mul(a: int, b: int) -> int:
    """As in gemmlowp, fixedpoint/fixedpoint.h."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
    return c_divide(product + nudge, 1 << 31)


def rounding_divide_by_pot(x: int, exponent: int) -> int:
    """As in gemmlowp, fixedpoint/fixedpoint.h."""
    mask = (1 << exponent) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if remainder > threshold else 0)


def multiply_by_quantized_multiplier(x: int, multiplier: int, shift: int) -> int:
    """As in TensorFlow Lite, kernels/internal/common.cc, with double rounding."""
    left, right = max(shift, 0), max(-shift, 0)
    return rounding_divide_by_pot(saturating_rounding_doubling_high_mul(c_int32(x << left), multiplier), right)


def half_away_from_zero(x: Fraction) -> int:
    return floor(x + Fraction(1, 2)) if x >= 0 else -floor(-x + Fraction(1, 2))


def near(*values: int) -> st.SearchStrategy[int]:
    """Integers about `values`."""
    return st.sampled_from(values).flatmap(lambda value: st.integers(value - 3, value + 3))


def clip(strategy: st.SearchStrategy[int], low: int, high: int) -> st.SearchStrategy[int]:
    return strategy.map(lambda value: min(max(value, low), high))


powers = [1 << place for place in range(32)]
xs = clip(
    st.one_of(st.integers(INT32_MIN, INT32_MAX), st.integers(-40000, 40000), near(0, *powers, *(-p for p in powers))),
    INT32_MIN,
    INT32_MAX,
)
multipliers = clip(st.one_of(st.integers(0, INT32_MAX), near(0, *powers, 3 << 29)), 0, INT32_MAX)
shifts = st.integers(-31, 7)


@given(xs, multipliers, shifts)
@example(INT32_MIN, INT32_MAX, 0)
@example(INT32_MIN, INT32_MAX, -31)
@example(INT32_MAX, INT32_MAX, 7)
@example(-1, 1 << 30, 0)  # a half, negative, after the multiplication
@example(-3, (1 << 31) - 1, -1)  # a half, negative, after the shift
def test_tflite_rounding_is_that_of_gemmlowp(x: int, multiplier: int, shift: int):
    assert requantize(x, multiplier, shift, Rounding.TFLITE) == multiply_by_quantized_multiplier(x, multiplier, shift)


@given(xs, multipliers, shifts)
@example(1, 1 << 30, 0)
@example(3, 1 << 30, 0)
@example(-1, 1 << 30, 0)
@example(INT32_MIN, INT32_MAX, -31)
def test_onnx_rounding_is_exact_half_to_even(x: int, multiplier: int, shift: int):
    shifted = c_int32(x << max(shift, 0))
    exact = Fraction(shifted * multiplier, 1 << 31 + max(-shift, 0))
    assert requantize(x, multiplier, shift, Rounding.ONNX) == round(exact)


@pytest.mark.parametrize("rounding", Rounding)
@given(x=xs, multiplier=multipliers, shift=shifts)
@example(x=INT32_MIN, multiplier=INT32_MAX, shift=0)
@example(x=INT32_MAX, multiplier=INT32_MAX, shift=0)
def test_results_are_int32(rounding: Rounding, x: int, multiplier: int, shift: int):
    result = requantize(x, multiplier, shift, rounding)
    assert result.dtype == np.int64
    assert INT32_MIN <= result <= INT32_MAX


def test_limits_are_those_of_the_commands():
    (requant,) = [item for item in BY_MNEMONIC["REQUANT"].operands if item.name == "shift"]
    assert (requant.low, requant.high) == (-MAX_RIGHT_SHIFT, MAX_LEFT_SHIFT)
    # ADD: no difference of two int8 leaves 32 bits, nor does the sum of two that are scaled down.
    assert 2 * (INT8_MAX - INT8_MIN << ADD_LEFT_SHIFT) <= INT32_MAX
    assert all(item.high == 0 for item in BY_MNEMONIC["COMBINE"].operands if item.name in ("shift_a", "shift_b"))


@given(xs, st.integers(0, 31))
def test_division_by_a_power_of_two_rounds_half_away_from_zero(x: int, exponent: int):
    result = rounding_divide_by_power_of_two(x, exponent)
    assert result == rounding_divide_by_pot(x, exponent)
    assert result == half_away_from_zero(Fraction(x, 1 << exponent))


@pytest.mark.parametrize("rounding", Rounding)
def test_arguments_broadcast(rounding: Rounding):
    rng = np.random.default_rng(1)
    x = rng.integers(INT32_MIN, INT32_MAX, (5, 1, 3))
    multiplier, shift = rng.integers(0, INT32_MAX, (4, 3)), rng.integers(-31, 8, 3)
    result = requantize(x, multiplier, shift, rounding)
    assert result.shape == (5, 4, 3)
    for place in np.ndindex(5, 4, 3):
        row, column, channel = place
        single = requantize(x[row, 0, channel], multiplier[column, channel], shift[channel], rounding)
        assert result[place] == single


@pytest.mark.parametrize("rounding", Rounding)
@given(x=st.integers(-(1 << 30) + 1, (1 << 30) - 1))
def test_identity(rounding: Rounding, x: int):
    assert requantize(x, IDENTITY_MULTIPLIER, IDENTITY_SHIFT, rounding) == x


@given(st.integers(-(1 << 62), 1 << 62))
def test_wrap(x: int):
    assert wrap_int32(x) == c_int32(x)


def test_to_int8_adds_before_it_clamps():
    assert to_int8([-1000, -131, -130, 0, 5, 130, 1000], 3, -128, 127).tolist() == [-128, -128, -127, 3, 8, 127, 127]
    assert to_int8([-1000, 0, 1000], -10, -10, 20).tolist() == [-10, -10, 20]
    assert to_int8([INT32_MIN, INT32_MAX], -128, -128, 127).tolist() == [-128, 127]
    assert to_int8([INT32_MIN, INT32_MAX], 127, -128, 127).tolist() == [-128, 127]
    assert to_int8([-50, 0, 50], 0, 20, -20).tolist() == [-20, -20, -20]
    assert to_int8([1], 0, -128, 127).dtype == np.int8


@given(st.floats(min_value=2**-31, max_value=127.0))
@example(1.0)
@example(0.5)
@example(float(np.nextafter(1.0, 0)))
@example(float(np.nextafter(0.5, 0)))
def test_multiplier_is_the_nearest(scale: float):
    multiplier, shift = quantize_multiplier(scale)
    assert 1 << 30 <= multiplier < 1 << 31
    # Half a unit in the last place of the multiplier that the scale has before it is rounded up to a power of two.
    assert abs(Fraction(multiplier, 1 << 31) * Fraction(2) ** shift - Fraction(scale)) <= Fraction(2) ** (shift - 32)


@given(st.floats(min_value=0, allow_infinity=False))
@example(5e-324)
@example(1.7e308)
@example(float(np.nextafter(1.0, 0)))
@example(1 - 2.0**-32)  # a half: the multiplier rounds up to 2**31
@example((3 << 29 | 1) * 2.0**-31 + 2.0**-32)  # a half, away from zero
def test_multiplier_is_that_of_tflite(scale: float):
    """QuantizeMultiplier of TensorFlow Lite, kernels/internal/quantization_util.cc, in fractions."""
    exact, shift = Fraction(scale), 0
    while exact >= 1:
        exact, shift = exact / 2, shift + 1
    while 0 < exact < Fraction(1, 2):
        exact, shift = exact * 2, shift - 1
    multiplier = half_away_from_zero(exact * (1 << 31))
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        multiplier, shift = 0, 0
    assert quantize_multiplier(scale) == (multiplier, shift)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (1.0, (1 << 30, 1)),
        (0.75, (3 << 29, 0)),
        (0.0, (0, 0)),
        (2.0**-32, (1 << 30, -31)),
        (float(np.nextafter(2.0**-32, 0)), (1 << 30, -31)),  # rounds up to it
        (2.0**-32 * (1 - 2.0**-31), (0, 0)),  # the largest that is too small
        (2.0**-40, (0, 0)),
        (200.0, (1677721600, 8)),
    ],
)
def test_known_multipliers(scale: float, expected: tuple[int, int]):
    assert quantize_multiplier(scale) == expected


@pytest.mark.parametrize("scale", [-1.0, -1e-300, float("inf"), float("nan")])
def test_impossible_scales(scale: float):
    with pytest.raises(ValueError, match=f"^a rescaling factor must be finite and not negative, not {scale}$"):
        quantize_multiplier(scale)


def check_division(count: int, x: list[int]) -> None:
    multiplier, shift = divide_multiplier(count)
    assert 0 < multiplier < 1 << 31
    assert -31 <= shift <= 7
    expected = [half_away_from_zero(Fraction(value, count)) for value in x]
    assert requantize(x, multiplier, shift, Rounding.ONNX).tolist() == expected


@pytest.mark.parametrize("count", [*range(1, 18), 49, 64])
def test_division_of_every_sum_of_a_small_window(count: int):
    check_division(count, list(range(-128 * count, 128 * count + 1)))


@given(st.integers(1, 65535), st.lists(st.integers(-256, 256), min_size=20, max_size=20), st.integers(-2, 2))
def test_division_about_every_half(count: int, halves: list[int], distance: int):
    sums = [half * count // 2 + distance for half in halves]
    check_division(count, [x for x in sums if abs(x) <= 128 * count])


@pytest.mark.parametrize("first", range(1, 66, 13))
def test_division_about_every_half_of_many_counts(first: int):
    halves = np.arange(-256, 257)[:, np.newaxis]
    for count in range(first, 65536, 65):
        x = halves * count // 2 + np.arange(-1, 3)
        x = x[abs(x) <= 128 * count]
        multiplier, shift = divide_multiplier(count)
        expected = np.sign(x) * ((2 * abs(x) + count) // (2 * count))
        assert np.array_equal(requantize(x, multiplier, shift, Rounding.ONNX), expected), f"count {count}"


def test_divisors_are_slightly_too_large():
    """By less than makes `2**-22` of the largest sum, for every count."""
    for count in range(1, 65536):
        multiplier, shift = divide_multiplier(count)
        one = 1 << 31 - shift
        assert 0 < multiplier < 1 << 31
        assert 0 < multiplier * count - one < Fraction(one, 128 << 22)


@pytest.mark.parametrize("count", [0, -1, 65536])
def test_impossible_counts(count: int):
    with pytest.raises(ValueError, match=f"^can divide by 1 to 65535, not {count}$"):
        divide_multiplier(count)
