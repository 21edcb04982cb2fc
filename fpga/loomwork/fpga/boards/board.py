# SPDX-License-Identifier: Apache-2.0
"""What there is to know of a board."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loomwork.arch.config import Config
from loomwork.fpga.boards.clocking import GateCell, PllCell, PllLimits
from loomwork.fpga.boards.fabric import Fabric, FloorplanError
from loomwork.rtl.technology import Technology


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Parts of a device: what it has, or what a design takes.

    luts: lookup tables of four inputs. registers: flip-flops. multipliers: DSP cells, on Gowin in those of 9 x 9 bits.
    blocks: of block RAM.
    """

    luts: int = 0
    registers: int = 0
    multipliers: int = 0
    blocks: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            luts=self.luts + other.luts,
            registers=self.registers + other.registers,
            multipliers=self.multipliers + other.multipliers,
            blocks=self.blocks + other.blocks,
        )


@dataclass(frozen=True, kw_only=True)
class Family:
    """What all boards with the same kind of FPGA have in common.

    synthesis: the commands of Yosys, with `{top}` for the module. placer, packer: names of tools.
    constraints: the placer's arguments for the pin constraints, the last one the file or `NAME=file`. routed: likewise
    for its result. bitstream: file name of the packer's result. pack_arguments: of the packer.
    luts, multipliers: how many a cell takes, by Yosys's type. registers, blocks: beginnings of types.
    lone_registers: where the data of a register come through the lookup table beside it, so that one without a table of
    its own takes the place of one: the share of all registers that at least are such. Otherwise 0.
    products: multipliers that a product of the array takes, and any other one.
    block_bits, block_widths: of a block of memory, without bits for parity; its widths. lut_words: memories of at most
    so many words become lookup tables.
    place_options: of the placer, for all devices of the family.
    improve: changes a module of Yosys's JSON, in place, for what Yosys does not use.
    pll_limits, pll_cell: None where a design runs at the oscillator's frequency. gate_cell: stops the clock until it is
    stable; None = a reset of all flip-flops instead.
    """

    name: str
    synthesis: str
    placer: str
    packer: str
    constraints: tuple[str, str]
    routed: tuple[str, str]
    pack_arguments: tuple[str, ...]
    bitstream: str
    luts: Mapping[str, int]
    registers: tuple[str, ...]
    multipliers: Mapping[str, int]
    blocks: tuple[str, ...]
    products: tuple[float, float]
    block_bits: int
    block_widths: tuple[int, ...]
    lut_words: int
    pll_limits: PllLimits | None
    pll_cell: PllCell | None
    place_options: tuple[str, ...] = ()
    gate_cell: GateCell | None = None
    lone_registers: float = 0
    improve: Callable[[Mapping[str, Any]], object] | None = None

    def resources(self, cells: Mapping[str, int]) -> Resources:
        """What cells take, by Yosys's types."""

        def count(beginnings: tuple[str, ...]) -> int:
            return sum(number for kind, number in cells.items() if kind.startswith(beginnings))

        def weigh(weights: Mapping[str, int]) -> int:
            return sum(weights.get(kind, 0) * number for kind, number in cells.items())

        return Resources(
            luts=weigh(self.luts),
            registers=count(self.registers),
            multipliers=weigh(self.multipliers),
            blocks=count(self.blocks),
        )

    def memory_blocks(self, width: int, depth: int) -> int:
        """Blocks for a memory of `depth` words of `width` bits, in the best of their shapes."""
        if depth <= self.lut_words:
            return 0
        return min(-(-width // bits) * -(-depth // (self.block_bits // bits)) for bits in self.block_widths)

    @property
    def constraints_file(self) -> str:
        """Name of the file of pin constraints."""
        return self.constraints[-1].split("=")[-1]


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board.

    name: for the command line. title: for people. device: its FPGA. platform: makes Amaranth's description of it.
    oscillator: name of the clock's pins there. oscillator_mhz: its frequency. config: what it is built for by default.
    memory_kib: of RAM that serves as external memory. clock_mhz: what the design shall run at.
    fabric: for a floorplan of its multipliers and block RAMs; None = the placer is left alone with them.
    floorplan_file: JSON of one that is kept for designs that are nearly the same.
    place_arguments: which device the placer takes. technology: the multipliers of the FPGA.
    compact: whether it has the compact core (rtl/compact), because the other one does not fit.
    """

    name: str
    title: str
    device: str
    family: Family
    platform: Callable[[], Any]
    oscillator: str
    oscillator_mhz: float
    config: Config
    memory_kib: int
    clock_mhz: float
    capacity: Resources
    place_arguments: tuple[str, ...]
    technology: Technology
    compact: bool = False
    fabric: Fabric | None = None
    floorplan_file: Path | None = None

    def floorplan(self) -> dict[str, str]:
        """The floorplan that is kept: nextpnr's name of the site by cell. Empty when there is none.

        Raises FloorplanError for a file that is not one.
        """
        if self.floorplan_file is None or not self.floorplan_file.is_file():
            return {}
        try:
            found = json.loads(self.floorplan_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FloorplanError(f"{self.floorplan_file} is no JSON: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(site, str) for site in found.values()):
            raise FloorplanError(f"{self.floorplan_file} does not say the site of each cell")
        return found
