# SPDX-License-Identifier: Apache-2.0
"""Post-training quantization of a float ONNX model to int8, as a model with QuantizeLinear and DequantizeLinear."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from loomwork.compiler.quantization import bias as bias_correction
from loomwork.compiler.quantization import equalize as equalization
from loomwork.compiler.quantization.calibrate import METHODS, Method, collect, find_ranges
from loomwork.compiler.quantization.check import check_model
from loomwork.compiler.quantization.error import QuantizeError
from loomwork.compiler.quantization.insert import insert
from loomwork.compiler.quantization.layers import Layer, describe, unquantized_nodes
from loomwork.compiler.quantization.noise import mean_db, output_ratios
from loomwork.compiler.quantization.operators import QUANTIZED
from loomwork.compiler.quantization.prepare import prepare
from loomwork.compiler.quantization.samples import check_samples
from loomwork.compiler.quantization.session import Session
from loomwork.compiler.quantization.shapes import fix_shapes
from loomwork.compiler.quantization.sharing import Range

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to quantize the model. snr_db: mean over the network's outputs, on the calibration data."""

    method: Method
    equalized: bool
    bias_corrected: bool
    snr_db: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A quantized model and how it came to be.

    model: float inputs and outputs of the names they had, int8 inside. layers: what became of each. outputs:
    signal-to-noise ratio in dB of each network output. chosen: the trial that the model is, best of trials. pairs:
    names of the convolutions that were equalized. unquantized: type and name of nodes that stay as they were.
    """

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    outputs: Mapping[str, float]
    chosen: Trial
    trials: tuple[Trial, ...]
    pairs: tuple[tuple[str, str], ...]
    unquantized: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Attempt:
    """model: the float model that was quantized, with ranges, into `quantized`. reference: that with its own biases."""

    trial: Trial
    reference: onnx.ModelProto
    model: onnx.ModelProto
    ranges: Mapping[str, Range]
    quantized: onnx.ModelProto
    outputs: Mapping[str, float]


def quantize(
    model: onnx.ModelProto,
    calibration: Mapping[str, Array],
    *,
    method: Method | Literal["auto"] = "auto",
    equalize: bool = True,
    correct_bias: bool = True,
    shapes: Mapping[str, Sequence[int]] | None = None,
    percentile: float = 99.999,
    progress: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Quantize a float model with calibration data.

    calibration: `[samples, ...]` of each input, by name. method: how ranges are found; "auto" tries all. equalize,
    correct_bias: whether to try cross-layer equalization and bias correction; each is kept only where it raises the
    signal-to-noise ratio at the network's outputs. shapes: of inputs with dynamic dimensions. percentile: of the values
    that a range holds, for that method. progress: told what is done next.

    Raises QuantizeError for a model or data that cannot be used.
    """
    if method != "auto" and method not in METHODS:
        raise QuantizeError(f"there is no calibration method {method}: choose auto, {', '.join(METHODS)}")
    if not 50 < percentile <= 100:
        raise QuantizeError(f"a percentile is more than 50 and at most 100, not {percentile:g}")
    check_model(model)
    fixed = fix_shapes(model, shapes or {})
    samples = check_samples(fixed, calibration)
    progress("simplifying the model")
    prepared = prepare(fixed)
    if not any(node.op_type in QUANTIZED for node in prepared.graph.node):
        raise QuantizeError("the model has no operator that can be quantized, such as Conv or MatMul")
    reference = Session(prepared)
    wanted = [reference.run(feed) for feed in samples]
    methods: tuple[Method, ...] = METHODS if method == "auto" else (method,)

    def attempt(
        variant: onnx.ModelProto,
        ranges: Mapping[str, Range],
        one: Method,
        *,
        reference: onnx.ModelProto | None = None,
        equalized: bool,
        corrected: bool = False,
    ) -> _Attempt:
        quantized = insert(variant, ranges)
        outputs = output_ratios(wanted, quantized, samples)
        trial = Trial(method=one, equalized=equalized, bias_corrected=corrected, snr_db=mean_db(outputs.values()))
        return _Attempt(
            trial=trial,
            reference=reference or variant,
            model=variant,
            ranges=ranges,
            quantized=quantized,
            outputs=outputs,
        )

    def calibrated(variant: onnx.ModelProto, *, equalized: bool) -> Iterator[_Attempt]:
        title = " of the equalized model" if equalized else ""
        progress(f"calibrating{title}")
        statistics = collect(variant, samples)
        for one in methods:
            progress(f"trying {one} ranges{title}")
            yield attempt(variant, find_ranges(statistics, one, percentile), one, equalized=equalized)

    tried = list(calibrated(prepared, equalized=False))
    equalized, pairs = equalization.equalize(prepared) if equalize else (prepared, ())
    if pairs:
        tried += calibrated(equalized, equalized=True)
    best = _best(tried)
    if correct_bias:
        progress("correcting biases")
        corrected = bias_correction.correct_bias(best.model, best.quantized, samples)
        chosen = best.trial
        tried.append(
            attempt(
                corrected,
                best.ranges,
                chosen.method,
                reference=best.model,
                equalized=chosen.equalized,
                corrected=True,
            )
        )
        best = _best(tried)
    progress("measuring each layer")
    return Quantized(
        model=best.quantized,
        layers=describe(best.reference, best.quantized, samples),
        outputs=best.outputs,
        chosen=best.trial,
        trials=tuple(entry.trial for entry in tried),
        pairs=pairs if best.trial.equalized else (),
        unquantized=unquantized_nodes(best.quantized),
    )


def _best(attempts: Sequence[_Attempt]) -> _Attempt:
    """Of equal ones the first, which changes the model least."""
    return max(attempts, key=lambda entry: entry.trial.snr_db)
