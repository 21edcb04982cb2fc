# SPDX-License-Identifier: Apache-2.0
"""What `loomwork quantize` tells about a quantized network: as a table, in sentences, as JSON."""

import math
from dataclasses import asdict
from typing import Any

from rich.table import Table

from loomwork.compiler.quantization import Layer, Quantized, Trial

HEADINGS = ("layer", "operator", "scale", "zero point", "range", "SNR dB", "weights dB")


def layer_row(layer: Layer) -> tuple[str, ...]:
    """One layer's cells under HEADINGS."""
    return (
        layer.name,
        layer.operator,
        f"{layer.scale:.6g}",
        str(layer.zero_point),
        f"{layer.low:.4g} to {layer.high:.4g}",
        decibel(layer.snr_db),
        "" if layer.weight_snr_db is None else decibel(layer.weight_snr_db),
    )


def decibel(ratio: float) -> str:
    """A ratio as text."""
    return "exact" if math.isinf(ratio) else f"{ratio:.1f}"


def layer_table(quantized: Quantized) -> Table:
    """A row for each layer, for the terminal."""
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("layer", "operator") else "right")
    for layer in quantized.layers:
        table.add_row(*layer_row(layer))
    return table


def describe_trial(trial: Trial) -> str:
    """How a network was quantized, in words."""
    extras = (", equalized" if trial.equalized else "") + (", biases corrected" if trial.bias_corrected else "")
    return f"{trial.method} ranges{extras}"


def sentences(quantized: Quantized, accuracy: tuple[float, float] | None) -> list[str]:
    """What was chosen, what it came to, and what stays in float."""
    chosen, count = quantized.chosen, len(quantized.trials)
    others = f", the best of {count} ways" if count > 1 else ""
    lines = [f"chosen: {describe_trial(chosen)}{others}"]
    if quantized.pairs:
        lines.append(f"equalized pairs of convolutions: {len(quantized.pairs)}")
    lines += [f"output {name}: {decibel(ratio)} dB" for name, ratio in quantized.outputs.items()]
    if quantized.unquantized:
        lines.append(f"not quantized: {', '.join(quantized.unquantized)}")
    if accuracy is not None:
        lines.append(f"top-1 accuracy: {accuracy[0]:.2%} before, {accuracy[1]:.2%} after")
    return lines


def report(quantized: Quantized, accuracy: tuple[float, float] | None) -> dict[str, Any]:
    """All of it for a JSON file; a ratio of null is that of an exact tensor."""
    return {
        "chosen": _finite(asdict(quantized.chosen)),
        "outputs": [{"name": name, "snr_db": _number(ratio)} for name, ratio in quantized.outputs.items()],
        "accuracy": None if accuracy is None else {"float": accuracy[0], "int8": accuracy[1]},
        "layers": [_layer(layer) for layer in quantized.layers],
        "unquantized": list(quantized.unquantized),
        "equalized_pairs": [list(pair) for pair in quantized.pairs],
        "trials": [_finite(asdict(trial)) for trial in quantized.trials],
    }


def _layer(layer: Layer) -> dict[str, Any]:
    entry = _finite(asdict(layer))
    if layer.weight_snr_db is None:
        del entry["weight_snr_db"]  # null would mean exact weights
    return entry


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(value) if isinstance(value, float) else value for name, value in entry.items()}


def _number(value: float) -> float | None:
    return None if math.isinf(value) else value
