# SPDX-License-Identifier: Apache-2.0
"""`loomwork compile`: from a network to a program."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.arch.program_file import write_program
from loomwork.cli.options import ConfigOption
from loomwork.cli.output import check_destination, console, status, write_file, write_json


def compile_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="An int8-quantized network.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.lwb", help="Where the program goes.")],
    config: ConfigOption = "base",
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="REPORT.json", help="Write the per-layer report as JSON.")
    ] = None,
) -> None:
    """Compile a network into a program binary.

    What the accelerator does not execute runs on the host in the same program; the report says which operator and why.

    Example: `loomwork compile net.tflite -o net.lwb --config small --report net.json`
    """
    from loomwork.compiler import driver, report

    check_destination(output, report_file)
    shape = load_config(config)
    with status.status(f"compiling {model.name} for {shape.name}"):
        program = driver.compile_model(model, shape)
    write_file(output, write_program(program))
    if report_file is not None:
        write_json(report_file, program.report)
    console.print(report.summary(program))
    console.print(f"wrote {output}" + (f" and {report_file}" if report_file else ""))
