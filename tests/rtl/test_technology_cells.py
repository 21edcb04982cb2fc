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

PLACES = 4
"""Of the array of FORMAL, 2 x 2."""


def cells(technology: Technology, synthesis: str, folder: Path) -> Mapping[str, int]:
    """Cells of the array of FORMAL, by type. synthesis: Yosys's command for the device."""
    platform = SimpleNamespace(technology=technology)
    (folder / "unit.il").write_text(rtlil.convert(SystolicArray(FORMAL, 1), platform=platform, name=TOP))
    script = SCRIPT.replace("synth_ecp5", synthesis)
    figures = run_script(find_yosys(), script, "stat -json", folder)
    return figures["design"]["num_cells_by_type"]


def test_ecp5_takes_over_the_registers(tmp_path: Path):
    portable = cells(PORTABLE, "synth_ecp5", tmp_path)
    found = cells(Ecp5(), "synth_ecp5", tmp_path)
    assert found["MULT18X18D"] == portable["MULT18X18D"] == PLACES
    # Products and active weights, and the activations of the last column, which no neighbour needs.
    registers = PLACES * (16 + 8) + FORMAL.rows * 8
    assert portable["TRELLIS_FF"] - found["TRELLIS_FF"] == registers
    assert set(found) == {"MULT18X18D", "TRELLIS_FF", "CCU2C", "LUT4"}


def test_columns_in_logic_leave_the_cells_to_others(tmp_path: Path):
    found = cells(Ecp5(), "synth_ecp5", tmp_path)
    mixed = cells(Ecp5(logic_columns=1), "synth_ecp5", tmp_path)
    assert mixed["MULT18X18D"] == PLACES - FORMAL.rows
    # Of each product: four rows of 10 bits, two sums of 10 and one of 12, in cells of 2 bits.
    assert mixed["CCU2C"] - found["CCU2C"] == FORMAL.rows * (4 * 5 + 2 * 5 + 6)
    assert mixed["LUT4"] == found["LUT4"]
