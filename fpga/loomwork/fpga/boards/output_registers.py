# SPDX-License-Identifier: Apache-2.0
"""Moves registers behind the block RAMs of an ECP5 into them.

Data leave a DP16KD 5.7 ns after its clock, and its own output register after less than one (Lattice, FPGA-TN-02204,
"ECP5 and ECP5-5G Memory Usage Guide": "Output register"). Yosys does not use those registers: where the design has one
behind a memory, it becomes flip-flops, 18 or 36 for each block.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

_MEMORY, _REGISTER = "DP16KD", "TRELLIS_FF"
_PORTS = ("A", "B")
_WIDE = 36
"""Bits of a word that leaves through both ports' outputs. Yosys enables the register of only one of them."""


def use_output_registers(module: Mapping[str, Any]) -> int:
    """Let block RAMs do the work of the flip-flops behind them, in a module of Yosys's JSON; how many those were.

    Only where all outputs of a port go to flip-flops and nowhere else, and these take a new value in each cycle: the
    output register has one enable, and a reset that this leaves alone.
    """
    cells = module["cells"]
    users: dict[Any, list[tuple[str, str]]] = defaultdict(list)
    for port in module["ports"].values():
        for bit in port["bits"]:
            users[bit].append(("", ""))
    for name, cell in cells.items():
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                for bit in bits:
                    users[bit].append((name, pin))
    removed = 0
    for memory in [cell for cell in cells.values() if cell["type"] == _MEMORY]:
        for ports in _groups(memory):
            outputs = [pin for pin in _outputs(memory, ports) if users[memory["connections"][pin][0]]]
            behind = [users[memory["connections"][pin][0]] for pin in outputs]
            clock = memory["connections"][f"CLK{ports[0]}"]
            if outputs and all(len(ends) == 1 and _is_plain(cells, *ends[0], clock) for ends in behind):
                for pin, ends in zip(outputs, behind, strict=True):
                    memory["connections"][pin] = cells.pop(ends[0][0])["connections"]["Q"]
                for port in ports:
                    memory["parameters"][f"REGMODE_{port}"] = "OUTREG"
                    memory["connections"][f"OCE{port}"] = ["1"]
                removed += len(outputs)
    return removed


def _groups(memory: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The ports of a memory whose outputs belong together: of one clock, and never reset."""
    is_wide = any(int(memory["parameters"][f"DATA_WIDTH_{port}"], 2) == _WIDE for port in _PORTS)
    for ports in [_PORTS] if is_wide else [(port,) for port in _PORTS]:
        connections = memory["connections"]
        is_reset = any(connections[f"RST{port}"] != ["0"] for port in ports)
        if not is_reset and all(connections[f"CLK{port}"] == connections[f"CLK{ports[0]}"] for port in ports):
            yield ports


def _outputs(memory: Mapping[str, Any], ports: tuple[str, ...]) -> list[str]:
    return [pin for pin in memory["connections"] if pin.startswith(tuple(f"DO{port}" for port in ports))]


def _is_plain(cells: Mapping[str, Any], name: str, pin: str, clock: list[Any]) -> bool:
    """Whether a pin is the data of a flip-flop that only waits for a clock, and is 0 in the beginning."""
    if not name or cells[name]["type"] != _REGISTER or pin not in ("DI", "M"):
        return False
    connections, parameters = cells[name]["connections"], cells[name]["parameters"]
    return (
        connections["CLK"] == clock
        and parameters.get("CLKMUX", "CLK") == "CLK"
        and parameters.get("CEMUX", "1").strip() == "1"
        and connections.get("LSR", ["0"]) == ["0"]
        and parameters.get("REGSET", "RESET") == "RESET"
    )
