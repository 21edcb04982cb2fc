# SPDX-License-Identifier: Apache-2.0
"""docs/quantization.md, measured.

python -m loomwork.cli.quantization_page ../shared/models ../shared/data docs/quantization.md
"""

import sys
from pathlib import Path

import onnx

from loomwork.cli.markdown import grid
from loomwork.cli.output import check_destination, status, write_file
from loomwork.cli.quantization_networks import NETWORKS, Inputs, Network
from loomwork.cli.quantize_report import HEADINGS, decibel, describe_trial, layer_row
from loomwork.compiler.quantization import METHODS, Quantized, quantize, read_model
from loomwork.compiler.quantization.accuracy import top1
from loomwork.compiler.quantization.noise import output_ratios
from loomwork.compiler.quantization.samples import check_samples
from loomwork.compiler.quantization.session import Session
from loomwork.compiler.quantization.shapes import fix_shapes

_PAGE = """\
# Quantization

`loomwork quantize net.onnx --calibration images.npz -o net_int8.onnx` makes an int8 network of a float one, after
training and without training data but some typical inputs, of which 100 are plenty. The result is an ONNX file with
QuantizeLinear and DequantizeLinear (QDQ), which other runtimes read too. From Python:
`loomwork.compiler.quantization.quantize`.

## What happens

1. **Checks.** A file that is none, a quantized network, weights that are no numbers, operators that ONNX Runtime does
   not have, inputs that do not fit: one sentence each, and nothing is written.
2. **Shapes.** A dynamic batch becomes 1; any other dynamic dimension needs `--shape NAME=1,3,32,32`.
3. **Preparation.** Operator set 14 or later by ONNX's converter; constants, batch normalization and additions of biases
   folded by onnxslim and ONNX Runtime; HardSwish in one piece; the factors of Gemm in its weights.
4. **Ranges.** The float network runs on the calibration data. Four methods make a range of what each tensor held:
   `minmax` holds every value, `percentile` 99.999 % of them, `entropy` loses the least information (ONNX Runtime's,
   with 128 levels), `mse` has the least squared error over a histogram, clipping included.
5. **Cross-layer equalization** (Nagel et al. 2019, section 4.1), over Conv, Relu and Conv, depthwise ones included.
6. **Bias correction** (the same, section 4.2): what rounding the weights adds to the mean of a channel, measured on the
   calibration data, is taken out of the bias.
7. **Choice.** The signal-to-noise ratio at the network's outputs against the float network, the mean of all outputs in
   dB, decides: every method with and without equalization, then the best with bias correction. What does not help is
   left out. `--method`, `--no-equalize` and `--no-correct-bias` narrow the search.

## What the int8 network looks like

- Inputs and outputs keep their names and stay float32; QuantizeLinear and DequantizeLinear are inside.
- Activations: int8 with a zero point, one scale per tensor. Weights: int8 without a zero point, one scale per output
  channel; one for all where ONNX has no axis of output channels, which is so for a ConvTranspose of groups and for a
  constant on the left of a MatMul. Biases: int32, scale of the input times scale of the weights.
- Every operator that has an int8 form is between DequantizeLinear and QuantizeLinear:
  OPERATORS.
  Any other operator stays in float between them, and is reported.
- A Relu or Clip behind one of them is the saturation of its QuantizeLinear, and no node of its own: a zero point of
  -128 is a Relu. It stays a node behind pooling and reshaping, behind a tensor that others read too, and when the
  bounds of a Clip leave out 0.
- MaxPool, AveragePool, Concat, Split, Slice, Pad with 0, Resize (but cubic), DepthToSpace, Reshape, Transpose and the
  like have one scale on both sides, so that they move bytes. All inputs of a Concat have the scale of its output.

## Measured

Ratios in dB at the outputs. "Unseen": the chosen network on other inputs than it was calibrated with: other digits,
other parts of the same photographs. Made by `make quantization`, which takes two minutes.

"""


def main() -> None:
    """Measure every network and write the page."""
    models, data, page = (Path(argument) for argument in sys.argv[1:4])
    check_destination(page)
    with status.status("measuring") as line:
        sections: list[str] = []
        for network in NETWORKS:
            inputs = network.inputs(data)
            model = read_model(models / network.file)
            result = quantize(
                model,
                inputs.calibration,
                progress=lambda step, title=network.title: line.update(f"{title}: {step}"),
            )
            sections.append(_section(network, model, inputs, result))
    write_file(page, _page(sections))


def _page(sections: list[str]) -> str:
    from loomwork.compiler.quantization.operators import QUANTIZED

    text = _PAGE.replace("OPERATORS", _wrapped(sorted(QUANTIZED)))
    return text + "\n".join(sections)


def _wrapped(names: list[str]) -> str:
    lines, line = [], ""
    for name in names:
        if len(line) + len(name) > 112:
            lines.append(line.rstrip())
            line = ""
        line += f"{name}, "
    return "\n  ".join([*lines, line.removesuffix(", ")])


def _section(network: Network, model: onnx.ModelProto, inputs: Inputs, result: Quantized) -> str:
    ratios = {(trial.method, trial.equalized, trial.bias_corrected): trial.snr_db for trial in result.trials}
    columns = [name for name, key in (("plain", False), ("equalized", True)) if any(k[1] == key for k in ratios)]
    rows = [[method, *(decibel(ratios[method, name == "equalized", False]) for name in columns)] for method in METHODS]
    unseen = _unseen(model, inputs, result)
    count = len(next(iter(inputs.calibration.values())))
    chosen = f"Chosen: {describe_trial(result.chosen)}, {decibel(result.chosen.snr_db)} dB."
    lines = [
        f"### {network.title}\n",
        f"`{Path(network.file).name}`, {count} samples for calibration.\n",
        grid(["ranges", *columns], rows),
        f"{chosen} Pairs of convolutions equalized: {len(result.pairs)}.\n",
        grid(
            ["output", "calibration", "unseen"],
            [[name, decibel(ratio), decibel(unseen[name])] for name, ratio in result.outputs.items()],
        ),
    ]
    if inputs.test is not None:
        images, labels = inputs.test
        before, after = top1(model, images, labels), top1(result.model, images, labels)
        lines.append(
            f"Top-1 accuracy on {len(labels):,} test images: {before:.2%} in float, {after:.2%} in int8.\n",
        )
    lines.append(f"<details><summary>Layers</summary>\n\n{grid(HEADINGS, _layers(result), names=2)}\n</details>\n")
    return "\n".join(lines)


def _layers(result: Quantized) -> list[tuple[str, ...]]:
    return [layer_row(layer) for layer in result.layers]


def _unseen(model: onnx.ModelProto, inputs: Inputs, result: Quantized) -> dict[str, float]:
    fixed = fix_shapes(model, {})
    samples = check_samples(fixed, inputs.unseen, "unseen data")
    reference = Session(fixed)
    return output_ratios([reference.run(feed) for feed in samples], result.model, samples)


if __name__ == "__main__":
    main()
