# SPDX-License-Identifier: Apache-2.0
"""What synthesis makes of an array in each technology: the vendor's cells are there, and the registers are in them."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from amaranth.back import rtlil

from loomwork.arch.config import FORMAL
from loomwork.fpga.yosys import SCRIPT, TOP, find_yosys, run_script
from loomwork.rtl.array import SystolicArray
from loomwork.rtl.technology import PORTABLE, Technology
from loomwork.rtl.technology.ecp5 import Ecp5
from loomwork.rtl.technology.gowin import Gowin
from loomwork.rtl.technology.ice40 import Ice40

PLACES = 4
"""Of the array of FORMAL, 2 x 2."""
LAST_COLUMN = FORMAL.rows * 8
"""Bits of the activations there, which no neighbour needs outside of the cell."""


def cells(technology: Technology, synthesis: str, folder: Path) -> Mapping[str, int]:
    """Cells of the array of FORMAL, by type. synthesis: Yosys's command for the device."""
    platform = SimpleNamespace(technology=technology)
    (folder / "unit.il").write_text(rtlil.convert(SystolicArray(FORMAL, 1), platform=platform, name=TOP))
    script = SCRIPT.replace("synth_ecp5", synthesis)
    figures = run_script(find_yosys(), script, "stat -json", folder)
    return figures["design"]["num_cells_by_type"]


def flip_flops(types: Mapping[str, int]) -> int:
    return sum(count for name, count in types.items() if name.startswith(("TRELLIS_FF", "SB_DFF", "DFF")))


def test_ecp5_takes_over_the_registers(tmp_path: Path):
    portable = cells(PORTABLE, "synth_ecp5", tmp_path)
    found = cells(Ecp5(), "synth_ecp5", tmp_path)
    assert found["MULT18X18D"] == portable["MULT18X18D"] == PLACES
    # Products and active weights.
    assert flip_flops(portable) - flip_flops(found) == PLACES * (16 + 8) + LAST_COLUMN
    assert set(found) == {"MULT18X18D", "TRELLIS_FF", "CCU2C", "LUT4"}


def test_columns_in_logic_leave_the_cells_to_others(tmp_path: Path):
    found = cells(Ecp5(), "synth_ecp5", tmp_path)
    mixed = cells(Ecp5(logic_columns=1), "synth_ecp5", tmp_path)
    assert mixed["MULT18X18D"] == PLACES - FORMAL.rows
    # Of each product: four rows of 10 bits, two sums of 10 and one of 12, in cells of 2 bits.
    assert mixed["CCU2C"] - found["CCU2C"] == FORMAL.rows * (4 * 5 + 2 * 5 + 6)
    assert mixed["LUT4"] == found["LUT4"]


def test_gowin_takes_over_the_registers_without_an_enable(tmp_path: Path):
    synthesis = "synth_gowin -family gw2a -nodsp"
    found = cells(Gowin(), synthesis, tmp_path)
    portable = cells(PORTABLE, "synth_gowin -family gw2a", tmp_path)
    assert found["MULT9X9"] == portable["MULT9X9"] == PLACES
    assert flip_flops(portable) - flip_flops(found) == PLACES * 16 + LAST_COLUMN


def test_ice40_makes_two_products_in_each_cell(tmp_path: Path):
    found = cells(Ice40(), "synth_ice40", tmp_path)
    portable = cells(PORTABLE, "synth_ice40", tmp_path)
    assert found["SB_MAC16"] == PLACES / 2
    assert "SB_MAC16" not in portable
    assert flip_flops(portable) - flip_flops(found) == PLACES * 16 + LAST_COLUMN


def test_ice40_takes_over_weights_as_well_where_two_products_have_the_same_enable(tmp_path: Path):
    found = cells(Ice40(), "synth_ice40", tmp_path)
    holding = cells(Ice40(holds=True), "synth_ice40", tmp_path)
    assert holding["SB_MAC16"] == PLACES - 1  # only the PEs of one diagonal swap together
    assert flip_flops(found) - flip_flops(holding) == PLACES * 8
