# SPDX-License-Identifier: Apache-2.0
"""`loomwork build` and `loomwork run --backend board`: what they make, and what they refuse."""

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loomwork.arch.config import TINY, Config
from loomwork.arch.program_file import write_program
from loomwork.cli.boards_page import boards_page, read_records, write_page
from loomwork.fpga import build as build_module
from loomwork.fpga import simulated_board
from loomwork.fpga.boards.board import Board, Resources
from loomwork.fpga.boards.catalog import ICEBREAKER, ULX3S_85F
from loomwork.fpga.place_route import CriticalPath, Routed, Seeds
from loomwork.fpga.simulated_board import MEMORY_KIB, SimulatedBoard
from loomwork.fpga.synthesis import Netlist
from loomwork.fpga.tools import Tool
from loomwork.fpga.unit_paths import UnitPath
from tests.models import CHECKOUT
from tests.programs import copy_program

# A design that is made for a fake synthesis is never used.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Find what was never used at once, where it is ignored, and not in the midst of some other test."""
    yield
    gc.collect()


# run --backend board


def test_a_simulated_board_gives_what_the_golden_model_gives(workspace: Path, loomwork):
    finished = loomwork(
        *("run", "copy.lwb", "-i", "x.npy", "-o", "y.npy", "--backend", "board", "--port", "simulation"),
        *("--json", "stats.json"),
    )
    assert (finished.code, finished.out.splitlines()[0]) == (0, "wrote y.npy: y [6, 3, 5, 1]")
    assert np.array_equal(np.load("y.npy"), np.load("x.npy"))
    statistics = json.loads(Path("stats.json").read_text())
    assert statistics["backend"] == "board"
    assert len(set(statistics["cycles_per_image"])) == 1


def test_the_simulated_board_is_the_one_that_the_program_is_made_for(
    workspace: Path, loomwork, monkeypatch: pytest.MonkeyPatch
):
    simulated: list[tuple[str, int, bool]] = []

    class Watched(SimulatedBoard):
        def __init__(self, config: Config, *, memory_kib: int, compact: bool, **others: Any) -> None:
            simulated.append((config.name, memory_kib, compact))
            super().__init__(config, memory_kib=memory_kib, compact=compact, **others)

    monkeypatch.setattr(simulated_board, "SimulatedBoard", Watched)
    renamed = replace(ICEBREAKER.config, name="renamed")
    Path("icebreaker.lwb").write_bytes(write_program(copy_program(renamed)))
    for name in ("icebreaker", "copy"):
        arguments = (f"{name}.lwb", "-i", "x.npy", "-o", f"{name}.npy", "--backend", "board", "--port", "simulation")
        assert loomwork("run", *arguments).code == 0
        assert np.array_equal(np.load(f"{name}.npy"), np.load("x.npy"))
    assert simulated == [("renamed", ICEBREAKER.memory_kib, True), ("tiny", MEMORY_KIB, False)]


@pytest.mark.parametrize(
    "options", [("--backend", "board"), ("--port", "x"), ("--backend", "verilator", "--port", "x")]
)
def test_a_board_and_a_port_go_together(options: tuple[str, ...], workspace: Path, loomwork):
    finished = loomwork("run", "copy.lwb", "-i", "x.npy", "-o", "y.npy", *options)
    assert finished.code == 2
    assert finished.err == "error: --backend board needs --port, and no other backend has one\n"
    assert not Path("y.npy").exists()


def test_a_port_that_is_not_there_is_told_and_nothing_is_written(workspace: Path, loomwork):
    finished = loomwork("run", "copy.lwb", "-i", "x.npy", "-o", "y.npy", "--backend", "board", "--port", "/dev/nothing")
    assert finished.code == 2
    assert "error: copy.lwb: the port /dev/nothing cannot be opened" in finished.err
    assert not Path("y.npy").exists()


# build


