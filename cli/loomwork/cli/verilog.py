# SPDX-License-Identifier: Apache-2.0
"""`loomwork verilog`: the core as Verilog."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.cli.options import ConfigOption
from loomwork.cli.output import console, make_folder, status


def verilog(
    directory: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for core.v and core.json.")],
    config: ConfigOption = "base",
) -> None:
    """Write the accelerator as Verilog (core.v) with its description (core.json: ports, registers, hashes).

    The same configuration always gives the same files. The bus ports carry AXI4's standard names.

    Example: `loomwork verilog --config small -o build/small`
    """
    from loomwork.rtl.generate import write_core

    shape = load_config(config)
    with status.status(f"generating {shape.name}"):
        make_folder(directory)
        written = write_core(shape, directory)
    console.print("wrote " + ", ".join(str(path) for path in written))
