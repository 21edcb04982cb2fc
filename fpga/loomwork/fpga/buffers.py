# SPDX-License-Identifier: Apache-2.0
"""Buffer trees behind all that drives many cells; stronger buffers where `abc` has weak ones.

`abc` buffers gates, though in a large unit not all (one of 16 lanes kept a gate with 3,331 loads). What drives its
inputs it does not see, so that a flip-flop would drive a thousand gates (`buffer -p`, meant for that, changes nothing).
Nor does it know when they arrive: behind a macro, whose data come late, it saves area where there is no time to lose.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from loomwork.fpga.liberty import Buffer

FANOUT = 16
"""Inputs of cells that one output or port drives at most."""
WEAK_FANOUT = 4
"""Cells that one of the weaker buffers drives at most."""


def add_buffers(module: dict[str, Any], buffer: Buffer, clock: str) -> int:
    """Put buffers into a module, as Yosys's `write_json` writes it, replace weak ones, and say how many were put in.

    clock: the input that needs none; a layout makes its tree.
    """
    cells: dict[str, Any] = module["cells"]
    loads: dict[int, list[tuple[list[int | str], int]]] = defaultdict(list)
    driven: set[int] = set()
    highest = 0
    for _, cell in sorted(cells.items()):
        for pin, bits in cell["connections"].items():
            output = cell["port_directions"][pin] == "output"
            for place, bit in enumerate(bits):
                if isinstance(bit, int):
                    highest = max(highest, bit)
                    if not output:
                        loads[bit].append((bits, place))
                    else:
                        driven.add(bit)
    for name, port in module["ports"].items():
        highest = max(highest, *(bit for bit in port["bits"] if isinstance(bit, int)), 0)
        if port["direction"] == "input" and name != clock:
            driven |= {bit for bit in port["bits"] if isinstance(bit, int)}
    for cell in cells.values():
        if cell["type"] in buffer.weaker and len(loads[cell["connections"][buffer.output][0]]) > WEAK_FANOUT:
            cell["type"] = buffer.name
    new = _numbers(highest)
    added = 0
    for source in sorted(driven):
        level = loads[source]
        while len(level) > FANOUT:
            above: list[tuple[list[int | str], int]] = []
            for start in range(0, len(level), FANOUT):
                output = next(new)
                for bits, place in level[start : start + FANOUT]:
                    bits[place] = output
                inputs: list[int | str] = [source]
                cells[f"fanout_{added}"] = _buffer_cell(buffer, inputs, output)
                above.append((inputs, 0))
                added += 1
            level = above
    return added


def _numbers(highest: int) -> Iterator[int]:
    """Numbers of new nets."""
    while True:
        highest += 1
        yield highest


def _buffer_cell(buffer: Buffer, inputs: list[int | str], output: int) -> dict[str, Any]:
    return {
        "hide_name": 0,
        "type": buffer.name,
        "parameters": {},
        "attributes": {},
        "port_directions": {buffer.input: "input", buffer.output: "output"},
        "connections": {buffer.input: inputs, buffer.output: [output]},
    }
