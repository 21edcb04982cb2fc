# SPDX-License-Identifier: Apache-2.0
"""`loomwork bench`: real networks on the RTL."""

import os
from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.cli.options import KeepDeadOption, LatencyOption, config_files
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_file, write_json
from loomwork.sim.memory import READ_LATENCY


def bench(
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", metavar="NAME|FILE", help="Configurations; base by default.")
    ] = None,
    models: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder searched for .tflite networks.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="BENCH.json", help="Write the results.")] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="PAGE.md", help="Write the results as a page.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Inputs per network.")] = 2,
    select: Annotated[str | None, typer.Option("-k", metavar="TEXT", help="Only networks whose name has this.")] = None,
    latency: LatencyOption = READ_LATENCY,
    keep_dead_channels: KeepDeadOption = False,
) -> None:
    """Compile the networks that are there, run them on the RTL, compare every bit with tflite-micro.

    Prints cycles from start to done, the bound max(executed MACs / MACs per cycle, weight bytes / bus bytes), and the
    utilization: MACs of the network, executed or dead, per cycle and MAC unit.
    Networks are looked for in --models, else $LOOMWORK_MODELS, else ../shared/models. Exit code 1 when a bit differs.

    Example: `loomwork bench --config small --config base --json bench.json`
    """
    from loomwork.cli.benchmark import find_models, markdown, measure, table

    shapes = [load_config(name) for name in config or ["base"]]
    folder = models or Path(os.environ.get("LOOMWORK_MODELS", "../shared/models"))
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name one with --models or $LOOMWORK_MODELS")
    found = [path for path in find_models(folder) if select is None or select in path.name]
    if not found:
        raise UsageError(f"no .tflite network found in {folder}" + (f" with {select!r} in its name" if select else ""))
    check_destination(json_file, markdown_file, inputs=[*found, *config_files(*config or [])])
    rows = []
    for shape in shapes:
        for path in found:
            with status.status(f"{path.stem} on {shape.name}"):
                rows.append(
                    measure(
                        path,
                        shape,
                        images=images,
                        latency=latency,
                        eliminate_dead=not keep_dead_channels,
                        report=status.print,
                    )
                )
    print_table(table(rows))
    for row in rows:
        if "refused" in row:
            console.print(f"refused: {row['network']} on {row['config']}: {row['refused']}")
    if json_file is not None:
        write_json(json_file, {"latency": latency, "results": rows})
    if markdown_file is not None:
        write_file(markdown_file, markdown(rows, latency))
    if any(row["exact"] is False for row in rows):
        raise typer.Exit(1)
