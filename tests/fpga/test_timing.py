# SPDX-License-Identifier: Apache-2.0
"""The slowest path: of netlists whose delays are round numbers, and how OpenSTA's words are read."""

from pathlib import Path

import pytest

from loomwork.fpga.timing import HOW_TO_GET, SlowestPath, Sta, find_sta, read_report, slowest_path
from loomwork.fpga.yosys import SynthesisError
from tests.fpga.round_library import macro, standard_cells

UNIT = """\
module unit(clk, i, o);
  input clk, i;
  output o;
  wire a, b, c, d;
  DFF first_reg (.C(clk), .D(i), .Q(a));
  INV u0 (.A(a), .Y(b));
  NAND2 u1 (.A(b), .B(a), .Y(c));
  DFF second_reg (.C(clk), .D(c), .Q(d));
  BUF u2 (.A(d), .Y(o));
endmodule
"""
# Out of one unit, through two inverters of the core, into the other.
CORE = """\
module core(clk, i, o);
  input clk, i;
  output o;
  wire a, b, c;
  unit one (.clk(clk), .i(i), .o(a));
  INV u0 (.A(a), .Y(b));
  INV u1 (.A(b), .Y(c));
  unit two (.clk(clk), .i(c), .o(o));
endmodule
"""
RAM = """\
module unit(clk, address);
  input clk;
  input [5:0] address;
  wire [7:0] data, same;
  ONE memory (.A_CLK(clk), .A_ADDR(address), .A_DIN(same), .A_BM(8'd255), .A_WEN(1'b1), .A_REN(1'b1), .A_MEN(1'b1),
    .A_DLY(1'b1), .A_BIST_EN(1'b0), .A_BIST_DIN(8'd0), .A_DOUT(data));
  BUF u0 (.A(data[3]), .Y(same[3]));
endmodule
"""


@pytest.fixture
def sta() -> Sta:
    found = find_sta()
    if found is None:
        pytest.skip(HOW_TO_GET)
    return found


def path_of(
    sta: Sta, folder: Path, *netlists: str, top: str = "unit", cells: str = "", borders: bool = False
) -> tuple[float, str, str] | None:
    """Delay in ns, rounded to a picosecond, start and end."""
    files: list[Path] = []
    for number, netlist in enumerate(netlists):
        files.append(folder / f"netlist_{number}.v")
        files[-1].write_text(netlist)
    (folder / "cells.lib").write_text(cells or standard_cells())
    (folder / "one.lib").write_text(macro("ONE", 6, 8, "A", 1000, access=20))
    libraries = [folder / "cells.lib", folder / "one.lib"]
    path = slowest_path(sta, files, top, libraries, period=7.0, borders=borders)
    return (round(path.delay, 3), path.start, path.end) if path else None


def test_a_path_is_from_register_to_register_with_setup(sta, tmp_path):
    # Clock to output 10, inverter 1, NAND 3, setup 5.
    assert path_of(sta, tmp_path, UNIT) == (19, "first_reg/Q", "second_reg/D")
    assert path_of(sta, tmp_path, UNIT, cells=standard_cells(slowness=2)) == (38, "first_reg/Q", "second_reg/D")


def test_a_path_crosses_the_borders_of_units(sta, tmp_path):
    # Clock to output 10, buffer 2, inverter 1, buffer 2, setup 5; or NAND 3 and inverter 1. Within a unit it is 19.
    crossing = CORE.replace("INV u1 (.A(b), .Y(c));", "BUF u1 (.A(b), .Y(c));")
    assert path_of(sta, tmp_path, UNIT, crossing, top="core") == (20, "one/second_reg/Q", "two/first_reg/D")
    twice = CORE.replace("INV u0 (", "NAND2 u0 (.B(a), ")
    assert path_of(sta, tmp_path, UNIT, twice, top="core") == (21, "one/second_reg/Q", "two/first_reg/D")


def test_ports_count_only_when_asked_for(sta, tmp_path):
    through = "module unit(clk, i, o);\n  input clk, i;\n  output o;\n  INV u0 (.A(i), .Y(o));\nendmodule\n"
    assert path_of(sta, tmp_path, through) is None
    assert path_of(sta, tmp_path, through, borders=True) == (1, "i", "o")


def test_a_macro_begins_and_ends_paths(sta, tmp_path):
    # Access 20, buffer 2, setup 5.
    assert path_of(sta, tmp_path, RAM) == (27, "memory/A_DOUT[3]", "memory/A_DIN[3]")


def test_a_frequency_is_that_of_the_delay():
    assert SlowestPath(4.0, "a", "b").frequency == 250.0


def test_what_opensta_does_not_know_is_an_error(sta, tmp_path):
    with pytest.raises(SynthesisError, match=r"OpenSTA failed: .*XOR"):
        path_of(sta, tmp_path, UNIT.replace("NAND2", "XOR2"))
    with pytest.raises(SynthesisError, match=r"OpenSTA failed: .*syntax error"):
        path_of(sta, tmp_path, UNIT.replace("endmodule", "the end"))
    with pytest.raises(SynthesisError, match="OpenSTA failed"):
        path_of(sta, tmp_path, UNIT, cells=standard_cells()[:300])


def test_of_a_report_the_slowest_path_is_read_among_other_words():
    text = (
        "Warning: x.tcl, 7 set_input_delay relative to a clock defined on the same port/pin not allowed.\n"
        "loomwork path 1.500000e-01 a_reg/Q b_reg[3]/D\n"
        "loomwork path -2.25 c/Q d/D\n"
        "loomwork done\n"
    )
    assert read_report(text, 5.0) == SlowestPath(7.25, "c/Q", "d/D")
    assert read_report("loomwork done\n", 5.0) is None


def test_a_report_without_an_end_or_with_an_error_is_no_result():
    path = "loomwork path -2.25 c/Q d/D\n"
    with pytest.raises(SynthesisError, match="OpenSTA failed: Killed"):
        read_report(f"{path}Killed\n", 5.0)
    with pytest.raises(SynthesisError, match=r"OpenSTA failed: cannot read file x\.lib"):
        read_report(f"Error: cannot read file x.lib.\n{path}loomwork done\n", 5.0)
    with pytest.raises(SynthesisError, match="OpenSTA failed: no message"):
        read_report("", 5.0)


def test_without_opensta_nothing_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_sta() is None
    script = tmp_path / "sta"
    script.write_text("#!/bin/sh\necho 1.2.3\n")
    script.chmod(0o755)
    assert find_sta() == Sta(str(script), "1.2.3")
    script.write_text("#!/bin/sh\nexit 1\n")
    assert find_sta() is None
