# SPDX-License-Identifier: Apache-2.0
"""Area of standard cells and macros, with a library whose areas are round numbers."""

from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.fpga.asic import Area, Library, Macro, map_memory, read_library, synthesize
from loomwork.fpga.asic import Memory as NeededMemory
from loomwork.fpga.yosys import TOP, SynthesisError, find_yosys

STANDARD_CELLS = """\
library (round) {
  nom_voltage : 1.2;
  cell (INV) { area : 1; pin (A) { direction : input; } pin (Y) { direction : output; function : "!A"; } }
  cell (BUF) { area : 2; pin (A) { direction : input; } pin (Y) { direction : output; function : "A"; } }
  cell (NAND2) { area : 3;
    pin (A) { direction : input; } pin (B) { direction : input; }
    pin (Y) { direction : output; function : "!(A*B)"; } }
  cell (DFF) { area : 100;
    ff (IQ, IQN) { clocked_on : "C"; next_state : "D"; }
    pin (C) { direction : input; clock : true; } pin (D) { direction : input; }
    pin (Q) { direction : output; function : "IQ"; } }
}
"""


def macro_text(name: str, address_width: int, width: int, ports: int, area: float) -> str:
    reads = "  memory_read() {\n  }\n" * ports
    return (
        f"library ({name}) {{\n nom_voltage : 1.2;\n cell({name}) {{\n memory() {{\n type : ram;\n"
        f" address_width : {address_width};\n word_width : {width};\n }}\n area : {area};\n{reads} }}\n}}\n"
    )


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "cells.lib").write_text(STANDARD_CELLS)
    (tmp_path / "one.lib").write_text(macro_text("ONE", 6, 8, 1, 1000))
    (tmp_path / "two.lib").write_text(macro_text("TWO", 6, 8, 2, 2000))
    (tmp_path / "wide.lib").write_text(macro_text("WIDE", 6, 32, 2, 5000.5))
    return read_library(tmp_path)


