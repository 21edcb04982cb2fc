# SPDX-License-Identifier: Apache-2.0
"""`loomwork bench`: real networks on the RTL."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from loomwork.arch.config import load_config
from loomwork.cli.options import LatencyOption, config_files
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_file, write_json
from loomwork.sim.memory import READ_LATENCY

STANDARD_OUTPUT = Path("-")
DEFAULT_MODELS = Path("../shared/models")


class BenchCommand(TyperCommand):
    """`--json` without a file stands for standard output."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `-` behind a `--json` that no file follows."""
        given: list[str] = []
        for argument, following in pairwise([*args, "--"]):
            given.append(argument)
            if argument == "--json" and following.startswith("-") and following != str(STANDARD_OUTPUT):
                given.append(str(STANDARD_OUTPUT))
        return super().parse_args(ctx, given)


def bench(
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", metavar="NAME|FILE", help="Configurations; base by default.")
    ] = None,
    models: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder searched for .tflite networks.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="[BENCH.json]", help="Write the results; without a file, instead of the table."),
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="PAGE.md", help="Write the results as a page.")
    ] = None,
    record_file: Annotated[
        Path | None, typer.Option("--record", metavar="CYCLES.json", help="Put the cycles into a file of records.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Inputs per network; large ones get one.")] = 2,
    select: Annotated[
        list[str] | None, typer.Option("-k", metavar="TEXT", help="Only networks whose name has this, or one of these.")
    ] = None,
    latency: LatencyOption = READ_LATENCY,
) -> None:
    """Compile the networks that are there, run them on the RTL, compare every bit with tflite-micro.

    Prints cycles from start to done beside the bound max(MACs / MACs per cycle, weight bytes / bus bytes), and bytes
    moved beside the compulsory ones: weights, inputs and outputs once.
    Networks are looked for in --models, else $LOOMWORK_MODELS, else ../shared/models; `resnet50_shaped` comes along.
    Exit code 1 when a bit differs.

    Example: `loomwork bench --config small --config base --json bench.json`
    """
    from loomwork.cli import benchmark, benchmark_page
    from loomwork.cli.benchmark_networks import find_networks

    shapes = [load_config(name) for name in config or ["base"]]
    folder = _models(models)
    sources = [] if folder is None else sorted(folder.rglob("*.tflite"))
    if folder is not None and not sources:
        raise UsageError(f"no .tflite network found in {folder}")
    networks = find_networks(folder, select or [])
    if not networks:
        place = "what comes along" if folder is None else folder
        raise UsageError(f"no network in {place} has {' or '.join(map(repr, select or []))} in its name")
    to_console = json_file == STANDARD_OUTPUT
    check_destination(
        None if to_console else json_file, markdown_file, record_file, inputs=[*sources, *config_files(*config or [])]
    )
    if record_file is not None:
        benchmark_page.record(record_file, [], latency)  # whether it can be put in, before the long work
    rows = benchmark.measure_all(networks, shapes, images=images, latency=latency)
    if to_console:
        console.print(json.dumps({"latency": latency, "results": rows}, indent=2))
    else:
        print_table(benchmark_page.table(rows))
    for row in rows:
        for what in ("refused", "failed"):
            if what in row:
                (status if to_console else console).print(f"{what}: {row['name']} on {row['config']}: {row[what]}")
    if json_file is not None and not to_console:
        write_json(json_file, {"latency": latency, "results": rows})
    if markdown_file is not None:
        write_file(markdown_file, benchmark_page.markdown(rows, latency))
    if any(row["exact"] is False for row in rows):
        raise typer.Exit(1)
    if record_file is not None:
        write_json(record_file, benchmark_page.record(record_file, rows, latency))


def _models(given: Path | None) -> Path | None:
    """The folder to search; None when nobody named one and there is none at the usual place."""
    folder = given or Path(os.environ.get("LOOMWORK_MODELS") or DEFAULT_MODELS)
    if folder.is_dir():
        return folder
    if folder == DEFAULT_MODELS:
        status.print(f"there is no folder {folder}: only what comes along is measured; name a folder with --models")
        return None
    raise UsageError(f"there is no folder {folder}; name one with --models or $LOOMWORK_MODELS")
