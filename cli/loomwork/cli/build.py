# SPDX-License-Identifier: Apache-2.0
"""`loomwork build`: a bitstream for a board."""

import os
from pathlib import Path
from typing import Annotated

import typer

from loomwork.cli.output import (
    UsageError,
    check_destination,
    console,
    make_folder,
    print_table,
    status,
    write_file,
    write_json,
)


def build(
    board: Annotated[str, typer.Argument(metavar="BOARD", help="ulx3s-85f, tang-nano-20k or icebreaker.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of results; build/BOARD by default."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", metavar="NAME|FILE", help="What to build; by default what fits the board."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Placements to try; the fastest is taken.")] = 1,
    clock: Annotated[
        float | None, typer.Option(metavar="MHZ", min=1, max=1000, help="What it runs at; the board's own by default.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(metavar="KIB", min=4, max=1024, help="Memory for programs and tensors, in block RAM.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=64, help="Placements side by side; one per processor by default.")
    ] = None,
    floorplan: Annotated[
        Path | None,
        typer.Option(
            "--floorplan",
            metavar="FILE.json",
            dir_okay=False,
            help="Sites of multipliers and block RAM: from this file, or made anew and written if there is none.",
        ),
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="PAGE.md", help="Keep the report beside this page of all boards, write it."),
    ] = None,
    allow_slow: Annotated[
        bool, typer.Option("--allow-slow", help="Write a bitstream that misses its clock, too.")
    ] = False,
) -> None:
    """Build the bitstream of a core with memory and a UART for a board, with Yosys and nextpnr.

    Writes the bitstream, config.json (the configuration, for `loomwork compile --config`) and report.json: Fmax of
    each seed, cells of each unit, the critical path, and the slowest path between each two units. Takes minutes; what
    did not change comes from the cache.

    Load the bitstream with openFPGALoader, then run programs on the board with `loomwork run`.

    Example: `loomwork build ulx3s-85f --seeds 4`
    """
    from dataclasses import replace

    from loomwork.arch.config import load_config
    from loomwork.cli.boards_page import write_page
    from loomwork.cli.build_page import tables
    from loomwork.cli.build_progress import SeedProgress
    from loomwork.fpga.boards.catalog import BOARDS
    from loomwork.fpga.build import build as build_bitstream

    if board not in BOARDS:
        raise UsageError(f"no board is called {board!r}; there are {', '.join(BOARDS)}")
    chosen = BOARDS[board]
    if floorplan is not None:
        if chosen.fabric is None:
            raise UsageError(f"{board} has no floorplan: nextpnr places its few blocks well by itself")
        chosen = replace(chosen, floorplan_file=floorplan)
    new_floorplan = floorplan if floorplan is not None and not floorplan.exists() else None
    shape = chosen.config if config is None else load_config(config)
    folder = output if output is not None else Path("build") / board
    make_folder(folder)
    suffix = Path(chosen.family.bitstream).suffix
    files = [folder / f"{board}{suffix}", folder / "report.json", folder / "config.json"]
    check_destination(*files, markdown_file, new_floorplan)
    with SeedProgress(status) as progress:
        result = build_bitstream(
            chosen,
            shape,
            memory_kib=memory or chosen.memory_kib,
            clock_mhz=clock or chosen.clock_mhz,
            seeds=range(1, seeds + 1),
            workers=jobs or os.cpu_count() or 1,
            allow_slow=allow_slow,
            progress=progress,
        )
    write_file(files[0], result.bitstream)
    write_json(files[1], result.to_dict())
    write_json(files[2], shape.to_dict())
    if new_floorplan is not None:
        write_json(new_floorplan, result.netlist.floorplan())
        files.append(new_floorplan)
    if markdown_file is not None:
        write_page(markdown_file, result.to_dict())
    for table in tables(result):
        print_table(table)
    best, path = result.seeds.best, result.seeds.best.path
    console.print(
        f"critical path: {path.logic + path.routing:.2f} ns ({path.logic:.2f} logic in {path.levels} levels, "
        f"{path.routing:.2f} routing), {path.start} to {path.end}"
    )
    verdict = "meets" if result.meets_timing else "MISSES"
    console.print(f"seed {best.seed} {verdict} {result.clock_mhz:g} MHz: {best.fmax:.1f} MHz")
    console.print(f"wrote {', '.join(str(file) for file in files)}")
