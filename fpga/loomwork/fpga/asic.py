# SPDX-License-Identifier: Apache-2.0
"""What each unit of the core costs on a chip: standard cells by Yosys, memories as SRAM macros; before layout.

Each unit by itself, as for FPGAs (`area`). With a Liberty library in square micrometres, without one in gate
equivalents: the transistors of static CMOS divided by the four of a two-input NAND.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from loomwork.arch.config import Config
from loomwork.fpga.area import GROUPS, UNITS, for_each_unit
from loomwork.fpga.yosys import TOP, SynthesisError, Yosys, run_script

MACRO_WORDS = 32
"""A memory of this many words or more is made of SRAM macros; a smaller one of flip-flops."""
_NAND2_TRANSISTORS = 4
_FLIP_FLOP_TRANSISTORS = 16
"""As `stat -tech cmos` of Yosys counts a `$_DFF_P_`."""

_CELL = re.compile(r"^\s*cell\s*\(\s*\"?(\w+)\"?\s*\)", re.MULTILINE)

_COARSE = (
    f"read_rtlil unit.il; hierarchy -top {TOP}; proc; flatten; rename -hide w:*; synth -top {TOP} -run begin:fine; "
    f"opt -fast -full; memory_map t:$mem_v2 r:SIZE<{MACRO_WORDS} %i; setattr -unset init w:*; opt -undriven -fine; "
    "techmap; opt -fast; delete t:$scopeinfo; "
)
_MAPPED = "dfflibmap -liberty cells.lib; abc -liberty cells.lib; opt_clean; "
_GENERIC = "dfflegalize -cell $_DFF_P_ x; opt_clean; abc -g cmos; opt_clean; "
# The memories that remain become macros, which are counted by size. Without them what is around them would be optimized
# away, so that they go last.
_MEMORIES = "tee -q -o memories.txt dump t:$mem_v2; delete t:$mem_v2"


@dataclass(frozen=True)
class Memory:
    """words of width bits, and how many ports it needs that read or write in every cycle."""

    words: int
    width: int
    ports: int

    @property
    def bits(self) -> int:
        """Capacity in bits."""
        return self.words * self.width


@dataclass(frozen=True)
class Macro:
    """An SRAM macro of a Liberty library. ports: each reads or writes one word per cycle. area: um2."""

    name: str
    words: int
    width: int
    ports: int
    area: float


@dataclass(frozen=True)
class Library:
    """cells: file of the standard cells. names: of its cells. macros: the memories that there are."""

    cells: Path
    names: frozenset[str]
    macros: tuple[Macro, ...]


@dataclass(frozen=True)
class Area:
    """Of one unit or several. logic: all standard cells, and registers: the flip-flops of these, in um2 or gate
    equivalents. memories: what is made of macros. macros: how many of each. macro_area: um2.
    """

    logic: float = 0.0
    registers: float = 0.0
    memories: tuple[Memory, ...] = ()
    macros: tuple[tuple[str, int], ...] = ()
    macro_area: float = 0.0

    def __add__(self, other: "Area") -> "Area":
        counts = dict(self.macros)
        for name, count in other.macros:
            counts[name] = counts.get(name, 0) + count
        return Area(
            self.logic + other.logic,
            self.registers + other.registers,
            self.memories + other.memories,
            tuple(sorted(counts.items())),
            self.macro_area + other.macro_area,
        )

    @property
    def bits(self) -> int:
        """Bits of memory in macros."""
        return sum(memory.bits for memory in self.memories)

    @property
    def whole(self) -> float:
        """Logic and macros; without a library the logic only."""
        return self.logic + self.macro_area


def read_library(folder: Path) -> Library:
    """The `.lib` files of a folder: one library of standard cells, and SRAM macros (a cell with a `memory` group each).

    Area does not depend on the corner: of several files of standard cells the one of the highest voltage is taken, of
    several files of one macro any. Raises SynthesisError when there are no standard cells or a file lacks a figure,
    OSError when it cannot be read.
    """
    macros: dict[str, Macro] = {}
    standard: list[tuple[float, str, frozenset[str]]] = []
    for path in sorted(folder.glob("*.lib")):
        text = path.read_text(encoding="utf-8", errors="replace")
        names = _CELL.findall(text)
        if re.search(r"^\s*memory\s*\(\s*\)", text, re.MULTILINE):
            macro = _read_macro(path, text)
            macros[macro.name] = macro
        elif re.search(r"^\s*ff\s*\(", text, re.MULTILINE):
            standard.append((_number(path, text, "nom_voltage"), path.name, frozenset(names)))
    if not standard:
        raise SynthesisError(f"{folder} has no .lib file with flip-flops; name the folder of a standard cell library")
    _, name, cells = max(standard)
    return Library(folder / name, cells, tuple(sorted(macros.values(), key=lambda macro: macro.name)))


def _read_macro(path: Path, text: str) -> Macro:
    cells = list(_CELL.finditer(text))
    if len(cells) != 1:
        raise SynthesisError(f"{path}: {len(cells)} cells in a file with a memory, where one is expected")
    name, text = cells[0][1], text[cells[0].end() :]
    ports = len(re.findall(r"^\s*memory_read\s*\(", text, re.MULTILINE))
    words = 2 ** int(_number(path, text, "address_width"))
    return Macro(name, words, int(_number(path, text, "word_width")), ports, _number(path, text, "area"))


def _number(path: Path, text: str, attribute: str) -> float:
    match = re.search(rf"\b{attribute}\s*:\s*\"?([\d.]+(?:[eE][+-]?\d+)?)", text)
    if match is None:
        raise SynthesisError(f"{path}: no {attribute} found; is it a Liberty file?")
    return float(match[1])


def map_memory(memory: Memory, macros: Sequence[Macro]) -> tuple[Macro, int]:
    """The macro of which a grid holds the memory on the least area, and how many it takes.

    Raises SynthesisError when none has enough ports.
    """
    fits = [
        (-(-memory.words // macro.words) * -(-memory.width // macro.width), macro)
        for macro in macros
        if macro.ports >= memory.ports
    ]
    if not fits:
        raise SynthesisError(
            f"a memory of {memory.words} words of {memory.width} bits needs an SRAM macro with {memory.ports} ports, "
            "and the Liberty folder has none"
        )
    count, best = min(fits, key=lambda fit: (fit[0] * fit[1].area, fit[1].name))
    return best, count


def total(areas: Sequence[Area]) -> Area:
    """The sum of all."""
    return sum(areas, Area())


def by_group(units: Mapping[str, Area]) -> dict[str, Area]:
    """The area of each group of units, from that of each unit."""
    return {group: total([units[unit.name] for unit in UNITS if unit.group == group]) for group in GROUPS}


def measure(config: Config, yosys: Yosys, library: Library | None, *, report: Callable[[str], None]) -> dict[str, Area]:
    """Synthesize every unit of a configuration: its area by the name of the unit. report: told before each.

    Raises SynthesisError when Yosys fails, or a memory finds no macro.
    """
    return for_each_unit(
        config,
        lambda unit: synthesize(rtlil.convert(unit.make(config), name=TOP, emit_src=False), yosys, library),
        report=report,
    )


def synthesize(source: str, yosys: Yosys, library: Library | None) -> Area:
    """The area of the module TOP of an RTLIL text. Raises SynthesisError when Yosys fails."""
    with tempfile.TemporaryDirectory(prefix="loomwork-asic-") as name:
        directory = Path(name)
        (directory / "unit.il").write_text(source, encoding="utf-8")
        if library is not None:
            shutil.copyfile(library.cells, directory / "cells.lib")
        mapping, costs = (_MAPPED, "-liberty cells.lib") if library else (_GENERIC, "-tech cmos")
        written = run_script(yosys, _COARSE + mapping + _MEMORIES, f"stat {costs} -json", directory)
        figures = written["modules"][f"\\{TOP}"]
        memories = _read_memories((directory / "memories.txt").read_text(encoding="utf-8"))
    if library is None:
        return Area(*_gate_equivalents(figures), memories)
    unknown = sorted(set(figures["num_cells_by_type"]) - library.names)
    if unknown:
        raise SynthesisError(f"cells that {library.cells.name} lacks, and would not be counted: {', '.join(unknown)}")
    area = Area(figures.get("area", 0.0), figures.get("sequential_area", 0.0), memories)
    for memory in memories:
        macro, count = map_memory(memory, library.macros)
        area += Area(macros=((macro.name, count),), macro_area=count * macro.area)
    return area


def _gate_equivalents(figures: Mapping[str, Any]) -> tuple[float, float]:
    """Of all cells and of the flip-flops, from the transistors that Yosys counts (`stat -tech cmos`)."""
    transistors = str(figures["estimated_num_transistors"])
    if not transistors.isdigit():  # it ends in "+" when Yosys does not know a cell
        raise SynthesisError(f"Yosys could not count transistors, of cells {', '.join(figures['num_cells_by_type'])}")
    flip_flops = figures["num_cells_by_type"].get("$_DFF_P_", 0) * _FLIP_FLOP_TRANSISTORS
    return int(transistors) / _NAND2_TRANSISTORS, flip_flops / _NAND2_TRANSISTORS


def _read_memories(dump: str) -> tuple[Memory, ...]:
    """The memories that `dump` wrote as RTLIL."""
    found: list[Memory] = []
    for cell in dump.split("cell $mem_v2 ")[1:]:
        size, width, reads, writes = (
            int(re.search(rf"parameter (?:signed )?\\{name} (\d+)\n", cell)[1])  # pyright: ignore[reportOptionalSubscript]
            for name in ("SIZE", "WIDTH", "RD_PORTS", "WR_PORTS")
        )
        found.append(Memory(size, width, reads + writes))
    return tuple(found)