class FakeTools:
    """Stands for synthesis, placement and packing: what they would give, and whether they were asked."""

    def __init__(self, folder: Path, fmax: list[float]) -> None:
        self.called: list[str] = []
        self._folder, self._fmax = folder, fmax
        self.floorplan: dict[str, str] = {}

    def synthesize(self, board: Board, *_: object, report) -> Netlist:
        self.called.append("synthesize")
        self.floorplan = board.floorplan()
        report("synthesis")
        return Netlist(
            folder=self._folder, units={"array": Resources(luts=10, multipliers=16), "rest": Resources(luts=5)}
        )

    def place(self, *_: object, workers: int, report) -> Seeds:
        self.called.append("place")
        path = CriticalPath(start="a", end="b", logic=2.0, routing=5.5, levels=4)
        unit_paths = [
            UnitPath(
                from_unit="drain", to_unit=f"unit {place}", delay=7.5 - place / 4, ends=40 - place, start="a", end="b"
            )
            for place in range(12)
        ]
        routed = []
        for seed, fmax in enumerate(self._fmax, 1):
            report(seed, f"{fmax:.1f} MHz")
            utilization = {"LUT": (1, 2)}
            routed.append(
                Routed(
                    seed=seed,
                    fmax=fmax,
                    path=path,
                    unit_paths=unit_paths,
                    utilization=utilization,
                    folder=self._folder,
                )
            )
        return Seeds(routed, {9: "ERROR: no room"})


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    tools = FakeTools(tmp_path, [118.25, 131.5, 124.0])
    monkeypatch.setattr(build_module, "find_tool", lambda name: Tool(name, (name,), f"{name} 1.0"))
    monkeypatch.setattr(build_module, "synthesize", tools.synthesize)
    monkeypatch.setattr(build_module, "place_and_route", tools.place)
    monkeypatch.setattr(build_module, "pack", lambda board, packer, routed: b"bits of seed %d" % routed.seed)
    return tools


def test_a_build_gives_bitstream_report_and_configuration(workspace: Path, fake: FakeTools, loomwork):
    finished = loomwork("build", "ulx3s-85f", "-c", "tiny", "--seeds", 3, "-o", "made")
    assert finished.code == 0
    assert Path("made/ulx3s-85f.bit").read_bytes() == b"bits of seed 2"
    assert json.loads(Path("made/config.json").read_text()) == TINY.to_dict()
    report = json.loads(Path("made/report.json").read_text())
    assert report["unit_paths"][11]["to_unit"] == "unit 11"
    assert "unit 9 " in finished.out
    assert "unit 10 " not in finished.out
    assert report["fmax_mhz"] == {
        "best": 131.5,
        "median": 124.0,
        "worst": 118.25,
        "seeds": {"1": 118.25, "2": 131.5, "3": 124.0},
        "failed": {"9": "ERROR: no room"},
    }
    assert report["total"] == {"luts": 15, "registers": 0, "multipliers": 16, "blocks": 0}
    assert report["meets_timing"] is True
    assert "critical path: 7.50 ns (2.00 logic in 4 levels, 5.50 routing), a to b" in finished.out
    assert "seed 2 meets 100 MHz: 131.5 MHz" in finished.out
    assert "seed 3: 124.0 MHz" in finished.err


def test_a_floorplan_is_written_once_and_taken_from_then_on(workspace: Path, tmp_path: Path, fake: FakeTools, loomwork):
    assert len(ULX3S_85F.floorplan()) > 200
    cells = {"b": {"attributes": {"BEL": "X2/Y2"}}, "a": {"attributes": {"BEL": "X1/Y1"}}, "lut": {"attributes": {}}}
    (tmp_path / "netlist.json").write_text(json.dumps({"modules": {"top": {"cells": cells}}}))
    arguments = ("build", "ulx3s-85f", "-c", "tiny", "-o", "made", "--floorplan", "sites.json")
    finished = loomwork(*arguments)
    assert finished.code == 0
    assert "sites.json" in finished.out
    assert fake.floorplan == {}
    assert json.loads(Path("sites.json").read_text()) == {"a": "X1/Y1", "b": "X2/Y2"}
    Path("sites.json").write_text('{"a": "X3/Y3"}')
    assert loomwork(*arguments).code == 0
    assert fake.floorplan == {"a": "X3/Y3"}
    assert Path("sites.json").read_text() == '{"a": "X3/Y3"}'


@pytest.mark.parametrize(
    ("text", "message"), [("{", "sites.json is no JSON"), ('{"a": 1}', "sites.json does not say the site of each cell")]
)
def test_a_file_that_is_no_floorplan_is_told(text: str, message: str, workspace: Path, fake: FakeTools, loomwork):
    Path("sites.json").write_text(text)
    finished = loomwork("build", "ulx3s-85f", "-c", "tiny", "-o", "made", "--floorplan", "sites.json")
    assert finished.code == 2
    assert message in finished.err
    assert fake.called == [], "told before the work begins"
    assert Path("sites.json").read_text() == text


