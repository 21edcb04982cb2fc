# SPDX-License-Identifier: Apache-2.0
"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    str,
    typer.Option("--config", "-c", metavar="NAME|FILE", help="A preset (see `loomwork configs`) or a JSON file."),
]
ProgramArgument = Annotated[
    Path, typer.Argument(metavar="PROGRAM.lwb", help="A compiled program (see `loomwork compile`).")
]
LatencyOption = Annotated[int, typer.Option(min=1, max=10_000, help="Cycles from a read address to its data.")]
