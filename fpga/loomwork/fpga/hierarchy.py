# SPDX-License-Identifier: Apache-2.0
"""Take the core's RTLIL apart: each unit by itself, and the wiring that joins them.

Put together again, the netlists of the parts are the netlist of the core.
"""

import re

from amaranth.back import rtlil

from loomwork.arch.config import Config
from loomwork.fpga.area import UNITS
from loomwork.rtl.core import Core

WIRING = "core"
"""Name of the part that joins the units, and of its module: the top of the whole."""

_PLACES = {
    "array": "execute.array",
    "feed": "execute.feed",
    "accumulator": "execute.accumulator",
    "sequencer": "execute.sequencer",
    "weights": "execute.loader",
}
"""Where a unit lies when it is not directly in the core under its own name."""
_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module \\(\S+)\n.*?^end\n", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^ *cell \\(\S+) ", re.MULTILINE)
_PORT = re.compile(r"^ *wire [^\n]*\b(?:input|output|inout) \d+ [^\n]*\n", re.MULTILINE)


def parts(config: Config) -> dict[str, str]:
    """RTLIL of every unit by its name, and of what joins them as WIRING, in which the units are black boxes.

    Each part's top module has the name of the part.
    """
    source = rtlil.convert(Core(config), name=WIRING, emit_src=False)
    modules = {match[1]: match[0] for match in _MODULE.finditer(source)}
    # Amaranth adds a number to the name of a submodule that is also a signal's name.
    named = {re.sub(r"\$\d+$", "", name): name for name in modules}
    tops = {unit.name: named[f"{WIRING}.{_PLACES.get(unit.name, unit.name)}"] for unit in UNITS}
    result: dict[str, str] = {}
    boxes: dict[str, str] = {}
    for unit, top in tops.items():
        inside = _below(top, modules)
        renamed = modules[top].replace(f"module \\{top}\n", f"module \\{unit}\n", 1)
        result[unit] = "".join([renamed, *(modules[name] for name in inside if name != top)])
        boxes[unit] = f"attribute \\blackbox 1\nmodule \\{unit}\n{''.join(_PORT.findall(renamed))}end\n"
    inside_units = {name for top in tops.values() for name in _below(top, modules)}
    wiring = "".join(text for name, text in modules.items() if name not in inside_units)
    for unit, top in tops.items():
        wiring = wiring.replace(f"cell \\{top} ", f"cell \\{unit} ")
    result[WIRING] = wiring + "".join(boxes.values())
    return result


def _below(top: str, modules: dict[str, str]) -> list[str]:
    """A module and all that are instanced in it, at any depth."""
    found, waiting = [top], [top]
    while waiting:
        for name in _CELL.findall(modules[waiting.pop()]):
            if name in modules and name not in found:
                found.append(name)
                waiting.append(name)
    return found