def test_a_folder_is_no_floorplan(workspace: Path, fake: FakeTools, loomwork):
    Path("sites").mkdir()
    finished = loomwork("build", "ulx3s-85f", "-c", "tiny", "-o", "made", "--floorplan", "sites")
    assert finished.code == 2
    assert "is a directory" in finished.err
    assert fake.called == []


def test_a_board_without_floorplan_takes_none(workspace: Path, fake: FakeTools, loomwork):
    finished = loomwork("build", "icebreaker", "--floorplan", "sites.json")
    assert finished.code == 2
    assert "icebreaker has no floorplan" in finished.err
    assert fake.called == []
    assert not Path("sites.json").exists()


def test_a_design_that_is_too_slow_is_an_error_unless_that_is_allowed(workspace: Path, fake: FakeTools, loomwork):
    finished = loomwork("build", "ulx3s-85f", "-c", "tiny", "--clock", 150, "-o", "made")
    assert finished.code == 2
    assert (
        "error: the design misses 150 MHz: the best of 1 seeds reaches 131.5 MHz, limited by the path from a to b"
        in (finished.err)
    )
    assert not list(Path("made").iterdir())
    finished = loomwork("build", "ulx3s-85f", "-c", "tiny", "--clock", 150, "-o", "made", "--allow-slow")
    assert finished.code == 0
    assert "seed 2 MISSES 150 MHz: 131.5 MHz" in finished.out
    assert json.loads(Path("made/report.json").read_text())["meets_timing"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no board is called 'nothing'; there are ulx3s-85f, tang-nano-20k, icebreaker"),
        (
            ("icebreaker", "-c", "nano", "--memory", "64"),
            "iCEBreaker with an iCE40UP5K cannot hold 'nano': scratchpad, ",
        ),
        (("icebreaker", "-c", "mid"), "a compact core has 4 x 4 or 8 x 8 PEs, not 16 x 8"),
        (("tang-nano-20k", "--memory", "64"), "Sipeed Tang Nano 20K with a Gowin GW2AR-18 cannot hold 'tang_nano': it"),
        (("ulx3s-85f", "-c", "large"), "ULX3S with an ECP5 LFE5U-85F cannot hold 'large': it would take"),
        (("ulx3s-85f", "--clock", "999"), "the PLL cannot make 999 MHz from 25 MHz"),
        (("ulx3s-85f", "-c", "nothing"), "no preset and no file is called 'nothing'"),
        (("ulx3s-85f", "-c", "formal"), "bus_bytes must be at least 4 on a board, not 2"),
    ],
)
def test_what_cannot_be_built_is_refused_before_synthesis(
    arguments: tuple[str, ...], message: str, workspace: Path, fake: FakeTools, loomwork
):
    finished = loomwork("build", *arguments, "-o", "made")
    assert finished.code == 2
    assert f"error: {message}" in finished.err
    assert fake.called == []
    assert not Path("made").exists() or not list(Path("made").iterdir())


def test_the_page_holds_every_board_that_was_built(workspace: Path, fake: FakeTools, loomwork):
    assert loomwork("build", "ulx3s-85f", "-c", "tiny", "-o", "made", "--markdown", "fpga.md").code == 0
    text = Path("fpga.md").read_text()
    assert f"## {ULX3S_85F.title}" in text
    assert "`loomwork build ulx3s-85f --config tiny --seeds 4`: LFE5U-85F-6BG381C, 4 x 4 array" in text
    assert "| ulx3s-85f | 4 x 4 | 100 | 124.0 | 131.5 | 118.2 | 3 |" in text
    report = json.loads(Path("made/report.json").read_text())
    write_page(Path("fpga.md"), {**report, "board": "tang-nano-20k"})
    assert Path("fpga.md").read_text().count("Critical path: 7.50 ns, of which 2.00 ns logic in 4 levels") == 2
    assert "`loomwork build icebreaker` has not been run to its end for this page." in Path("fpga.md").read_text()


def test_the_page_in_the_documentation_is_that_of_its_reports():
    page = CHECKOUT / "docs/fpga.md"
    assert page.read_text() == boards_page(read_records(page))
