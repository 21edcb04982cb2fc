# SPDX-License-Identifier: Apache-2.0
"""`loomwork compile`: from a network to a program."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.arch.program_file import write_program
from loomwork.cli.options import ConfigOption, KeepDeadOption, ShapeOption, config_files, parse_shapes
from loomwork.cli.output import UsageError, check_destination, console, status, write_file, write_json

_TORCH = ("a PyTorch", "compile the module with loomwork.compiler.torch.compile_module, or export it to ONNX")
_KERAS = ("a Keras", "convert it with tf.lite.TFLiteConverter, or export it to ONNX")
_OTHER_FORMATS = {
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".pb": ("a TensorFlow", "convert it to an int8-quantized .tflite file"),
    ".h5": _KERAS,
    ".keras": _KERAS,
}
"""What files with other suffixes are taken for, unless they are TFLite files inside, and what to do about it."""


def compile_model(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A network: int8-quantized .tflite or .onnx, or float .onnx with data."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.lwb", help="Where the program goes.")],
    config: ConfigOption = "base",
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="REPORT.json", help="Write the per-layer report as JSON.")
    ] = None,
    keep_dead_channels: KeepDeadOption = False,
    shape: ShapeOption = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA.npz|.npy",
            help="Typical inputs with which a float ONNX network is quantized first (`loomwork quantize` says more).",
        ),
    ] = None,
    require_accelerator: Annotated[
        bool,
        typer.Option(
            "--require-accelerator",
            help="Refuse a network of which anything but the conversion of inputs and outputs runs on the host.",
        ),
    ] = False,
) -> None:
    """Compile a network into a program binary.

    What the accelerator does not execute runs on the host in the same program, by tflite-micro or ONNX Runtime; the
    report says which operator and why, and how many cycles each layer will take.

    Example: `loomwork compile net.tflite -o net.lwb --config small --report net.json`

    A float ONNX network: `loomwork compile net.onnx -o net.lwb --calibration images.npz --shape input=1,3,240,320`
    """
    from loomwork.cli.quantize import load_samples
    from loomwork.compiler import driver, report
    from loomwork.compiler.graph import CompileError
    from loomwork.sim.cycles import with_predicted_cycles

    given = [path for path in (calibration,) if path is not None]
    check_destination(output, report_file, inputs=[model, *given, *config_files(config)])
    target = load_config(config)
    shapes = parse_shapes(shape)
    _check_format(model)
    with status.status(f"compiling {model.name} for {target.name}") as line:
        try:
            samples = load_samples(calibration, model) if calibration else None
            program = driver.compile_model(
                model,
                target,
                shapes=shapes,
                calibration=samples,
                progress=lambda step: line.update(f"{model.name}: {step}"),
                require_accelerator=require_accelerator,
                eliminate_dead=not keep_dead_channels,
            )
        except CompileError as error:
            raise UsageError(_with_path(str(error), model)) from error
        program = with_predicted_cycles(program)
    write_file(output, write_program(program))
    if report_file is not None:
        write_json(report_file, program.report)
    console.print(report.summary(program))
    console.print(f"wrote {output}" + (f" and {report_file}" if report_file else ""))


def _check_format(model: Path) -> None:
    from loomwork.compiler.importers.tflite_model import is_tflite

    kind = _OTHER_FORMATS.get(model.suffix.lower())
    if kind is not None and not is_tflite(model.read_bytes()):
        raise UsageError(f"{model} is {kind[0]} file; Loomwork reads .tflite and .onnx files: {kind[1]}")


def _with_path(sentence: str, model: Path) -> str:
    """The compiler knows a network's name; the user knows the file."""
    name = f"{model.stem}: "
    return f"{model}: {sentence.removeprefix(name)}" if sentence.startswith(name) else sentence
