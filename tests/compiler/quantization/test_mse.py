# SPDX-License-Identifier: Apache-2.0
"""Ranges of least squared error, measured by quantizing the values themselves."""

import numpy as np
import pytest

from loomwork.compiler.quantization.mse import least_error_range, squared_error
from tests.compiler.quantization.graphs import normal


def error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of int8 quantization by its definition, ONNX QuantizeLinear."""
    scale = (high - low) / 255
    zero_point = np.rint(-128 - low / scale)
    integers = np.clip(np.rint(values / scale) + zero_point, -128, 127)
    return float(np.mean(((integers - zero_point) * scale - values) ** 2))


def found(values: np.ndarray) -> tuple[float, float]:
    bound = float(np.abs(values).max())
    counts, edges = np.histogram(values, 8192, range=(-bound, bound))
    return least_error_range(counts, edges.astype(np.float32), (float(values.min()), float(values.max())))


OUTLIERS = np.concatenate([normal(20000), np.array([30, -12], np.float32)])
LONG_TAIL = np.exp(2 * normal(20000, seed=4)).astype(np.float32)


@pytest.mark.parametrize("values", [OUTLIERS, LONG_TAIL, np.maximum(OUTLIERS, 0), -LONG_TAIL, normal(5000)])
def test_no_range_of_a_grid_has_less_error(values: np.ndarray):
    low, high = found(values)
    least, most = min(values.min(), 0), max(values.max(), 0)
    grid = np.linspace(0.02, 1, 25)
    best = min(error(values, least * a, most * b) for a in grid for b in grid if a * least != b * most)
    assert least <= low <= 0 <= high <= most
    assert error(values, low, high) <= 1.05 * best


def test_outliers_are_clipped_and_a_plain_distribution_is_not():
    counts, edges = np.histogram(OUTLIERS, 8192, range=(-30, 30))
    counts[np.abs(edges[:-1]) < 6] *= 1000  # 20 million normal values, and two others
    low, high = least_error_range(counts, edges.astype(np.float32), (-12, 30))
    assert 3.5 < high < 10
    assert -10 < low < -3.5
    flat = np.linspace(-1, 3, 5000, dtype=np.float32)
    assert found(flat) == pytest.approx((-1, 3), rel=0.03)


def test_values_of_one_sign_keep_0_as_a_bound():
    assert found(np.maximum(normal(1000), 0))[0] == 0
    assert found(-LONG_TAIL)[1] == 0


def test_a_tensor_of_zeros_has_a_range():
    assert found(np.zeros(10, np.float32)) == (0, 0)


def test_the_error_is_that_of_quantize_linear():
    values = normal(200).astype(np.float64)
    (sum_of_squares,) = squared_error(values, np.ones(200), -1.5, 2.0)
    assert sum_of_squares / 200 == pytest.approx(error(values, -1.5, 2.0))
