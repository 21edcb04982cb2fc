# SPDX-License-Identifier: Apache-2.0
"""`loomwork asic`: table, JSON and page of figures that a stand-in for the synthesis gives, and bad input."""

import json
from pathlib import Path

import pytest

from loomwork.fpga import asic, timing, yosys
from loomwork.fpga.area import UNITS
from loomwork.fpga.asic import Area, Chip, Memory
from loomwork.fpga.hierarchy import WIRING
from loomwork.fpga.timing import SlowestPath
from tests.fpga.round_library import standard_cells


@pytest.fixture
def synthesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part takes 0.02 mm2; the scratchpad two macros of 0.25 mm2 besides. Paths of 4 ns, in the core of 5 ns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(yosys, "find_yosys", lambda: yosys.Yosys(("yosys",), "0.99"))
    monkeypatch.setattr(timing, "find_sta", lambda: timing.Sta("sta", "9.9"))
    folder = tmp_path / "pdk"
    folder.mkdir()
    (folder / "round_typ.lib").write_text(standard_cells())

    def measure(config, yosys, library, sta, *, frequency, report):
        report(f"{config.name} for {frequency}")
        areas = {name: Area(20_000.0, 5_000.0) for name in (*(unit.name for unit in UNITS), WIRING)}
        memory = Area(memories=(Memory(64, 32),))
        if library is not None:
            memory += Area(macros=(("RAM", 2),), macro_area=500_000.0)
        areas["scratchpad"] += memory
        if library is None or sta is None:
            return Chip(areas)
        within = {name: SlowestPath(4.0, f"{name}_a/Q", f"{name}_b/D") for name in areas}
        within["store"] = SlowestPath(4.5, "a", "b")
        typical = {**within, "csr": None, WIRING: SlowestPath(5.0, "load/a_reg/Q", "store/b_reg/D")}
        return Chip(areas, {"typical": typical, "slow": {**within, WIRING: SlowestPath(10.0, "c/Q", "d/D")}})

    monkeypatch.setattr(asic, "measure", measure)


def cells(text: str, name: str) -> list[str]:
    """The cells of a row of the table."""
    line = next(line for line in text.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


# 18 units and the wiring of 0.02 mm2 and the macros: 0.88 mm2. 4 x 4 PEs at 200 MHz: 3.2 GMAC/s.
TYPICAL = "typical: 200 MHz, 3.2 GMAC/s, 3.64 GMAC/s per mm2; slowest path 5.00 ns, from load/a_reg/Q to store/b_reg/D"


def test_with_a_library_the_unit_is_mm2(synthesis, loomwork):
    finished = loomwork("asic", "-c", "tiny", "--liberty", "pdk", "--json", "asic.json")
    assert finished.code == 0
    assert cells(finished.out, "scratchpad") == ["0.020", "0.005", "0.500", "0.520", "250", "250", "2 RAM"]
    assert cells(finished.out, "dma")[4:] == ["222", "222", ""]  # of the slowest in the line
    assert cells(finished.out, "wiring") == ["0.020", "0.005", "0.000", "0.020", "", "", ""]
    assert cells(finished.out, "sum") == ["0.380", "0.095", "0.500", "0.880", "200", "100", "2 RAM"]
    assert TYPICAL in finished.out
    assert "slow: 100 MHz, 1.6 GMAC/s, 1.82 GMAC/s per mm2" in finished.out
    written = json.loads(Path("asic.json").read_text())
    assert (written["yosys"], written["opensta"]) == ("0.99", "9.9")
    assert (written["library"], written["unit"]) == ("round_typ.lib", "um2")
    (result,) = written["results"]
    assert result["config"] == "tiny"
    assert result["units"]["scratchpad"]["macros"] == {"RAM": 2}
    assert result["paths"]["typical"]["store"] == {"delay": 4.5, "start": "a", "end": "b"}
    assert result["paths"]["typical"]["csr"] is None


def test_without_one_it_is_gates(synthesis, loomwork):
    finished = loomwork("asic", "-c", "tiny")
    assert finished.code == 0
    assert cells(finished.out, "sum") == ["380,000", "95,000", "2,048"]
    assert "timing" not in finished.out


def test_without_opensta_the_area_is_there_and_what_is_missing_named(synthesis, loomwork, monkeypatch):
    monkeypatch.setattr(timing, "find_sta", lambda: None)
    finished = loomwork("asic", "-c", "tiny", "--liberty", "pdk", "--markdown", "page.md")
    assert finished.code == 0
    assert cells(finished.out, "sum") == ["0.380", "0.095", "0.500", "0.880", "2 RAM"]
    message = "OpenSTA's `sta` is not on PATH: `apt install opensta` (Debian, Ubuntu)"
    assert f"no timing: {message}" in finished.out
    assert f"No timing: {message}" in Path("page.md").read_text()


def test_the_page_names_the_file_of_a_configuration_so_that_its_command_can_be_run_again(synthesis, loomwork):
    Path("wide.json").write_text('{"base": "tiny", "name": "registered", "deep_pipeline": true}')
    finished = loomwork("asic", "-c", "wide.json", "-c", "small", "--liberty", "pdk", "--markdown", "page.md")
    assert finished.code == 0
    page = Path("page.md").read_text()
    assert "loomwork asic --config wide.json --config small --liberty DIR --markdown docs/asic.md" in page
    assert "\n## registered (4 x 4)\n" in page


def test_a_page_is_written_of_several_configurations(synthesis, loomwork):
    finished = loomwork("asic", "-c", "tiny", "-c", "small", "-c", "tiny", "--liberty", "pdk", "--markdown", "page.md")
    assert finished.code == 0
    page = Path("page.md").read_text()
    assert "loomwork asic --config tiny --config small --liberty DIR --markdown docs/asic.md" in page
    assert "with `round_typ.lib`, for 200 MHz, by\nYosys 0.99 and OpenSTA 9.9." in page
    assert page.count("\n## tiny (4 x 4)\n") == page.count("\n## small (8 x 8)\n") == 1
    assert "| sum | 0.380 | 0.095 | 0.500 | 0.880 | 200 | 100 |\n" in page
    assert f"\n- {TYPICAL}\n- slow: 100 MHz" in page
    assert "Macros: 2 `RAM`.\n" in page
    assert "| store | `a` | `b` | 4.50 |\n" in page


def test_bad_input_is_named(synthesis, loomwork):
    Path("empty").mkdir()
    missing = loomwork("asic", "--liberty", "nowhere")
    assert (missing.code, missing.err.strip()) == (2, "error: there is no folder nowhere")
    empty = loomwork("asic", "--liberty", "empty")
    assert empty.code == 2
    assert "empty has no .lib file with flip-flops" in empty.err
    page = loomwork("asic", "--markdown", "page.md")
    assert page.code == 2
    assert "--markdown needs --liberty" in page.err
    assert not Path("page.md").exists()