class Registers(Component):
    """Five flip-flops without reset, each behind an inverter."""

    i: Signal
    o: Signal

    def __init__(self) -> None:
        super().__init__({"i": In(5), "o": Out(5)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = Signal(5, reset_less=True)
        m.d.sync += kept.eq(~self.i)
        m.d.comb += self.o.eq(kept)
        return m


class Storage(Component):
    """A memory of one read and one write port, with inverters before and behind."""

    def __init__(self, words: int, width: int) -> None:
        self._words, self._width = words, width
        super().__init__(
            {"address": In(range(words)), "data": In(width), "enable": In(1), "read": Out(width)},
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self._width, depth=self._words, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(~self.data),
            write.en.eq(self.enable),
            read.addr.eq(self.address),
            self.read.eq(~read.data),
        ]
        return m


def text(component: Component) -> str:
    return rtlil.convert(component, name=TOP, emit_src=False)


def test_a_library_is_read(library):
    assert library.cells.name == "cells.lib"
    assert library.names == {"INV", "BUF", "NAND2", "DFF"}
    assert library.macros == (
        Macro("ONE", 64, 8, 1, 1000.0),
        Macro("TWO", 64, 8, 2, 2000.0),
        Macro("WIDE", 64, 32, 2, 5000.5),
    )


def test_a_macro_may_be_written_in_other_ways(library, tmp_path):
    text = macro_text("OTHER", 7, 16, 1, 0).replace("cell(OTHER)", 'cell ( "OTHER" )')
    text = text.replace(" area : 0;\n", "").replace(" memory() {", " area : 1.25e+03;\n memory() {")
    (tmp_path / "other.lib").write_text(text)
    assert Macro("OTHER", 128, 16, 1, 1250.0) in read_library(tmp_path).macros


def test_cells_are_counted_by_their_area(library):
    assert synthesize(text(Registers()), find_yosys(), library) == Area(logic=5 * 101.0, registers=5 * 100.0)


def test_gate_equivalents_are_transistors_by_four(library):
    # Inverters of 2 transistors, flip-flops of 16.
    assert synthesize(text(Registers()), find_yosys(), None) == Area(logic=5 * 18 / 4, registers=5 * 16 / 4)


def test_a_memory_becomes_macros(library):
    area = synthesize(text(Storage(words=100, width=20)), find_yosys(), library)
    assert area.memories == (NeededMemory(words=100, width=20, ports=2),)
    # Two deep: one WIDE each is less than three TWO each.
    assert (area.macros, area.macro_area) == ((("WIDE", 2),), 10001.0)
    assert area.bits == 2000
    assert (area.logic, area.registers) == (2 * 20 * 1.0, 0.0)
    assert area.whole == 40.0 + 10001.0


def test_a_small_memory_becomes_flip_flops(library):
    area = synthesize(text(Storage(words=31, width=2)), find_yosys(), library)
    assert (area.memories, area.macros, area.macro_area) == ((), (), 0.0)
    assert area.registers >= 31 * 2 * 100


@pytest.mark.parametrize(
    ("words", "width", "ports", "expected"),
    [
        (64, 8, 1, ("ONE", 1)),
        (64, 8, 2, ("TWO", 1)),
        (65, 8, 1, ("ONE", 2)),
        (64, 17, 2, ("WIDE", 1)),
        (129, 40, 1, ("ONE", 15)),
    ],
)
def test_macros_of_least_area_are_chosen(library, words, width, ports, expected):
    macro, count = map_memory(NeededMemory(words, width, ports), library.macros)
    assert (macro.name, count) == expected


def test_areas_add_up():
    first = Area(1.0, 0.5, (NeededMemory(64, 8, 1),), (("ONE", 1),), 1000.0)
    second = Area(2.0, 1.0, (NeededMemory(64, 8, 2),), (("ONE", 2), ("TWO", 1)), 4000.0)
    both = first + second
    assert (both.logic, both.registers, both.macro_area, both.bits) == (3.0, 1.5, 5000.0, 1024)
    assert both.macros == (("ONE", 3), ("TWO", 1))


def test_a_memory_without_a_macro_is_an_error(library):
    with pytest.raises(SynthesisError, match="64 words of 8 bits needs an SRAM macro with 3 ports"):
        map_memory(NeededMemory(64, 8, 3), library.macros)


def test_a_folder_without_standard_cells_is_an_error(tmp_path):
    (tmp_path / "one.lib").write_text(macro_text("ONE", 6, 8, 1, 1000))
    with pytest.raises(SynthesisError, match=r"no \.lib file with flip-flops"):
        read_library(tmp_path)


def test_a_macro_without_its_size_is_an_error(tmp_path):
    (tmp_path / "cells.lib").write_text(STANDARD_CELLS)
    (tmp_path / "one.lib").write_text(macro_text("ONE", 6, 8, 1, 1000).replace("word_width", "other"))
    with pytest.raises(SynthesisError, match=r"one\.lib: no word_width found"):
        read_library(tmp_path)


TRISTATE = """\
module \\unit
  wire input 1 \\e
  wire input 2 \\d
  wire output 3 \\o
  cell $tribuf \\buffer
    parameter \\WIDTH 1
    connect \\EN \\e
    connect \\A \\d
    connect \\Y \\o
  end
end
"""


def test_a_cell_that_cannot_be_counted_is_an_error(library):
    with pytest.raises(SynthesisError, match=r"^cells that cells\.lib lacks, .*: \$_TBUF_$"):
        synthesize(TRISTATE, find_yosys(), library)
    with pytest.raises(SynthesisError, match=r"could not count transistors, of cells \$_TBUF_$"):
        synthesize(TRISTATE, find_yosys(), None)


def test_of_two_corners_the_one_of_the_higher_voltage_is_read(library, tmp_path):
    (tmp_path / "slow.lib").write_text(STANDARD_CELLS.replace("1.2", "1.08"))
    (tmp_path / "fast.lib").write_text(STANDARD_CELLS.replace("1.2", "1.32"))
    assert read_library(tmp_path).cells.name == "fast.lib"
