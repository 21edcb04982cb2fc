# SPDX-License-Identifier: Apache-2.0
"""`loomwork asic`: table and JSON of figures that a stand-in for the synthesis gives, and bad input."""

import json
from pathlib import Path

import pytest

from loomwork.fpga import asic, yosys
from loomwork.fpga.area import UNITS
from loomwork.fpga.asic import Area, Library, Memory


@pytest.fixture
def synthesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit takes 0.02 mm2; the scratchpad two macros of 0.25 mm2 besides."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(yosys, "find_yosys", lambda: yosys.Yosys(("yosys",), "0.99"))

    def measure(config, yosys, library, *, report):
        report(config.name)
        units = {unit.name: Area(20_000.0, 5_000.0) for unit in UNITS}
        memory = Area(memories=(Memory(64, 32, 2),))
        if library is not None:
            memory += Area(macros=(("RAM", 2),), macro_area=500_000.0)
        units["scratchpad"] += memory
        return units

    monkeypatch.setattr(asic, "measure", measure)


def cells(text: str, name: str) -> list[str]:
    """The cells of a row of the table."""
    line = next(line for line in text.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_with_a_library_the_unit_is_mm2(synthesis, loomwork, monkeypatch):
    Path("pdk").mkdir()
    monkeypatch.setattr(asic, "read_library", lambda folder: Library(folder / "cells.lib", frozenset(), ()))
    finished = loomwork("asic", "-c", "tiny", "--liberty", "pdk", "--json", "asic.json")
    assert finished.code == 0
    assert cells(finished.out, "scratchpad") == ["0.020", "0.005", "0.500", "0.520", "2 RAM", "2,048"]
    assert cells(finished.out, "sum")[:4] == ["0.360", "0.090", "0.500", "0.860"]
    written = json.loads(Path("asic.json").read_text())
    assert (written["config"], written["yosys"]) == ("tiny", "0.99")
    assert (written["library"], written["unit"]) == ("cells.lib", "um2")
    assert written["units"]["scratchpad"]["macros"] == {"RAM": 2}


def test_without_one_it_is_gates(synthesis, loomwork):
    finished = loomwork("asic", "-c", "tiny")
    assert finished.code == 0
    assert cells(finished.out, "sum") == ["360,000", "90,000", "2,048"]


def test_bad_folders_are_named(synthesis, loomwork):
    Path("empty").mkdir()
    missing = loomwork("asic", "--liberty", "nowhere")
    assert (missing.code, missing.err.strip()) == (2, "error: there is no folder nowhere")
    empty = loomwork("asic", "--liberty", "empty")
    assert empty.code == 2
    assert "empty has no .lib file with flip-flops" in empty.err
