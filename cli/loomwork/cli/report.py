# SPDX-License-Identifier: Apache-2.0
"""`loomwork report`: a program and its run as a page."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.program_file import read_program
from loomwork.cli.options import LatencyOption, ProgramArgument
from loomwork.cli.output import UsageError, check_destination, console, make_folder, status, write_file
from loomwork.sim.memory import READ_LATENCY


def report(
    program_file: ProgramArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPORT.html", help="Where the page goes.")],
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="STATS.json", help="Cycles and counters, from `loomwork run --json`."),
    ] = None,
    trace_file: Annotated[
        Path | None, typer.Option("--trace", metavar="TRACE.json", help="The timeline, from `loomwork run --trace`.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Measure now: one random input on the RTL, in Verilator.")] = False,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Write the plots as PNG files, too.")
    ] = None,
    latency: LatencyOption = READ_LATENCY,
) -> None:
    """Write a program's report as one HTML page: layers, roofline, scratchpad, and what a run of it took.

    The page needs no other file and no network. Cycles per layer and timeline need a trace or --run; with neither,
    predicted cycles are shown where the compiler knows them.

    Example: `loomwork report net.lwb -o net.html --run --figures figures`
    """
    from loomwork.cli.figures import png
    from loomwork.cli.measurement import measure, read_measurement
    from loomwork.cli.report_data import gather
    from loomwork.cli.report_figures import FIGURES, draw_figures
    from loomwork.cli.report_page import page

    if run and (json_file is not None or trace_file is not None):
        raise UsageError("--run measures anew: give either --run, or --json and --trace")
    inputs = [path for path in (program_file, json_file, trace_file) if path is not None]
    check_destination(output, inputs=inputs)
    program = read_program(program_file)
    # What can be refused is, before the long work.
    data = gather(program, read_measurement(program, json_file, trace_file), name=str(program_file))
    if figures is not None:
        make_folder(figures)
        check_destination(output, *(figures / f"{name}.png" for name in FIGURES), inputs=inputs)
    if run:
        data = gather(program, measure(program, latency=latency, report=status.print), name=str(program_file))
    drawings = draw_figures(data)
    pictures = {} if figures is None else {figures / f"{name}.png": png(draw) for name, draw in drawings.items()}
    write_file(output, page(data, drawings))
    for path, picture in pictures.items():
        write_file(path, picture)
    console.print("wrote " + ", ".join(str(path) for path in (output, *pictures)))
