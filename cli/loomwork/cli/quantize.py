# SPDX-License-Identifier: Apache-2.0
"""`loomwork quantize`: from a float ONNX network to an int8 one."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from loomwork.cli.arrays import check_suffix, load_arrays
from loomwork.cli.options import ShapeOption, parse_shapes
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_file, write_json

if TYPE_CHECKING:
    import onnx

Array = NDArray[np.generic]


class MethodName(StrEnum):
    """How the ranges of activations are found."""

    AUTO = "auto"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A float32 network.")],
    calibration: Annotated[
        Path,
        typer.Option(metavar="DATA.npz|.npy", help="Typical inputs, by name or of the only input; 100 are plenty."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="Where the int8 network goes.")],
    method: Annotated[
        MethodName, typer.Option(help="How ranges of activations are found; auto tries all and keeps the best.")
    ] = MethodName.AUTO,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="REPORT.json", help="Write the per-layer report as JSON.")
    ] = None,
    shape: ShapeOption = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="DATA.npz|.npy", help="Inputs on which top-1 accuracy is measured, before and after."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="LABELS.npy|KEY", help="Class numbers of the test inputs, or their name in DATA.npz."),
    ] = None,
    equalize: Annotated[bool, typer.Option(help="Try cross-layer equalization; kept where it helps.")] = True,
    correct_bias: Annotated[bool, typer.Option(help="Try bias correction; kept where it helps.")] = True,
) -> None:
    """Quantize a float ONNX network to int8, after training, with typical inputs.

    The result is an ONNX file with QuantizeLinear and DequantizeLinear around each operator, which other runtimes read
    too. Inputs and outputs keep their names and stay float32.

    Example: `loomwork quantize net.onnx --calibration images.npz -o net_int8.onnx --report net.json`
    """
    from loomwork.cli.quantize_report import layer_table, report, sentences
    from loomwork.compiler import quantization
    from loomwork.compiler.quantization.accuracy import top1

    labels_file = Path(labels) if labels is not None and Path(labels).is_file() else None
    inputs = [model, calibration, *(path for path in (test, labels_file) if path is not None)]
    check_destination(output, report_file, inputs=inputs)
    if (test is None) != (labels is None):
        raise UsageError("accuracy takes both --test with inputs and --labels with their classes")
    shapes = parse_shapes(shape)
    before = 0.0
    accuracy: tuple[float, float] | None = None
    with status.status(f"reading {model.name}") as line:
        try:
            network = quantization.read_model(model)
            names = _input_names(network)
            samples = load_arrays(calibration, names, of="network")
            checked = _test_data(test, labels, names) if test is not None and labels is not None else None
            if checked is not None:
                # Before the long work, so that a mistake in the test data shows at once.
                line.update(f"{model.name}: accuracy of the float network")
                before = top1(network, *checked, shapes)
            quantized = quantization.quantize(
                network,
                samples,
                method=method.value,
                equalize=equalize,
                correct_bias=correct_bias,
                shapes=shapes,
                progress=lambda step: line.update(f"{model.name}: {step}"),
            )
            if checked is not None:
                line.update(f"{model.name}: accuracy of the int8 network")
                accuracy = before, top1(quantized.model, *checked)
        except quantization.QuantizeError as error:
            raise UsageError(_with_path(str(error), model)) from error
    write_file(output, quantized.model.SerializeToString(deterministic=True))
    if report_file is not None:
        write_json(report_file, report(quantized, accuracy))
    print_table(layer_table(quantized))
    for sentence in sentences(quantized, accuracy):
        console.print(sentence)
    console.print(f"wrote {output}" + (f" and {report_file}" if report_file else ""))


def load_samples(calibration: Path, model: Path) -> Mapping[str, Array]:
    """Typical inputs of a network, by name. Raises UsageError, and QuantizeError for a file that is no network."""
    from loomwork.compiler import quantization

    return load_arrays(calibration, _input_names(quantization.read_model(model)), of="network")


def _input_names(network: "onnx.ModelProto") -> list[str]:
    constants = {tensor.name for tensor in network.graph.initializer}
    return [value.name for value in network.graph.input if value.name not in constants]


def _test_data(test: Path, labels: str, names: list[str]) -> tuple[Mapping[str, Array], Array]:
    """Inputs by name, and labels: an array of the same file, or a file of their own."""
    arrays = load_arrays(test, names, of="network")
    if labels in arrays and labels not in names:
        return {name: array for name, array in arrays.items() if name != labels}, arrays[labels]
    path = Path(labels)
    if not path.is_file():
        raise UsageError(f"--labels {labels} is neither a file nor an array of {test}, which has {', '.join(arrays)}")
    check_suffix(path)
    found = load_arrays(path, ["labels"])
    if len(found) != 1:
        raise UsageError(f"{path} has the arrays {', '.join(found)}: labels are one array in a file of their own")
    return arrays, next(iter(found.values()))


def _with_path(sentence: str, model: Path) -> str:
    """What reads the file names it; what works on the network does not know it."""
    return sentence if sentence.startswith(str(model)) else f"{model}: {sentence}"
