# SPDX-License-Identifier: Apache-2.0
"""From a board's design to a netlist of the FPGA's cells, counted unit by unit."""

import hashlib
import inspect
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.hdl import Elaboratable

from loomwork.fpga.boards.board import Board, Resources
from loomwork.fpga.boards.lone_registers import lone_registers
from loomwork.fpga.floorplan import fix_blocks, recipe_of_floorplan
from loomwork.fpga.yosys import Yosys, run_script
from loomwork.rtl.compact.processor import MODULE as PROCESSOR
from loomwork.rtl.compact.processor import processor_verilog
from loomwork.sim.toolchain import cache_directory

TOP = "top"
NETLIST = "netlist.json"

UNITS = {
    "array": "core.execute.array",
    "feed": "core.execute.feed",
    "accumulators": "core.execute.accumulator",
    "drain": "core.drain",
    "scratchpad": "core.scratchpad",
    "load": "core.load",
    "stream": "core.stream",
    "store": "core.store",
    "fetch": "core.fetch",
    "dispatch": "core.dispatch",
    "registers": "core.csr",
    "memory": "memory",
}
"""Units that are counted by themselves, and where they are in the system. What remains is the last line."""
COMPACT_UNITS = {
    "processor": "core.processor",
    "walker": "core.engine.walker",
    "array": "core.engine.datapath",
    "requantizer": "core.engine.requantizer",
    "memory": "core.memory",
}
"""Likewise of the compact core."""
REST = "control, host link"
LONE = "lone registers"
"""Line of the lookup tables that registers without one of their own take, where they do."""


def unit_of(cell: str) -> str:
    """The unit that a cell of the flattened design is counted in; REST for what is in none of them."""
    units = (*UNITS.items(), *COMPACT_UNITS.items())
    return next((unit for unit, path in units if cell.startswith(f"system.{path}.")), REST)


@dataclass(frozen=True, kw_only=True)
class Netlist:
    """A synthesized design.

    folder: of the files `netlist.json` and constraints; its name tells all that has decided them. units: what each
    takes.
    """

    folder: Path
    units: Mapping[str, Resources]

    @property
    def total(self) -> Resources:
        """What all takes."""
        return sum(self.units.values(), Resources())

    def floorplan(self) -> dict[str, str]:
        """The sites that cells have been given, nextpnr's name by cell."""
        cells = json.loads((self.folder / NETLIST).read_text(encoding="utf-8"))["modules"][TOP]["cells"]
        return {name: cells[name]["attributes"]["BEL"] for name in sorted(cells) if "BEL" in cells[name]["attributes"]}


def script(board: Board) -> str:
    """What Yosys does with `top.il`.

    All but replicas (rtl/replica.py), which stay apart, is one module from the beginning: what is slow is slow across
    the borders of units. Cells have names that begin with those of their unit.
    """
    sources = "".join(f"read_verilog -defer {name}; " for name in verilog_sources(board))
    replicas = "" if board.compact else f"setattr -mod -set keep_hierarchy 1 {TOP}.system.core.*_replica; "
    # No word is used that was read in the cycle in which it was written. Amaranth asks for the old one all the same,
    # for which Yosys would put comparators, registers and multiplexers around each memory.
    # As in yosys.py: names that Amaranth gives to elements of arrays confuse abc9.
    return (
        f"read_rtlil {TOP}.il; {sources}hierarchy -top {TOP}; {replicas}"
        "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i; proc; flatten; "
        f"rename -hide w:*\\[*; {board.family.synthesis.format(top=TOP)}; "
        f"setattr -mod -unset keep_hierarchy *; flatten; clean; write_json {NETLIST}"
    )


def verilog_sources(board: Board) -> dict[str, str]:
    """What a board's design needs beside what Amaranth generates, by file name."""
    return {f"{PROCESSOR}.v": processor_verilog()} if board.compact else {}


def synthesize(board: Board, design: Elaboratable, yosys: Yosys, *, report: Callable[[str], None]) -> Netlist:
    """Synthesize, or find in the cache what was made from the same design by the same Yosys.

    report: told what takes long. Raises SynthesisError when Yosys fails.
    """
    report("generating the design")
    platform = board.platform()
    platform.technology = board.technology
    wanted = (f"{TOP}.il", board.family.constraints_file)
    files: Mapping[str, Any] = platform.prepare(design, TOP, emit_src=False).files
    sources = {name: _text(content) for name, content in files.items() if name in wanted}
    sources |= verilog_sources(board)
    recipe = script(board)
    key = _key(yosys.version, recipe, _recipe_of_improvement(board), *sources.values())
    folder = cache_directory() / "boards" / f"{board.name}-{key}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        report("synthesis")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{board.name}-") as directory:
            made = Path(directory) / "made"
            made.mkdir()
            for name, content in sources.items():
                (made / name).write_text(content, encoding="utf-8")
            run_script(yosys, recipe, "stat -json", made)
            _improve(board, made / NETLIST)
            # A folder is complete from the moment it can be seen.
            made.rename(folder)
    units = _units(board, folder)
    return Netlist(folder=_planned(board, folder, report), units=units)


def _key(*parts: str) -> str:
    """A name for what is made of these."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _planned(board: Board, folder: Path, report: Callable[[str], None]) -> Path:
    """A folder with the same files, but for the floorplan in the netlist; the same folder for a board without one."""
    if not board.fabric:
        return folder
    earlier = board.floorplan()
    planned = folder / f"floorplan-{_key(recipe_of_floorplan(), repr(board.fabric), json.dumps(earlier))}"
    if not planned.is_dir():
        report("floorplan")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".floorplan-") as directory:
            made = Path(directory) / "made"
            made.mkdir()
            fix_blocks(folder / NETLIST, made / NETLIST, TOP, board.fabric, earlier)
            shutil.copy(folder / board.family.constraints_file, made)
            made.rename(planned)
    return planned


def _recipe_of_improvement(board: Board) -> str:
    """The text of what changes the netlist of Yosys."""
    return inspect.getsource(sys.modules[board.family.improve.__module__]) if board.family.improve else ""


def _improve(board: Board, netlist: Path) -> None:
    """Change what Yosys has written as the family wants it."""
    if board.family.improve:
        design = json.loads(netlist.read_text(encoding="utf-8"))
        board.family.improve(design["modules"][TOP])
        netlist.write_text(json.dumps(design), encoding="utf-8")


def _text(content: Any) -> str:
    return content.decode() if isinstance(content, bytes) else str(content)


def _units(board: Board, folder: Path) -> dict[str, Resources]:
    """What each unit takes, by the names of its cells."""
    module = json.loads((folder / NETLIST).read_text(encoding="utf-8"))["modules"][TOP]
    kinds = {unit: Counter[str]() for unit in (*(COMPACT_UNITS if board.compact else UNITS), REST)}
    for name, cell in module["cells"].items():
        kinds[unit_of(name)][cell["type"]] += 1
    units = {unit: board.family.resources(cells) for unit, cells in kinds.items()}
    if board.family.lone_registers:
        units[LONE] = Resources(luts=lone_registers(module))
    return units
