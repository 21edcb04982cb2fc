# SPDX-License-Identifier: Apache-2.0
"""What each unit of the core costs on a chip, and how fast it is: standard cells and SRAM macros; before layout.

Each unit is synthesized by itself, as for FPGAs (`area`), and the wiring between them as one part more; together they
are the netlist of the core, of which the timing is taken too. With a Liberty library in square micrometres, without one
in gate equivalents: the transistors of static CMOS divided by the four of a two-input NAND.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from inspect import getsource
from pathlib import Path
from typing import Any

from loomwork.arch.config import Config
from loomwork.fpga import buffers
from loomwork.fpga.area import GROUPS, UNITS
from loomwork.fpga.buffers import add_buffers
from loomwork.fpga.hierarchy import WIRING, parts
from loomwork.fpga.liberty import Corner, Library, Macro
from loomwork.fpga.macros import memory_library, usable, wrapper
from loomwork.fpga.timing import SlowestPath, Sta, slowest_path
from loomwork.fpga.yosys import SynthesisError, Yosys, run_script
from loomwork.sim.toolchain import cache_directory

MACRO_WORDS = 64
"""A memory of this many words or more is made of SRAM macros; a smaller one, which would leave half of the smallest
macro empty and wait for its late data, of flip-flops."""
_NAND2_TRANSISTORS = 4
_FLIP_FLOP_TRANSISTORS = 16
"""As `stat -tech cmos` of Yosys counts a `$_DFF_P_`."""
DELAY_SHARE = 0.6
"""What part of the period `abc` sizes gates for: it knows neither the delay of the flip-flop before nor what its output
drives, nor the setup time of the one behind."""

ABC_GATES = 1000
"""A module of about so many gates or more is mapped by itself. `abc` works for the deepest path of what it is given, at
the cost of all others: the drain of `tiny` in one piece is 26% larger and reaches 176 MHz instead of 205."""

# A chip's flip-flops and memories have no initial value.
_COARSE = (
    "read_rtlil unit.il; hierarchy -top {top}; proc; setattr -mod -set gate_cost_equivalent 1 =A:blackbox; "
    f"keep_hierarchy -min_cost {ABC_GATES}; flatten; "
    "synth -top {top} -run begin:fine; opt -fast -full; "
    f"memory_map t:$mem_v2 r:SIZE<{MACRO_WORDS} %i; tee -q -o memories.txt dump t:$mem_v2; "
)
_LIBRARY_MEMORIES = (
    "setparam -set INIT 1'x t:$mem_v2; setattr -set ram_block 1 t:$mem_v2; memory_libmap -lib memories.lib; "
    "techmap -map macros.v; "
)
_FINE = "setattr -unset init w:*; opt -undriven -fine; techmap; opt -fast; delete t:$scopeinfo; "
_WHOLE = "setattr -mod -unset keep_hierarchy *; flatten -noscopeinfo; "
_MAPPED = (
    f"dfflibmap -liberty cells.lib; abc -liberty cells.lib -script abc.txt; {_WHOLE}opt_clean -purge; setundef -zero; "
    "read_liberty -lib -ignore_miss_func cells.lib; {read_macros}splitnets -format __; "
    "rename -wire -suffix _reg {flip_flops}; rename -unescape; write_json mapped.json"
)
_BUFFERED = "read_json buffered.json; write_verilog -noattr -noexpr -simple-lhs netlist.v; "
_GENERIC = f"dfflegalize -cell $_DFF_P_ x; opt_clean; abc -g cmos; {_WHOLE}opt_clean; "
# Without the memories and units what is around them would be optimized away, so that they go last.
_BOXES = "delete t:$mem_v2 {boxes}"
# Yosys's own script for `abc -liberty`, with a restructuring for depth (`&if -g`) before the mapping, and buffers and
# stronger gates behind it: of the sequencer of `tiny`, 9.2 ns became 4.8 ns for 5 % of area.
_ABC = """\
strash; &get -n; &fraig -x; &put; scorr; dc2; strash
&get -n; &st; &if -g -K 6; &dch -f; &nf; &put
buffer -c -N 16; topo; upsize -D {delay}; dnsize -D {delay}
"""


_MEMORY = re.compile(r"^ *memory ", re.MULTILINE)
_SIGNED = re.compile(r"^(\s*(?:wire|input|output)) signed ", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """words of width bits."""

    words: int
    width: int

    @property
    def bits(self) -> int:
        """Capacity in bits."""
        return self.words * self.width


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


@dataclass(frozen=True)
class Part:
    """A unit, synthesized. netlist: its Verilog; None without a library."""

    area: Area
    netlist: Path | None


@dataclass(frozen=True)
class Chip:
    """All of a configuration. areas: of each unit, and of WIRING, by name. paths: by corner and then by name the
    slowest path within each, and as WIRING that of the whole core with all that crosses the borders of units; empty
    without a library or OpenSTA.
    """

    areas: Mapping[str, Area]
    paths: Mapping[str, Mapping[str, SlowestPath | None]] = field(default_factory=dict[str, Any])


def total(areas: Sequence[Area]) -> Area:
    """The sum of all."""
    return sum(areas, Area())


def groups() -> dict[str, list[str]]:
    """The names of the parts of each line of the report."""
    lines = {group: [unit.name for unit in UNITS if unit.group == group] for group in GROUPS}
    return {**lines, "wiring": [WIRING]}


def macs_per_second(config: Config, path: SlowestPath) -> float:
    """GMAC/s at the frequency of a path, one multiply-accumulate per PE and cycle."""
    return config.rows * config.cols * path.frequency / 1000


def measure(
    config: Config,
    yosys: Yosys,
    library: Library | None,
    sta: Sta | None,
    *,
    frequency: float,
    report: Callable[[str], None],
) -> Chip:
    """Synthesize every part of a configuration for a frequency in MHz, and time it with OpenSTA where there is one.

    One after the other, the large ones for minutes. report: told before each. What was made before, of the same RTLIL
    and libraries by the same version of Yosys, comes from the cache.
    Raises SynthesisError when Yosys or OpenSTA fails or a memory finds no macro, OSError when the cache directory
    cannot be written.
    """
    period = 1000 / frequency
    sources = parts(config)
    made: dict[str, Part] = {}
    for number, (name, source) in enumerate(sources.items(), 1):
        report(f"{config.name}: {name} ({number} of {len(sources)})")
        boxes = tuple(unit.name for unit in UNITS) if name == WIRING else ()
        try:
            made[name] = synthesize(source, name, yosys, library, period=period, boxes=boxes)
        except SynthesisError as error:
            raise SynthesisError(f"{name} of {config.name}: {error}") from error
    areas = {name: part.area for name, part in made.items()}
    if library is None or sta is None:
        return Chip(areas)
    paths: dict[str, dict[str, SlowestPath | None]] = {}
    for corner in library.corners:
        paths[corner.name] = {}
        for name in made:
            report(f"{config.name}: timing of {name}, {corner.name}")
            inside = list(made) if name == WIRING else [name]
            paths[corner.name][name] = _time(sta, name, {one: made[one] for one in inside}, corner, period)
    return Chip(areas, paths)


def synthesize(
    source: str, top: str, yosys: Yosys, library: Library | None, *, period: float, boxes: Sequence[str] = ()
) -> Part:
    """Synthesize a module of an RTLIL text, or take it from the cache. boxes: its black boxes, which are not counted.

    Raises SynthesisError when Yosys fails.
    """
    files = {"unit.il": source}
    scripts = [_COARSE.format(top=top)]
    if library is None:
        scripts[0] += _FINE + _GENERIC
    else:
        # Without memories the macros do not matter, and must not decide what is found in the cache.
        macros = usable(library.macros, period) if _MEMORY.search(source) else ()
        files |= _library_files(library, macros, period)
        scripts[0] += (_LIBRARY_MEMORIES if macros else "") + _FINE
        scripts[0] += _MAPPED.format(
            flip_flops=" ".join(f"t:{name}" for name in library.flip_flops),
            read_macros="".join(f"read_liberty -lib -ignore_miss_func {macro.name}.lib; " for macro in macros),
        )
        scripts.append(_BUFFERED)
    scripts[-1] += _BOXES.format(boxes=" ".join(f"t:{box}" for box in boxes))
    key = _digest(yosys.version, getsource(buffers), *scripts, *files.values())
    folder = cache_directory() / "asic"
    kept = folder / f"{top}-{key}"
    if not kept.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{top}-") as name:
            _run(yosys, scripts, library, files, Path(name), top)
            _keep(Path(name), kept)
    figures = json.loads((kept / "figures.json").read_text(encoding="utf-8"))
    memories = _read_memories((kept / "memories.txt").read_text(encoding="utf-8"))
    if library is None:
        return Part(Area(*_gate_equivalents(figures), memories), None)
    return Part(_count(figures, memories, library), kept / "netlist.v")


def _library_files(library: Library, macros: Sequence[Macro], period: float) -> dict[str, str]:
    """What the script for a library reads, by the name of the file."""
    sources = {"cells": library.cells, **{macro.name: library.corners[0].macros[macro.name] for macro in macros}}
    return {
        "memories.lib": memory_library(macros, library.flip_flop_area),
        "macros.v": wrapper(macros),
        "abc.txt": _ABC.format(delay=round(1000 * DELAY_SHARE * period)),
        **{f"{name}.lib": path.read_text(encoding="utf-8", errors="replace") for name, path in sources.items()},
    }


def _run(
    yosys: Yosys, scripts: Sequence[str], library: Library | None, files: Mapping[str, str], directory: Path, top: str
) -> None:
    """Have Yosys work in a directory, of which `kept` then holds what is worth keeping."""
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    if library is None:
        written = run_script(yosys, scripts[0], "stat -tech cmos -json", directory)
    else:
        run_script(yosys, scripts[0], "stat -json", directory)
        design = json.loads((directory / "mapped.json").read_text(encoding="utf-8"))
        add_buffers(design["modules"][top], library.buffer, "clk")
        (directory / "buffered.json").write_text(json.dumps(design), encoding="utf-8")
        written = run_script(yosys, scripts[1], "stat -liberty cells.lib -json", directory)
    kept = directory / "kept"
    kept.mkdir()
    (kept / "figures.json").write_text(json.dumps(written["modules"][f"\\{top}"]), encoding="utf-8")
    shutil.move(directory / "memories.txt", kept)
    netlist = directory / "netlist.v"
    if netlist.is_file():
        # OpenSTA does not read `signed`, which means nothing in a netlist.
        text = _SIGNED.sub(r"\1 ", netlist.read_text(encoding="utf-8"))
        (kept / "netlist.v").write_text(text, encoding="utf-8")


def _keep(directory: Path, kept: Path) -> None:
    """Make a folder seen, whole; where another run was faster, its is as good."""
    try:
        (directory / "kept").rename(kept)
    except OSError:
        if not kept.is_dir():
            raise


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def _count(figures: Mapping[str, Any], memories: tuple[Memory, ...], library: Library) -> Area:
    """The area of what Yosys counted (`stat -liberty`), and of the macros."""
    if memories and not library.macros:
        raise SynthesisError(
            f"it has memories of {MACRO_WORDS} words or more, which need SRAM macros: the Liberty folder has none"
        )
    counts: dict[str, int] = figures["num_cells_by_type"]
    known = {macro.name: macro for macro in library.macros}
    unknown = sorted(set(counts) - library.names - set(known))
    if unknown:
        raise SynthesisError(f"cells that {library.cells.name} lacks, and would not be counted: {', '.join(unknown)}")
    macros = tuple(sorted((name, count) for name, count in counts.items() if name in known))
    macro_area = sum(count * known[name].area for name, count in macros)
    return Area(figures.get("area", 0.0), figures.get("sequential_area", 0.0), memories, macros, macro_area)


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
        size, width = (
            int(re.search(rf"parameter (?:signed )?\\{name} (\d+)\n", cell)[1])  # pyright: ignore[reportOptionalSubscript]
            for name in ("SIZE", "WIDTH")
        )
        found.append(Memory(size, width))
    return tuple(found)


def _time(sta: Sta, top: str, inside: Mapping[str, Part], corner: Corner, period: float) -> SlowestPath | None:
    """The slowest path of a unit, or of the core with all its parts; from the cache when it was timed before."""
    used = sorted({name for part in inside.values() for name, _ in part.area.macros})
    missing = [name for name in used if name not in corner.macros]
    if missing:
        raise SynthesisError(f"there is no {corner.name} .lib of SRAM macro {', '.join(missing)}")
    libraries = [corner.cells, *(corner.macros[name] for name in used)]
    netlists = [part.netlist for part in inside.values() if part.netlist is not None]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in (*libraries, *netlists)]
    key = _digest(sta.version, str(period), *texts)
    kept = cache_directory() / "asic" / f"{top}-{corner.name}-{key}.json"
    if not kept.is_file():
        try:
            path = slowest_path(sta, netlists, top, libraries, period=period, borders=top == WIRING)
        except SynthesisError as error:
            raise SynthesisError(f"timing of {top}, {corner.name}: {error}") from error
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{top}-") as name:
            new = Path(name) / "kept.json"
            new.write_text(json.dumps(asdict(path) if path else None), encoding="utf-8")
            new.replace(kept)
    found = json.loads(kept.read_text(encoding="utf-8"))
    return SlowestPath(**found) if found else None
