# SPDX-License-Identifier: Apache-2.0
"""Memories made of macros: they behave as the memory does, on the macros that fit."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from amaranth.back import rtlil, verilog
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.fpga import asic
from loomwork.fpga.asic import Part, synthesize
from loomwork.fpga.liberty import Library, Macro, read_library
from loomwork.fpga.macros import memory_library, usable, wrapper
from loomwork.fpga.yosys import SynthesisError, find_yosys
from loomwork.sim.toolchain import verilator
from tests.fpga.round_library import CELLS_VERILOG, macro, macro_verilog, standard_cells

PERIOD = 100.0


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asic, "cache_directory", lambda: tmp_path / "cache")


class Storage(Component):
    """A memory of one read and one write port. exclusive: reads only when nothing is written, at the same address."""

    def __init__(self, words: int, width: int, granularity: int, *, exclusive: bool = False) -> None:
        self.words, self.width, self.granularity, self._exclusive = words, width, granularity, exclusive
        super().__init__(
            {
                "write_address": In(range(words)),
                "data": In(width),
                "enable": In(width // granularity),
                "read_address": In(range(words)),
                "read_enable": In(1),
                "read": Out(width),
            },
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.words, init=[])
        write, read = memory.write_port(granularity=self.granularity), memory.read_port()
        writes = Signal()
        m.d.comb += [
            writes.eq(self.enable.any()),
            write.addr.eq(self.write_address),
            write.data.eq(self.data),
            write.en.eq(self.enable),
            read.addr.eq(self.write_address if self._exclusive else self.read_address),
            read.en.eq(self.read_enable & ~writes if self._exclusive else self.read_enable),
            self.read.eq(read.data),
        ]
        return m


def make_library(folder: Path, macros: Sequence[str]) -> Library:
    (folder / "cells.lib").write_text(standard_cells())
    for number, text in enumerate(macros):
        (folder / f"macro_{number}.lib").write_text(text)
    return read_library(folder)


def map_storage(storage: Storage, library: Library, name: str = "mapped") -> Part:
    return synthesize(rtlil.convert(storage, name=name, emit_src=False), name, find_yosys(), library, period=PERIOD)


# Both get the same; first every word once, since the content at first is anybody's; then addresses that meet often.
PAIR = """\
module pair_{name}(input clk, input [31:0] cycle, output integer seen, output integer wrong);
  reg [31:0] dice, last;
  reg [{address}:0] write_address, read_address;
  reg [{data}:0] data;
  reg [{enable}:0] enable;
  reg read_enable;
  wire [{data}:0] expected, found;
  original_{name} a(.clk(clk), .rst(1'b0), .write_address(write_address), .data(data), .enable(enable),
    .read_address(read_address), .read_enable(read_enable), .read(expected));
  mapped_{name} b(.clk(clk), .rst(1'b0), .write_address(write_address), .data(data), .enable(enable),
    .read_address(read_address), .read_enable(read_enable), .read(found));
  initial begin seen = 0; wrong = 0; last = 0; end
  always @(negedge clk) begin
    if (cycle > {words} + 4) begin
      seen = seen + (expected != 0);
      wrong = wrong + (expected != found);
    end
    dice = $urandom;
    write_address = cycle < {words} ? cycle : dice[16] ? $urandom % {words} : last;
    read_address = dice[17] ? $urandom % {words} : dice[18] ? write_address : last;
    enable = cycle < {words} ? ~0 : dice[19] ? $urandom : 0;
    data = $urandom;
    read_enable = cycle >= {words} && (dice[20] || dice[21]);
    last = write_address;
  end
endmodule
"""
BENCH = """\
module bench;
  reg clk = 1;
  integer cycle;
{instances}  initial begin
    for (cycle = 0; cycle < 40000; cycle = cycle + 1) begin
      #1 clk = 0;
      #1 clk = 1;
    end
{reports}    $finish;
  end
endmodule
"""
CASES = {
    # Three macros deep twice; of the last four bits two words lie in one of a macro.
    "masked": (Storage(150, 20, 5), "TWO", (3 + 3 + 2)),
    # Without bit masks a macro holds what is written together.
    "unmasked": (Storage(64, 16, 8), "WHOLE", 2),
    # Never reads and writes at once, so that one port is enough.
    "exclusive": (Storage(128, 8, 8, exclusive=True), "ONE", 2),
}


def test_a_grid_of_macros_behaves_as_the_memory(tmp_path):
    models = {
        "ONE": (macro("ONE", 6, 8, "A", 1000), macro_verilog("ONE", 6, 8, "A")),
        "TWO": (macro("TWO", 6, 8, "AB", 2000), macro_verilog("TWO", 6, 8, "AB")),
        "WHOLE": (macro("WHOLE", 6, 8, "AB", 1, masked=False), macro_verilog("WHOLE", 6, 8, "AB", masked=False)),
    }
    sources = [CELLS_VERILOG, *(behaviour for _, behaviour in models.values())]
    instances = reports = ""
    for name, (storage, kind, count) in CASES.items():
        folder = tmp_path / name
        folder.mkdir()
        offered = [models[one][0] for one in {"TWO", kind}]
        part = map_storage(storage, make_library(folder, offered), f"mapped_{name}")
        assert part.area.macros == ((kind, count),)
        assert part.netlist is not None
        sources += [part.netlist.read_text(), verilog.convert(storage, name=f"original_{name}", emit_src=False)]
        words, width, enables = storage.words, storage.width, storage.width // storage.granularity
        sources.append(
            PAIR.format(
                name=name, address=(words - 1).bit_length() - 1, data=width - 1, enable=enables - 1, words=words
            )
        )
        instances += f"  wire [31:0] seen_{name}, wrong_{name};\n"
        instances += f"  pair_{name} {name}(clk, cycle, seen_{name}, wrong_{name});\n"
        reports += f'    $display("{name} %0d wrong %0d", seen_{name}, wrong_{name});\n'
    said = simulate(BENCH.format(instances=instances, reports=reports) + "".join(sources), tmp_path)
    results = {name: (int(seen), int(wrong)) for name, seen, wrong in re.findall(r"(\w+) (\d+) wrong (\d+)", said)}
    assert set(results) == set(CASES)
    for seen, wrong in results.values():
        assert (seen > 30_000, wrong) == (True, 0), said


def simulate(source: str, folder: Path) -> str:
    """What a testbench prints."""
    (folder / "bench.v").write_text(source)
    tool = verilator()
    command = [str(tool.executable), "--binary", "--timing", "-Wno-fatal", "-Wno-lint", "--top-module", "bench"]
    command += ["-MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0", "-Mdir", "built", "bench.v"]
    environment = os.environ | tool.env
    built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return subprocess.run([folder / "built" / "Vbench"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "width", "expected"), [(64, 8, ("TWO", 1)), (64, 17, ("WIDE", 1)), (128, 32, ("WIDE", 2))]
)
def test_macros_of_least_area_are_chosen(tmp_path, words, width, expected):
    macros = [macro("TWO", 6, 8, "AB", 2000), macro("WIDE", 6, 32, "AB", 5000.5), macro("ONE", 6, 8, "A", 1)]
    part = map_storage(Storage(words, width, width), make_library(tmp_path, macros))
    assert part.area.macros == (expected,)
    assert part.area.macro_area == expected[1] * {"TWO": 2000, "WIDE": 5000.5}[expected[0]]


def test_a_small_memory_becomes_flip_flops(tmp_path):
    library = make_library(tmp_path, [macro("TWO", 6, 8, "AB", 1)])
    area = map_storage(Storage(31, 2, 2), library).area
    assert (area.memories, area.macros, area.macro_area) == ((), (), 0.0)
    assert area.registers >= 31 * 2 * 100


def test_a_memory_without_a_macro_is_an_error(tmp_path):
    with pytest.raises(SynthesisError, match="no valid mapping found for memory"):
        map_storage(Storage(64, 8, 8), make_library(tmp_path, [macro("ONE", 6, 8, "A", 1000)]))


def test_slow_macros_are_passed_over():
    def one(name: str, access: float) -> Macro:
        return Macro(name, 64, 8, ("A",), True, 1.0, access, ())

    fast, slow = one("fast", 3.0), one("slow", 4.0)
    assert usable([fast, slow], 4.0) == (fast,)  # up to five sixths
    assert usable([fast, slow], 5.0) == (fast, slow)
    assert usable([fast, slow], 3.0) == (fast, slow)  # none is fast enough: better one of them than none


def test_pins_that_the_wrapper_does_not_know_are_named(tmp_path):
    text = macro("ONE", 6, 8, "A", 1000)
    lacking = make_library(tmp_path, [text.replace("A_WEN", "A_WRITE")]).macros
    with pytest.raises(SynthesisError, match="SRAM macro ONE: no pin A_WEN, which the wrapper connects by name"):
        wrapper(lacking)
    unknown = make_library(tmp_path, [text.replace("A_DLY", "SLEEP")]).macros
    with pytest.raises(SynthesisError, match=r"SRAM macro ONE: the wrapper does not know what to connect .* SLEEP"):
        wrapper(unknown)


def test_costs_follow_the_area(tmp_path):
    macros = make_library(tmp_path, [macro("ONE", 6, 8, "A", 1000), macro("TWO", 6, 8, "AB", 2000)]).macros
    costs = [float(line.split()[1].rstrip(";")) for line in memory_library(macros, 100).splitlines() if "cost" in line]
    assert costs == [12.5, 25.0]  # a flip-flop of 100 um2: a bit of a multiplexer of 40 um2 has cost 0.5
