# SPDX-License-Identifier: Apache-2.0
"""`loomwork area`: table, JSON and page of figures that a stand-in for the synthesis gives."""

import json
from pathlib import Path

import pytest

from loomwork.fpga import area, yosys
from loomwork.fpga.area import UNITS, Cells


@pytest.fixture
def synthesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit costs what its place says; the drain half of it when there is no ADD."""
    monkeypatch.chdir(tmp_path)

    def measure(config, yosys, *, report):
        report(config.name)
        units = {unit.name: Cells(lut4=100 + place, ff=10 * place, dsp=place) for place, unit in enumerate(UNITS)}
        if not config.residual_add:
            units["drain"] = Cells(lut4=50, ff=30, dsp=1)
        units["array"] = Cells(lut4=40, ccu2c=20, dpr=5, ff=1280, dsp=config.macs_per_cycle)
        return units

    monkeypatch.setattr(area, "measure", measure)
    monkeypatch.setattr(yosys, "find_yosys", lambda: yosys.Yosys(("yosys",), "0.99"))


def row(text: str, name: str) -> list[str]:
    """The cells of the first line of a Markdown table that begins with a name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_page_shows_units_sum_and_share(synthesis, loomwork):
    assert loomwork("area", "-c", "tiny", "--markdown", "page.md").code == 0
    page = Path("page.md").read_text()
    assert "loomwork area --config tiny --markdown docs/area.md\n" in page
    assert "Yosys 0.99" in page
    assert row(page, "array") == ["110", "40", "20", "5", "1,280", "16", "0"]
    assert row(page, "– one of 16 PEs") == ["6.9", "2.5", "1.2", "0.3", "80.0", "1.0", "0.0"]
    assert row(page, "feed") == ["101", "101", "0", "0", "10", "1", "0"]
    assert row(page, "dma") == ["645", "645", "0", "0", "450", "45", "0"]
    # 17 units of 100 + place, and the array.
    assert row(page, "sum")[:2] == [f"{1700 + 153 + 110:,}", f"{1700 + 153 + 40:,}"]
    assert row(page, "sum")[4:] == [f"{1530 + 1280:,}", str(153 + 16), "0"]
    assert row(page, "of an LFE5U-85F") == ["2%", "", "", "", "3%", "108%", "0%"]
    assert "saves" not in page
    assert "Before" not in page


def test_savings_and_comparison(synthesis, loomwork):
    assert loomwork("area", "-c", "tiny", "--json", "old.json").code == 0
    old = json.loads(Path("old.json").read_text())
    assert old["yosys"] == "0.99"
    (result,) = old["results"]
    assert (result["config"], result["rows"], result["cols"], result["variants"]) == ("tiny", 4, 4, {})
    assert set(result["units"]) == {unit.name for unit in UNITS}
    assert result["units"]["feed"] == {"lut4": 101, "ccu2c": 0, "dpr": 0, "ff": 10, "dsp": 1, "bram": 0}
    result["units"]["feed"] |= {"lut4": 1101, "bram": 2}
    Path("old.json").write_text(json.dumps(old))

    options = ("--savings", "--compare", "old.json", "--markdown", "page.md")
    finished = loomwork("area", "-c", "tiny", "-c", "formal", "-c", "tiny", *options)
    assert finished.code == 0
    page = Path("page.md").read_text()
    assert "loomwork area --config tiny --config formal --savings --compare old.json --markdown docs/area.md\n" in page
    assert page.count("## tiny\n") == page.count("Before and after") == 1
    assert row(page, "without `residual_add`") == ["-53", "0", "-2", "0"]
    assert row(page, "without `depthwise`") == ["0"] * 4
    compared = page.split("Before and after", 1)[1]
    assert row(compared, "feed") == ["1,101 → 101", "10 → 10", "1 → 1", "2 → 0"]
    assert row(compared, "sum")[0] == "2,963 → 1,963"
    assert "without residual_add" in finished.out


def test_a_file_of_something_else_is_refused_before_the_long_work(synthesis, loomwork):
    for text in (
        "{",
        "[]",
        '{"results": [{"config": "tiny"}]}',
        '{"results": [{"config": "a", "rows": 1, "cols": 1, "units": {"x": {"lut": 3}}, "variants": {}}]}',
    ):
        Path("old.json").write_text(text)
        finished = loomwork("area", "-c", "tiny", "--compare", "old.json")
        assert (finished.code, finished.out) == (2, "")
        assert finished.err == "error: old.json does not hold areas, as `loomwork area --json` writes them\n"


def test_the_old_figures_survive(synthesis, loomwork):
    loomwork("area", "-c", "tiny", "--json", "old.json")
    finished = loomwork("area", "-c", "tiny", "--compare", "old.json", "--json", "old.json")
    assert finished.code == 2
    assert "it is the same file as an input" in finished.err


def test_without_a_yosys_one_sentence_says_so(synthesis, loomwork, monkeypatch: pytest.MonkeyPatch):
    def find_yosys():
        raise yosys.SynthesisError("no Yosys was found: install one")

    monkeypatch.setattr(yosys, "find_yosys", find_yosys)
    finished = loomwork("area", "-c", "tiny")
    assert (finished.code, finished.err) == (2, "error: no Yosys was found: install one\n")
