# SPDX-License-Identifier: Apache-2.0
"""The one wrapper between the memories of the design and the SRAM macros of a library.

Yosys's `memory_libmap` makes a memory a grid of macros: it decodes addresses, chooses between the outputs, and adds
what the design relies on and a macro does not promise. Here is written what it may use (its library format:
https://github.com/YosysHQ/yosys/blob/main/passes/memory/memlib.md), and how such a cell becomes a macro with its pins.
"""

from collections.abc import Sequence

from loomwork.fpga.liberty import Macro
from loomwork.fpga.yosys import SynthesisError

ACCESS_SHARE = 5 / 6
"""What part of the period a macro may take from the clock to its data. The rest is for the choice between macros and
what the design does with the data before the next register: the scratchpad of `base` needs 1.0 ns."""

_PREFIX = "$__LOOMWORK_"
_MUX_COST = 0.5
"""What `memory_libmap` takes for one bit of a 2-to-1 multiplexer, which has about 0.4 of the area of a flip-flop."""
_MUX_AREA = 0.4

# By the names that IHP gives its pins, behind the letter of the port (datasheets of RM_IHPSG13_1P and _2P): what a port
# of `memory_libmap` is connected to.
_CONNECTED = {
    "CLK": "{port}_CLK",
    "ADDR": "{port}_ADDR",
    "DIN": "{port}_WR_DATA",
    "DOUT": "{port}_RD_DATA",
    "WEN": "|{port}_WR_EN",
    "REN": "{port}_RD_EN & ~|{port}_WR_EN",
    "BM": "{port}_WR_EN",
}
_OPTIONAL = {"BM"}
# MEN: neither read nor write does nothing even when enabled. DLY: "recommended setting: Tie to 1".
_TIED_HIGH = {"MEN", "DLY"}


def usable(macros: Sequence[Macro], period: float) -> tuple[Macro, ...]:
    """The macros that are fast enough for a period in ns; all of them where none is."""
    return tuple(macro for macro in macros if macro.access <= ACCESS_SHARE * period) or tuple(macros)


def memory_library(macros: Sequence[Macro], flip_flop_area: float) -> str:
    """What `memory_libmap` may use: macros and their cost.

    Of a word that one port writes and another reads in the same cycle nothing is promised ("there is no conflict
    handling included", says the datasheet), nor of the content at first. A port that writes does not read.
    """
    return "".join(_describe(macro, macro.area / flip_flop_area / _MUX_AREA * _MUX_COST) for macro in macros)


def _describe(macro: Macro, cost: float) -> str:
    ports = " ".join(f'"{port}"' for port in macro.ports)
    mask = "  byte 1;\n" if macro.masked else ""
    return (
        f"ram block {_PREFIX}{macro.name} {{\n  abits {macro.address_bits};\n  width {macro.width};\n{mask}"
        f"  cost {cost:.3f};\n  init none;\n"
        f"  port srsw {ports} {{\n    clock posedge;\n    rden;\n    rdwr no_change;\n  }}\n}}\n"
    )


def wrapper(macros: Sequence[Macro]) -> str:
    """Verilog for `techmap`: what `memory_libmap` made of `memory_library` becomes macros.

    Raises SynthesisError when a macro has pins of unknown use, or lacks one.
    """
    return "".join(_wrap(macro) for macro in macros)


def _wrap(macro: Macro) -> str:
    declarations: list[str] = []
    for port in macro.ports:
        name, enables = f"PORT_{port}", macro.width if macro.masked else 1
        declarations += [
            f"input {name}_CLK",
            f"input [{macro.address_bits - 1}:0] {name}_ADDR",
            f"input [{macro.width - 1}:0] {name}_WR_DATA",
            f"input [{enables - 1}:0] {name}_WR_EN",
            f"input {name}_RD_EN",
            f"output [{macro.width - 1}:0] {name}_RD_DATA",
        ]
    missing = [
        f"{port}_{pin}" for port in macro.ports for pin in _CONNECTED if f"{port}_{pin}" not in macro.pins
        and pin not in _OPTIONAL
    ]  # fmt: skip
    if missing or not macro.ports:
        raise SynthesisError(
            f"SRAM macro {macro.name}: no pin {', '.join(missing or ['A_CLK'])}, which the wrapper connects by name"
        )
    connections = ", ".join(f".{pin}({_connection(macro, pin)})" for pin in macro.pins)
    return (
        f"module \\{_PREFIX}{macro.name} ({', '.join(declarations)});\n"
        f"  {macro.name} _TECHMAP_REPLACE_ ({connections});\nendmodule\n"
    )


def _connection(macro: Macro, pin: str) -> str:
    port, _, role = pin.partition("_")
    if port in macro.ports:
        if role in _CONNECTED:
            return _CONNECTED[role].format(port=f"PORT_{port}")
        if role in _TIED_HIGH:
            return "1'b1"
        if role.startswith("BIST_"):
            widths = {"BIST_ADDR": macro.address_bits, "BIST_DIN": macro.width, "BIST_BM": macro.width}
            return f"{widths.get(role, 1)}'d0"
    raise SynthesisError(f"SRAM macro {macro.name}: the wrapper does not know what to connect to its pin {pin}")
