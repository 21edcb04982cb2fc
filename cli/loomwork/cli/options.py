# SPDX-License-Identifier: Apache-2.0
"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import PRESETS

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


def config_files(*names: str) -> list[Path]:
    """Those of the given configurations that are files, not presets."""
    return [Path(name) for name in names if name not in PRESETS]
