# SPDX-License-Identifier: Apache-2.0
"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import PRESETS
from loomwork.cli.output import UsageError

ConfigOption = Annotated[
    str,
    typer.Option("--config", "-c", metavar="NAME|FILE", help="A preset (see `loomwork configs`) or a JSON file."),
]
ProgramArgument = Annotated[
    Path, typer.Argument(metavar="PROGRAM.lwb", help="A compiled program (see `loomwork compile`).")
]
LatencyOption = Annotated[int, typer.Option(min=1, max=10_000, help="Cycles from a read address to its data.")]
KeepDeadOption = Annotated[
    bool,
    typer.Option("--keep-dead-channels", help="Execute channels that no output depends on, too, for comparison."),
]

ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=1,3,32,32",
        help="Shape of an input of which an ONNX model leaves dimensions open; may be repeated.",
    ),
]


def parse_shapes(options: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Shapes by the name of the input. Raises UsageError for what is no such shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for option in options or []:
        name, equals, sizes = option.rpartition("=")
        if not equals or not name or not all(size.strip().isdecimal() for size in sizes.split(",")):
            raise UsageError(f"--shape {option}: expected the name of an input and its sizes, such as image=1,3,32,32")
        if name in shapes:
            raise UsageError(f"--shape {option}: input {name} has a shape already")
        shapes[name] = tuple(int(size) for size in sizes.split(","))
    return shapes


def config_files(*names: str) -> list[Path]:
    """Those of the given configurations that are files, not presets."""
    return [Path(name) for name in names if name not in PRESETS]
