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
        "--shape", metavar="NAME=N,N,...", help="Shape of an input that an ONNX model leaves open; may be given often."
    ),
]


def parse_shapes(given: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Shapes by the name of the input. Raises UsageError for what is no such shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given or []:
        name, _, numbers = text.rpartition("=")
        try:
            sizes = tuple(int(number) for number in numbers.replace("x", ",").split(","))
        except ValueError:
            sizes = ()
        if not name or not sizes or min(sizes) < 1:
            raise UsageError(f"--shape must look like input=1,3,224,224, not {text!r}")
        if name in shapes:
            raise UsageError(f"--shape gives {name!r} twice")
        shapes[name] = sizes
    return shapes


def config_files(*names: str) -> list[Path]:
    """Those of the given configurations that are files, not presets."""
    return [Path(name) for name in names if name not in PRESETS]
