# SPDX-License-Identifier: Apache-2.0
"""The counters of a run for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from loomwork.sim.breakdown import IDLE, WAIT, WORK, UnitTime

KINDS = {WORK: "works", WAIT: "waits for", IDLE: "is idle"}
"""What a unit does, in plain words."""


def breakdown_table(units: Sequence[UnitTime]) -> Table:
    """A line for all that a unit did, longest first; what never happened is left out."""
    table = Table("unit", "", "")
    table.add_column("cycles", justify="right")
    table.add_column("share", justify="right")
    for unit in units:
        table.add_section()
        total = sum(part.cycles for part in unit.parts)
        name = unit.unit
        for part in sorted(unit.parts, key=lambda part: -part.cycles):
            if part.cycles:
                table.add_row(name, KINDS[part.kind], part.what, f"{part.cycles:,}", f"{part.cycles / total:.1%}")
                name = ""
    return table
