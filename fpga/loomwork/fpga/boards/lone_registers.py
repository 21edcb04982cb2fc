# SPDX-License-Identifier: Apache-2.0
"""Registers that have no lookup table of their own, on FPGAs where that costs one.

In a Gowin GW2A, as nextpnr-himbaechel and apycula know it, the data of a register come out of the lookup table beside
it. nextpnr joins a register with the table that drives it and nothing else. For any other register it takes a free
table, through which the data pass and in which there is room for nothing more (himbaechel/uarch/gowin/gowin.cc,
`slice_valid` and `create_passthrough_luts`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

_TABLE, _TABLE_OUTPUT = "LUT", "F"
_REGISTER, _REGISTER_INPUT = "DFF", "D"


def lone_registers(module: Mapping[str, Any]) -> int:
    """How many registers of a module of Yosys's JSON, of Gowin's cells, cannot be joined with a lookup table."""
    users: Counter[int] = Counter(bit for port in module["ports"].values() for bit in port["bits"])
    from_tables: set[int] = set()
    data: list[int] = []
    for cell in module["cells"].values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                users.update(bits)
            elif port == _TABLE_OUTPUT and cell["type"].startswith(_TABLE):
                from_tables.update(bits)
        if cell["type"].startswith(_REGISTER):
            data += cell["connections"][_REGISTER_INPUT]
    return sum(bit not in from_tables or users[bit] > 1 for bit in data)
