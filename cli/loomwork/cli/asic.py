# SPDX-License-Identifier: Apache-2.0
"""`loomwork asic`: what each unit costs on a chip, and how fast it is."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.cli.options import config_files
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_file, write_json


def asic(
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", metavar="NAME|FILE", help="Configurations; base by default.")
    ] = None,
    liberty: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of .lib files: standard cells, SRAM macros.")
    ] = None,
    frequency: Annotated[
        float, typer.Option("--mhz", metavar="MHZ", min=1, help="Frequency to synthesize for, at the typical corner.")
    ] = 200.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="ASIC.json", help="Write area and slowest path of every unit.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="PAGE.md", help="Write the results as a page; needs --liberty.")
    ] = None,
) -> None:
    """Synthesize every unit of the core by itself for a chip, before layout: area, and how fast the clock may be.

    With --liberty: standard cells of that library in mm2, memories of 64 words or more as grids of its SRAM macros, and
    timing by OpenSTA (`apt install opensta`) at the typical and the slow corner. Without: gate equivalents
    (transistors / 4), memories as bits. Takes minutes the first time; what did not change comes from the cache.

    Example: `loomwork asic --config small --liberty ../shared/pdk/ihp-sg13g2`
    """
    from loomwork.cli import asic_page
    from loomwork.fpga.asic import measure
    from loomwork.fpga.liberty import read_library
    from loomwork.fpga.timing import HOW_TO_GET, find_sta
    from loomwork.fpga.yosys import find_yosys

    # Each once: a figure is found by the name of its configuration.
    loaded = [(load_config(argument), argument) for argument in config or ["base"]]
    shapes = {shape.name: (shape, argument) for shape, argument in loaded}
    if liberty is not None and not liberty.is_dir():
        raise UsageError(f"there is no folder {liberty}")
    if markdown_file is not None and liberty is None:
        raise UsageError("--markdown needs --liberty: the page is of areas in mm2 and of timing")
    check_destination(json_file, markdown_file, inputs=config_files(*config or []))
    library = read_library(liberty) if liberty else None
    yosys, sta = find_yosys(), find_sta()
    results: list[asic_page.Result] = []
    with status.status("starting Yosys (the first time, the packaged one takes a minute)") as progress:
        for shape, argument in shapes.values():
            chip = measure(shape, yosys, library, sta, frequency=frequency, report=progress.update)
            results.append(asic_page.Result(shape, chip, argument))
    run = asic_page.Run(yosys.version, sta.version if sta else None, library, frequency)
    for result in results:
        print_table(asic_page.table(result, run))
        for line in asic_page.summary(result):
            console.print(line)
    if library is not None and sta is None:
        console.print(f"no timing: {HOW_TO_GET}")
    if json_file is not None:
        write_json(json_file, asic_page.to_json(results, run))
    if markdown_file is not None:
        write_file(markdown_file, asic_page.markdown(results, run))
