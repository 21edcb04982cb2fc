# SPDX-License-Identifier: Apache-2.0
"""`loomwork compile`: from a network to a program."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.arch.program_file import write_program
from loomwork.cli.options import ConfigOption, KeepDeadOption, config_files
from loomwork.cli.output import UsageError, check_destination, console, status, write_file, write_json

_OTHER_FORMATS = {
    ".onnx": "an ONNX",
    ".pt": "a PyTorch",
    ".pth": "a PyTorch",
    ".pb": "a TensorFlow",
    ".h5": "a Keras",
    ".keras": "a Keras",
}
"""What files with other suffixes are taken for, unless they are TFLite files inside."""


def compile_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="An int8-quantized network.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.lwb", help="Where the program goes.")],
    config: ConfigOption = "base",
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="REPORT.json", help="Write the per-layer report as JSON.")
    ] = None,
    keep_dead_channels: KeepDeadOption = False,
) -> None:
    """Compile a network into a program binary.

    What the accelerator does not execute runs on the host in the same program; the report says which operator and why,
    and how many cycles each layer will take.

    Example: `loomwork compile net.tflite -o net.lwb --config small --report net.json`
    """
    from loomwork.compiler import driver, report
    from loomwork.compiler.graph import CompileError
    from loomwork.sim.cycles import with_predicted_cycles

    check_destination(output, report_file, inputs=[model, *config_files(config)])
    shape = load_config(config)
    _check_format(model)
    with status.status(f"compiling {model.name} for {shape.name}"):
        try:
            program = driver.compile_model(model, shape, eliminate_dead=not keep_dead_channels)
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
        raise UsageError(f"{model} is {kind} file; Loomwork reads int8-quantized .tflite files: convert it first")


def _with_path(sentence: str, model: Path) -> str:
    """The compiler knows a network's name; the user knows the file."""
    name = f"{model.stem}: "
    return f"{model}: {sentence.removeprefix(name)}" if sentence.startswith(name) else sentence
