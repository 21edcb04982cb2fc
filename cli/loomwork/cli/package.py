# SPDX-License-Identifier: Apache-2.0
"""`loomwork package`: the core as a folder for designs, packaging tools and firmware."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.cli.options import ConfigOption
from loomwork.cli.output import console, status


def package(
    directory: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder: new, empty, or an unchanged package.")
    ],
    config: ConfigOption = "base",
) -> None:
    """Write a drop-in IP folder: Verilog, FuseSoC core, IP-XACT, Vivado script, documentation, C header and C driver.

    The same configuration always gives the same files. A package that is there already is replaced, but nothing else
    is: a folder with other files, or changed ones, is refused.

    Example: `loomwork package --config small -o build/loomwork_small`
    """
    from loomwork.fpga.package import check_folder, write_package

    shape = load_config(config)
    check_folder(directory)
    with status.status(f"generating {shape.name}"):
        written = write_package(shape, directory)
    console.print(f"wrote {len(written)} files into {directory}; begin with {directory / 'README.md'}")
