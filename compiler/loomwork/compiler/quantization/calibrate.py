# SPDX-License-Identifier: Apache-2.0
"""From calibration data to the range of each tensor, by one of four methods."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.quantization.calibrate import HistogramCollector

from loomwork.compiler.quantization.error import QuantizeError
from loomwork.compiler.quantization.mse import least_error_range
from loomwork.compiler.quantization.operators import QUANTIZED
from loomwork.compiler.quantization.samples import Samples
from loomwork.compiler.quantization.session import Session
from loomwork.compiler.quantization.sharing import Range

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

_BINS = 8192
"""Of a histogram over -bound to bound: 16 or more for each step of the quantized tensor, with both signs."""
_ENTROPY_BINS, _ENTROPY_LEVELS = 256, 128
"""Levels as ONNX Runtime has them, and twice as many bins, so that half of the range may be cut off; slow with more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """What calibration data makes of each float tensor. observed: lowest and highest value.

    histograms: counts, edges of the bins, lowest and highest value, and bound, as ONNX Runtime's HistogramCollector
    keeps them.
    """

    observed: Mapping[str, Range]
    histograms: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32], float, float, float]]


def activations(model: onnx.ModelProto) -> list[str]:
    """Float tensors that an operator to be quantized reads or makes, constants left out. model: shapes inferred."""
    constants = {tensor.name for tensor in model.graph.initializer}
    floats = {
        value.name
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    names = (
        name
        for node in model.graph.node
        if node.op_type in QUANTIZED
        for name in (*node.input, *node.output)
        if name in floats and name not in constants
    )
    return list(dict.fromkeys(names))


def collect(model: onnx.ModelProto, samples: Samples) -> Statistics:
    """Run the float model on all samples twice: for the bounds, then for histograms within them.

    Raises QuantizeError when a tensor gets infinite or NaN.
    """
    names = activations(model)
    session = Session(model, names)
    observed: dict[str, Range] = {}
    for feed in samples:
        values = {**feed, **session.run(feed)}
        for name in names:
            low, high = float(np.min(values[name])), float(np.max(values[name]))
            if not (np.isfinite(low) and np.isfinite(high)):
                raise QuantizeError(
                    f"tensor {name} becomes NaN or infinite on the calibration data: check that its scale is that "
                    "of the training data"
                )
            before = observed.get(name, (low, high))
            observed[name] = (min(low, before[0]), max(high, before[1]))
    # With the bounds known from the start, no histogram has to grow.
    collector = _collector("entropy", _BINS)
    for name, (low, high) in observed.items():
        bound = max(abs(low), abs(high))
        counts, edges = np.histogram(np.array([], np.float32), _BINS, range=(-bound, bound))
        collector.histogram_dict[name] = (
            *(counts, edges.astype(np.float32)),
            *(np.float32(low), np.float32(high), np.float32(bound)),
        )
    for feed in samples:
        values = {**feed, **session.run(feed)}
        collector.collect_value({name: values[name] for name in names})
    return Statistics(observed=observed, histograms=collector.histogram_dict)


def find_ranges(statistics: Statistics, method: Method, percentile: float) -> dict[str, Range]:
    """The range of each tensor. percentile: of the values that a range holds, with that method."""
    match method:
        case "minmax":
            return dict(statistics.observed)
        case "mse":
            return {
                name: least_error_range(counts, edges, statistics.observed[name])
                for name, (counts, edges, *_) in statistics.histograms.items()
            }
        case "percentile":
            collector = _collector(method, _BINS, percentile)
            collector.histogram_dict = dict(statistics.histograms)
        case "entropy":
            collector = _collector(method, _ENTROPY_BINS)
            collector.histogram_dict = {name: _coarse(*entry) for name, entry in statistics.histograms.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        found = collector.compute_collection_result()
    return {name: (min(float(low), 0.0), max(float(high), 0.0)) for name, (low, high, *_) in found.items()}


def _collector(method: str, bins: int, percentile: float = 100) -> HistogramCollector:
    return HistogramCollector(
        method=method,
        symmetric=False,
        num_bins=bins,
        num_quantized_bins=_ENTROPY_LEVELS,
        percentile=percentile,
        scenario="same",
    )


def _coarse(
    counts: NDArray[np.int64], edges: NDArray[np.float32], low: float, high: float, bound: float
) -> tuple[NDArray[np.int64], NDArray[np.float32], float, float, float]:
    step = _BINS // _ENTROPY_BINS
    return counts.reshape(-1, step).sum(axis=1), edges[::step], low, high, bound
