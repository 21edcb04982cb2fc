# SPDX-License-Identifier: Apache-2.0
"""`loomwork asic`: what each unit costs on a chip."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from loomwork.arch.config import Config, load_config
from loomwork.cli.options import config_files
from loomwork.cli.output import UsageError, check_destination, print_table, status, write_json

if TYPE_CHECKING:
    from loomwork.fpga.asic import Area, Library


def asic(
    config: Annotated[str, typer.Option("--config", "-c", metavar="NAME|FILE", help="Configuration.")] = "base",
    liberty: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of .lib files: standard cells, SRAM macros.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="ASIC.json", help="Write the area of every unit.")
    ] = None,
) -> None:
    """Synthesize every unit of the core by itself for a chip and add up its area, before layout.

    With --liberty: standard cells of that library in mm2, memories of 32 words or more as a grid of the SRAM macros
    that take the least area. Without: gate equivalents (transistors / 4), memories as bits. No timing.

    Example: `loomwork asic --config small --liberty ../shared/pdk/ihp-sg13g2`
    """
    from loomwork.fpga.asic import measure, read_library
    from loomwork.fpga.yosys import find_yosys

    shape = load_config(config)
    if liberty is not None and not liberty.is_dir():
        raise UsageError(f"there is no folder {liberty}")
    check_destination(json_file, inputs=config_files(config))
    library = read_library(liberty) if liberty else None
    yosys = find_yosys()
    with status.status("starting Yosys (the first time, the packaged one takes a minute)") as progress:
        units = measure(shape, yosys, library, report=progress.update)
    print_table(table(shape, units, library))
    if json_file is not None:
        write_json(json_file, to_json(shape, units, library, yosys.version))


def table(config: Config, units: Mapping[str, "Area"], library: "Library | None") -> Table:
    """The area of each group of units, and their sum."""
    from loomwork.fpga.asic import by_group, total

    made = Table("unit", title=f"{config.name} ({config.rows} x {config.cols})", title_justify="left")
    columns = (
        ("cells, mm2", "of these FF", "macros, mm2", "sum, mm2", "macros") if library else ("gates", "of these FF")
    )
    for heading in (*columns, "bits in memories"):
        made.add_column(heading, justify="right")
    groups = by_group(units)
    for name, area in {**groups, "sum": total(list(groups.values()))}.items():
        if library:
            figures = [_mm2(area.logic), _mm2(area.registers), _mm2(area.macro_area), _mm2(area.whole)]
            figures.append("\n".join(f"{count} {macro}" for macro, count in area.macros))
        else:
            figures = [f"{area.logic:,.0f}", f"{area.registers:,.0f}"]
        made.add_row(name, *figures, f"{area.bits:,}")
    return made


def to_json(config: Config, units: Mapping[str, "Area"], library: "Library | None", version: str) -> dict[str, Any]:
    """The area of every unit, for other programs."""
    return {
        "config": config.name,
        "yosys": version,
        "library": library.cells.name if library else None,
        "unit": "um2" if library else "gate equivalents",
        "units": {name: {**asdict(area), "macros": dict(area.macros)} for name, area in units.items()},
    }


def _mm2(square_micrometres: float) -> str:
    return f"{square_micrometres / 1e6:.3f}"
