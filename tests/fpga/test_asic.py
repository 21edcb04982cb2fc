# SPDX-License-Identifier: Apache-2.0
"""Area of standard cells and macros, with a library of round areas; one unit of the core with a real one."""

import re
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import FORMAL, TINY
from loomwork.fpga import asic
from loomwork.fpga.area import UNITS
from loomwork.fpga.asic import ABC_GATES, Area, groups, macs_per_second, measure, synthesize, total
from loomwork.fpga.asic import Memory as NeededMemory
from loomwork.fpga.hierarchy import WIRING, parts
from loomwork.fpga.liberty import Library, read_library
from loomwork.fpga.timing import SlowestPath
from loomwork.fpga.yosys import SynthesisError, Yosys, find_yosys
from tests.fpga.round_library import standard_cells, write_library
from tests.models import pdk_path

PERIOD = 100.0


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return write_library(tmp_path)


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(asic, "cache_directory", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "asic"


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


class Halves(Component):
    """Two modules, each with an inverter, a flip-flop and an inverter for each bit; two inverters meet between them."""

    i: Signal
    o: Signal

    def __init__(self, bits: int) -> None:
        self._bits = bits
        super().__init__({"i": In(bits), "o": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = self.i
        for name in ("first", "second"):
            m.submodules[name] = half = Module()
            kept = Signal(self._bits, reset_less=True)
            half.d.sync += kept.eq(~value)
            value = Signal(self._bits)
            half.d.comb += value.eq(~kept)
        m.d.comb += self.o.eq(value)
        return m


class Storage(Component):
    """A memory of 64 words of 20 bits, with inverters behind it."""

    def __init__(self) -> None:
        super().__init__({"address": In(6), "data": In(20), "enable": In(1), "read": Out(20)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=20, depth=64, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.data),
            write.en.eq(self.enable),
            read.addr.eq(self.address),
            self.read.eq(~read.data),
        ]
        return m


def text(component: Component) -> str:
    return rtlil.convert(component, name="unit", emit_src=False)


def area_of(source: str, library: Library | None) -> Area:
    return synthesize(source, "unit", find_yosys(), library, period=PERIOD).area


def test_cells_are_counted_by_their_area(library):
    assert area_of(text(Registers()), library) == Area(logic=5 * 101.0, registers=5 * 100.0)


@pytest.mark.parametrize(("bits", "inverters"), [(10, 2), (2 * ABC_GATES, 4)])
def test_large_modules_are_mapped_by_themselves_and_small_ones_as_one(library, bits, inverters):
    source = text(Halves(bits))
    assert area_of(source, library) == Area(logic=bits * (200.0 + inverters), registers=bits * 200.0)
    assert area_of(source, None) == Area(logic=bits * (2 * 16 + 2 * inverters) / 4, registers=bits * 2 * 16 / 4)


def test_gate_equivalents_are_transistors_by_four():
    # Inverters of 2 transistors, flip-flops of 16.
    assert area_of(text(Registers()), None) == Area(logic=5 * 18 / 4, registers=5 * 16 / 4)


def test_without_a_library_memories_are_bits():
    area = area_of(text(Storage()), None)
    assert (area.memories, area.bits) == ((NeededMemory(words=64, width=20),), 1280)
    assert (area.logic, area.registers, area.macros) == (20 * 2 / 4, 0.0, ())  # what is behind it stays


def test_macros_are_counted_with_what_surrounds_them(library):
    area = area_of(text(Storage()), library)
    assert area.memories == (NeededMemory(words=64, width=20),)
    assert (area.macros, area.macro_area) == ((("WIDE", 1),), 5000.5)
    assert area.whole == area.logic + 5000.5
    # The word that is being written: address, data and enable; and what a read of it was given instead.
    assert area.registers >= (6 + 20 + 1 + 20) * 100


def test_areas_add_up():
    first = Area(1.0, 0.5, (NeededMemory(64, 8),), (("ONE", 1),), 1000.0)
    second = Area(2.0, 1.0, (NeededMemory(64, 8),), (("ONE", 2), ("TWO", 1)), 4000.0)
    both = total([first, second])
    assert (both.logic, both.registers, both.macro_area, both.bits) == (3.0, 1.5, 5000.0, 1024)
    assert both.macros == (("ONE", 3), ("TWO", 1))


def test_every_unit_is_in_one_line():
    names = [name for line in groups().values() for name in line]
    assert sorted(names) == sorted([*(unit.name for unit in UNITS), WIRING])


def test_a_mac_is_one_multiplication_per_pe_and_cycle():
    assert macs_per_second(TINY, SlowestPath(5.0, "a", "b")) == pytest.approx(TINY.rows * TINY.cols * 0.2)


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
        area_of(TRISTATE, library)
    with pytest.raises(SynthesisError, match=r"could not count transistors, of cells \$_TBUF_$"):
        area_of(TRISTATE, None)


def test_a_library_without_macros_is_an_error_where_there_are_memories(tmp_path):
    (tmp_path / "cells.lib").write_text(standard_cells())
    library = read_library(tmp_path)
    assert area_of(text(Registers()), library).logic == 505.0
    with pytest.raises(SynthesisError, match="it has memories of 64 words or more, which need SRAM macros"):
        area_of(text(Storage()), library)


def test_a_damaged_library_is_an_error(library, fresh_cache):
    library.cells.write_text(library.cells.read_text()[:-40])
    with pytest.raises(SynthesisError, match=r"Yosys .* failed with exit code"):
        area_of(text(Registers()), library)
    assert list(fresh_cache.iterdir()) == []


def test_nothing_is_synthesized_twice_and_every_input_counts(library, fresh_cache, monkeypatch):
    area_of(text(Registers()), library)
    (kept,) = fresh_cache.iterdir()
    before = (kept / "netlist.v").read_text()
    assert "DFF" in before
    monkeypatch.setattr(asic, "run_script", None)  # another call of Yosys would fail
    assert area_of(text(Registers()), library).logic == 505.0
    library.cells.write_text(library.cells.read_text().replace("area : 100", "area : 101"))
    with pytest.raises(TypeError):
        area_of(text(Registers()), library)
    with pytest.raises(TypeError):
        synthesize(text(Registers()), "unit", Yosys(("yosys",), "0.0"), None, period=PERIOD)


def test_parts_are_all_units_and_what_joins_them():
    made = parts(FORMAL)
    assert list(made) == [*(unit.name for unit in UNITS), WIRING]
    for name, source in made.items():
        modules = re.findall(r"^module \\(\S+)$", source, re.MULTILINE)
        used = set(re.findall(r"^ *cell \\(\S+) ", source, re.MULTILINE))
        assert name in modules
        assert used | {name} == set(modules), name  # all that it has, and no more
    boxes = re.findall(r"^attribute \\blackbox 1\nmodule \\(\S+)$", made[WIRING], re.MULTILINE)
    assert boxes == [unit.name for unit in UNITS]


def test_all_units_are_measured_and_an_error_says_of_which(monkeypatch, library):
    told: list[str] = []
    monkeypatch.setattr(asic, "parts", lambda config: {"array": config.name, WIRING: ""})
    monkeypatch.setattr(asic, "synthesize", lambda source, top, *_, **__: asic.Part(Area(logic=len(source)), None))
    chip = measure(FORMAL, find_yosys(), library, None, frequency=200, report=told.append)
    assert chip.areas == {"array": Area(logic=len(FORMAL.name)), WIRING: Area()}
    assert chip.paths == {}
    assert told == [f"{FORMAL.name}: array (1 of 2)", f"{FORMAL.name}: {WIRING} (2 of 2)"]

    def fail(source: str, top: str, *_: object, **__: object) -> None:
        raise SynthesisError("it failed")

    monkeypatch.setattr(asic, "synthesize", fail)
    with pytest.raises(SynthesisError, match=f"array of {FORMAL.name}: it failed"):
        measure(FORMAL, find_yosys(), library, None, frequency=200, report=told.append)


def test_what_joins_the_units_is_measured_without_them():
    boxes = [unit.name for unit in UNITS]
    part = synthesize(parts(FORMAL)[WIRING], WIRING, find_yosys(), None, period=PERIOD, boxes=boxes)
    assert part.area.registers > 0
    assert part.area.logic < 3000
    assert part.area.memories == ()


def test_signals_of_the_core_are_split_into_bits(library):
    """With shorter names for the bits, Yosys stopped at this unit."""
    part = synthesize(parts(FORMAL)["load"], "load", find_yosys(), library, period=5.0)
    assert 0 < part.area.registers < part.area.logic


def test_a_unit_of_the_core_with_a_real_library():
    folder = pdk_path("ihp-sg13g2/sg13g2_stdcell_typ_1p20V_25C.lib").parent
    library = read_library(folder)
    assert [corner.name for corner in library.corners] == ["typical", "slow"]
    part = synthesize(parts(TINY)["load"], "load", find_yosys(), library, period=5.0)
    # A queue of 64 beats of 32 bits; the smallest macro with two ports has as many words and 52,620.8821 um2.
    assert part.area.macros == (("RM_IHPSG13_2P_64x32_c2", 1),)
    assert part.area.macro_area == pytest.approx(52_620.8821)
    assert 0 < part.area.registers < part.area.logic
