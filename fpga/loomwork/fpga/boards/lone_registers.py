# SPDX-License-Identifier: Apache-2.0
"""Registers that have no lookup table of their own, on FPGAs where that costs one.

In a Gowin GW2A, as nextpnr-himbaechel and apycula know it, the data of a register come out of the lookup table beside
it. nextpnr joins a register with the table that drives it and nothing else. For any other register it takes a free
table, through which the data pass and in which there is room for nothing more (himbaechel/uarch/gowin/gowin.cc,
`slice_valid` and `create_passthrough_luts`). A logic cell of an iCE40 has a table and a register behind it likewise,
and nextpnr-ice40 gives a register that no table drives alone a cell of its own (ice40/pack.cc, `pack_nonlut_lcs`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

_TABLES, _TABLE_OUTPUTS = ("LUT", "SB_LUT"), ("F", "O")
_REGISTERS, _REGISTER_INPUT = ("DFF", "SB_DFF"), "D"


def lone_registers(module: Mapping[str, Any]) -> int:
    """How many registers of a module of Yosys's JSON, of Gowin's or the iCE40's cells, cannot join a lookup table."""
    users: Counter[int] = Counter(bit for port in module["ports"].values() for bit in port["bits"])
    from_tables: set[int] = set()
    data: list[int] = []
    for cell in module["cells"].values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                users.update(bits)
            elif port in _TABLE_OUTPUTS and cell["type"].startswith(_TABLES):
                from_tables.update(bits)
        if cell["type"].startswith(_REGISTERS):
            data += cell["connections"][_REGISTER_INPUT]
    return sum(bit not in from_tables or users[bit] > 1 for bit in data)
