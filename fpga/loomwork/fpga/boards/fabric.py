# SPDX-License-Identifier: Apache-2.0
"""Where a device has its multipliers and block RAMs, for a floorplan."""

from collections.abc import Mapping
from dataclasses import dataclass

DSP = "MULT18X18D"
BLOCK_RAM = "DP16KD"


class FloorplanError(ValueError):
    """A netlist that does not fit the sites; one sentence for the user."""


@dataclass(frozen=True)
class Site:
    """A place for one cell. bel: nextpnr's name for it. x, y: its tile. block: the sites that have it share enables."""

    bel: str
    x: int
    y: int
    block: str


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """The tiles of a device.

    width, height: how many. tile_luts: lookup tables of four inputs in a tile of logic. sites: by kind of cell; the
    rows in which there are some have no logic. kinds: what else goes there, by Yosys's type.
    enables: clock enables that the sites of a block may have together.
    """

    width: int
    height: int
    tile_luts: int
    sites: Mapping[str, tuple[Site, ...]]
    kinds: Mapping[str, str]
    enables: int

    def kind(self, cell_type: str) -> str | None:
        """The kind of site that a cell needs; None for logic."""
        name = self.kinds.get(cell_type, cell_type)
        return name if name in self.sites else None


def _sites(rows: tuple[int, ...], names: Mapping[int, str], columns: tuple[int, ...]) -> tuple[Site, ...]:
    """names: of the sites of a block, by their distance from its first column."""
    return tuple(
        Site(f"X{column + place}/Y{row}/{name}", column + place, row, f"{column}/{row}")
        for row in rows
        for column in columns
        for place, name in names.items()
    )


# The clocks' tiles are in the middle.
_COLUMNS = (*range(4, 67, 9), *range(69, 120, 9))
LFE5U_85F = Fabric(
    width=126,
    height=95,
    tile_luts=8,
    sites={
        DSP: _sites((10, 34, 58), {0: "MULT18_0", 1: "MULT18_1", 4: "MULT18_4", 5: "MULT18_5"}, _COLUMNS),
        BLOCK_RAM: _sites((22, 46, 70, 82), {0: "EBR0", 2: "EBR1", 4: "EBR2", 6: "EBR3"}, _COLUMNS),
    },
    kinds={"PDPW16KD": BLOCK_RAM},
    # There are four wires; one is for the constant of multipliers that have none.
    enables=3,
)
"""Lattice ECP5 with 84 k lookup tables. Source: the tile grid of Project Trellis, and nextpnr's names."""
