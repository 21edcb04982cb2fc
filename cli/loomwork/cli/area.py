# SPDX-License-Identifier: Apache-2.0
"""`loomwork area`: what each unit costs on an FPGA."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.cli.options import config_files
from loomwork.cli.output import check_destination, print_table, status, write_file, write_json


def area(
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", metavar="NAME|FILE", help="Configurations; base by default.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="AREA.json", help="Write the cells of every unit.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="PAGE.md", help="Write the results as a page.")
    ] = None,
    compare_file: Annotated[
        Path | None, typer.Option("--compare", metavar="OLD.json", help="Say what changed since an earlier --json.")
    ] = None,
    savings: Annotated[
        bool, typer.Option("--savings", help="Also measure what is saved by leaving out what may be left out.")
    ] = False,
) -> None:
    """Synthesize every unit of the core by itself for an ECP5 (yosys synth_ecp5) and count its cells.

    LUTs are the LUT4 that logic, carry cells (2 each) and distributed RAM (6 each) occupy; block RAM is 18 kbit.
    Takes minutes the first time; what did not change comes from the cache.

    Example: `loomwork area --config small --json area.json`
    """
    from loomwork.cli import area_page
    from loomwork.fpga.area import measure, variants
    from loomwork.fpga.yosys import find_yosys

    # Each once: a figure is found by the name of its configuration.
    shapes = list({shape.name: shape for shape in map(load_config, config or ["base"])}.values())
    inputs = [*config_files(*config or []), *([compare_file] if compare_file else [])]
    check_destination(json_file, markdown_file, inputs=inputs)
    before = area_page.read_results(compare_file) if compare_file else None
    yosys = find_yosys()
    results: list[area_page.Result] = []
    with status.status("starting Yosys (the first time, the packaged one takes a minute)") as progress:
        for shape in shapes:
            units = measure(shape, yosys, report=progress.update)
            smaller = variants(shape) if savings else {}
            results.append(
                area_page.Result(
                    config=shape.name,
                    rows=shape.rows,
                    cols=shape.cols,
                    units=units,
                    variants={label: measure(less, yosys, report=progress.update) for label, less in smaller.items()},
                )
            )
    for result in results:
        print_table(area_page.table(result))
    if json_file is not None:
        write_json(json_file, area_page.to_json(results, yosys.version))
    if markdown_file is not None:
        page = area_page.markdown(results, yosys.version, before, compare_file)
        write_file(markdown_file, page)
