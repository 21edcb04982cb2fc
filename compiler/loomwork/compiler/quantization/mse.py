# SPDX-License-Identifier: Apache-2.0
"""The range with the least squared error: what clipping loses against what finer steps gain."""

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import INT8_MAX, INT8_MIN

Range = tuple[float, float]

_FRACTIONS = np.linspace(1, 0.02, 99)
"""Shares of the observed bound that are tried."""
_ROUNDS = 2


def least_error_range(counts: NDArray[np.int64], edges: NDArray[np.float32], observed: Range) -> Range:
    """The int8 range that quantizes a histogram with the least squared error.

    counts, edges: the histogram, every bin taken as values at its middle. observed: lowest and highest value, widened
    to hold 0 as every quantized range does. Searched one bound after the other (Nagel et al., "A White Paper on Neural
    Network Quantization", 2021, section 3.1, with the steps of a grid); both bounds only ever move inwards.
    """
    filled = np.flatnonzero(counts)
    weights = counts[filled].astype(np.float64)
    middles = ((edges[:-1] + edges[1:]) / 2)[filled].astype(np.float64)
    low, high = min(observed[0], 0.0), max(observed[1], 0.0)
    full_low, full_high = low, high
    for _ in range(_ROUNDS):
        high = full_high * _best(middles, weights, low, full_high * _FRACTIONS)
        low = full_low * _best(middles, weights, full_low * _FRACTIONS, high)
    return low, high


def _best(
    middles: NDArray[np.float64],
    weights: NDArray[np.float64],
    low: NDArray[np.float64] | float,
    high: NDArray[np.float64] | float,
) -> float:
    errors = squared_error(middles, weights, low, high)
    # Of equal ones the widest: the first, for the fractions fall.
    return float(_FRACTIONS[int(np.argmin(errors))])


def squared_error(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    low: NDArray[np.float64] | float,
    high: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Sum of weights times squared quantization error, one for each of the ranges `[ranges]`."""
    lows, highs = np.broadcast_arrays(np.atleast_1d(low), np.atleast_1d(high))
    scale = np.maximum((highs - lows) / (INT8_MAX - INT8_MIN), np.finfo(np.float64).tiny)[:, None]
    zero_point = np.round(INT8_MIN - lows[:, None] / scale)
    integers = np.clip(np.round(values / scale) + zero_point, INT8_MIN, INT8_MAX)
    return (weights * ((integers - zero_point) * scale - values) ** 2).sum(axis=1)
