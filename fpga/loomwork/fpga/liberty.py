# SPDX-License-Identifier: Apache-2.0
"""Read a folder of Liberty files: standard cells and SRAM macros, at one or two corners.

Only what the flow needs is read, by patterns; Yosys and OpenSTA read the files whole, and complain of what is wrong.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loomwork.fpga.yosys import SynthesisError

CORNERS = {"typical": {"typ", "typical", "tt", "nom"}, "slow": {"slow", "ss", "wc", "worst"}}
"""Corners of which timing is reported, the first for synthesis too, and how libraries call them in their names."""
_OTHER_CORNERS = {"fast", "ff", "bc", "best"}

_CELL = re.compile(r"^\s*cell\s*\(\s*\"?(\w+)\"?\s*\)", re.MULTILINE)
_PIN = re.compile(r"^\s*(?:pin|bus)\s*\(\s*\"?(\w+)\"?\s*\)", re.MULTILINE)
_CELL_PIN = re.compile(r"\bpin\s*\(\s*\"?(\w+)\"?\s*\)")
_FUNCTION = re.compile(r"\bfunction\s*:\s*\"\s*\(?(\w+)\)?\s*\"")
_STRENGTH = 4
"""Of the buffer to choose, compared with the weakest."""
_MEMORY = re.compile(r"^\s*memory\s*\(\s*\)", re.MULTILINE)
_FLIP_FLOP = re.compile(r"^\s*ff\s*\(", re.MULTILINE)
_DELAYS = re.compile(r"\bcell_(?:rise|fall)\s*\([^)]*\)\s*\{(.*?)\}", re.DOTALL)
_VALUES = re.compile(r"values\s*\((.*?)\)", re.DOTALL)


@dataclass(frozen=True)
class Macro:
    """An SRAM macro. pins: without those of the supply. ports: letters of its ports, each of which reads or writes one
    word per cycle. masked: each bit has a write enable. area: um2. access: ns from the clock to the data, the longest
    of the table.
    """

    name: str
    words: int
    width: int
    ports: tuple[str, ...]
    masked: bool
    area: float
    access: float
    pins: tuple[str, ...]

    @property
    def address_bits(self) -> int:
        """Bits of an address."""
        return (self.words - 1).bit_length()


@dataclass(frozen=True)
class Buffer:
    """A buffer of the standard cells, and its pins. weaker: names of others that drive less, with the same pins."""

    name: str
    input: str
    output: str
    weaker: frozenset[str]


@dataclass(frozen=True)
class Corner:
    """name: of CORNERS. cells: file of the standard cells. macros: file of each macro, by its name."""

    name: str
    cells: Path
    macros: Mapping[str, Path]


@dataclass(frozen=True)
class Library:
    """corners: those of CORNERS that there are, in that order. names: of the standard cells. flip_flops: those of
    them that are such, and flip_flop_area: of the smallest, um2. buffer: one of medium strength. macros: of the first
    corner.
    """

    corners: tuple[Corner, ...]
    names: frozenset[str]
    flip_flops: tuple[str, ...]
    flip_flop_area: float
    buffer: Buffer
    macros: tuple[Macro, ...]

    @property
    def cells(self) -> Path:
        """The standard cells that the synthesis uses."""
        return self.corners[0].cells


def read_library(folder: Path) -> Library:
    """The `.lib` files of a folder: standard cells (a file with flip-flops), and SRAM macros (one cell with a `memory`
    group each).

    The corner of a file is told by a word of its name, or of its `operating_conditions`; files that do not tell are of
    the typical one. Raises SynthesisError when there are no standard cells, when two files of them are of the same
    corner, or when a file lacks a figure; OSError when one cannot be read.
    """
    standard: dict[str, tuple[Path, str]] = {}
    macros: dict[str, dict[str, tuple[Path, str]]] = {corner: {} for corner in CORNERS}
    for path in sorted(folder.glob("*.lib")):
        text = path.read_text(encoding="utf-8", errors="replace")
        corner = _corner(path, text)
        if corner is None:
            continue
        if _MEMORY.search(text):
            macros[corner][_only_cell(path, text)] = (path, text)
        elif _FLIP_FLOP.search(text):
            if corner in standard:
                raise SynthesisError(f"{standard[corner][0].name} and {path.name} are both standard cells, {corner}")
            standard[corner] = (path, text)
    present = [name for name in CORNERS if name in standard]
    if not present:
        raise SynthesisError(f"{folder} has no .lib file with flip-flops; name the folder of a standard cell library")
    path, text = standard[present[0]]
    cells = _cells(text)
    flip_flops = {name: cell for name, cell in cells.items() if _FLIP_FLOP.search(cell)}
    return Library(
        tuple(
            Corner(name, standard[name][0], {macro: file for macro, (file, _) in sorted(macros[name].items())})
            for name in present
        ),
        frozenset(cells),
        tuple(flip_flops),
        min(_number(path, cell, "area") for cell in flip_flops.values()),
        _choose_buffer(path, cells),
        tuple(_read_macro(name, *source) for name, source in sorted(macros[present[0]].items())),
    )


def _corner(path: Path, text: str) -> str | None:
    """The corner of CORNERS that a file is of; None for one that is not used."""
    conditions = re.search(r"\boperating_conditions\s*\(\s*\"?(\w+)", text)
    for name in (path.stem, conditions[1] if conditions else ""):
        words = set(re.split(r"[_\W]+", name.lower()))
        for corner, called in CORNERS.items():
            if words & called:
                return corner
        if words & _OTHER_CORNERS:
            return None
    return next(iter(CORNERS))


def _only_cell(path: Path, text: str) -> str:
    cells = _CELL.findall(text)
    if len(cells) != 1:
        raise SynthesisError(f"{path}: {len(cells)} cells in a file with a memory, where one is expected")
    return cells[0]


def _cells(text: str) -> dict[str, str]:
    """The text of each cell, by its name."""
    starts = [*_CELL.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return {match[1]: text[match.end() : end] for match, end in zip(starts, ends, strict=True)}


def _choose_buffer(path: Path, cells: Mapping[str, str]) -> Buffer:
    """The smallest buffer that drives at least four times what the weakest does, as far as the library tells."""
    found: list[tuple[float, str, float, str, str]] = []
    for name, cell in cells.items():
        pins, function = _CELL_PIN.findall(cell), _FUNCTION.findall(cell)
        if len(pins) == 2 and len(function) == 1 and function[0] in pins and "dont_use" not in cell:
            drives = re.search(r"\bmax_capacitance\s*:\s*\"?([\d.]+)", cell)
            output = next(pin for pin in pins if pin != function[0])
            drive = float(drives[1]) if drives else 0.0
            found.append((_number(path, cell, "area"), name, drive, function[0], output))
    if not found:
        raise SynthesisError(f"{path} has no buffer, a cell whose one output is its one input")
    weakest = min(drive for _, _, drive, _, _ in found)
    _, name, drive, *pins = min([one for one in found if one[2] >= _STRENGTH * weakest] or found)
    weaker = frozenset(other for _, other, less, *same in found if less < drive and same == pins)
    return Buffer(name, pins[0], pins[1], weaker)


def _read_macro(name: str, path: Path, text: str) -> Macro:
    text = text[_CELL.search(text).end() :]  # pyright: ignore[reportOptionalMemberAccess]
    pins = tuple(dict.fromkeys(_PIN.findall(text)))
    return Macro(
        name,
        2 ** int(_number(path, text, "address_width")),
        int(_number(path, text, "word_width")),
        tuple(pin.removesuffix("_CLK") for pin in pins if re.fullmatch(r"[A-Z]_CLK", pin)),
        any(re.fullmatch(r"[A-Z]_BM", pin) for pin in pins),
        _number(path, text, "area"),
        max((float(value) for table in _DELAYS.findall(text) for value in _values(table)), default=0.0),
        pins,
    )


def _values(table: str) -> list[str]:
    """The numbers of a table of delays."""
    return [value for row in _VALUES.findall(table) for value in re.findall(r"-?\d[\d.]*(?:[eE][+-]?\d+)?", row)]


def _number(path: Path, text: str, attribute: str) -> float:
    match = re.search(rf"\b{attribute}\s*:\s*\"?([\d.]+(?:[eE][+-]?\d+)?)", text)
    if match is None:
        raise SynthesisError(f"{path}: no {attribute} found; is it a Liberty file?")
    return float(match[1])
