# SPDX-License-Identifier: Apache-2.0
"""What there is to know of a board."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loomwork.arch.config import Config
from loomwork.fpga.boards.clocking import PllCell, PllLimits
from loomwork.rtl.technology import Technology


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Parts of a device: what it has, or what a design takes.

    luts: lookup tables of four inputs. registers: flip-flops. multipliers: DSP cells. blocks: of block RAM.
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

    synthesis: the command of Yosys. placer, packer: names of tools. constraints: file name of pin constraints; what
    goes before it in the placer's arguments. routed: likewise of the placer's result. bitstream: file name of the
    packer's result. pack_arguments: of the packer.
    luts: how many lookup tables a cell takes, by Yosys's type; registers, multipliers, blocks: beginnings of types.
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
    multipliers: tuple[str, ...]
    blocks: tuple[str, ...]
    pll_limits: PllLimits | None
    pll_cell: PllCell | None

    def resources(self, cells: Mapping[str, int]) -> Resources:
        """What cells take, by Yosys's types."""

        def count(beginnings: tuple[str, ...]) -> int:
            return sum(number for kind, number in cells.items() if kind.startswith(beginnings))

        return Resources(
            luts=sum(self.luts.get(kind, 0) * number for kind, number in cells.items()),
            registers=count(self.registers),
            multipliers=count(self.multipliers),
            blocks=count(self.blocks),
        )


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board.

    name: for the command line. title: for people. device: its FPGA. platform: makes Amaranth's description of it.
    oscillator: name of the clock's pins there. oscillator_mhz: its frequency. config: what it is built for by default.
    memory_kib: of block RAM that serves as external memory. clock_mhz: what the design shall run at.
    place_arguments: which device the placer takes. technology: the multipliers of the FPGA.
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
