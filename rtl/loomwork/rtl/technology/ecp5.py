# SPDX-License-Identifier: Apache-2.0
"""Lattice ECP5: the multiplier MULT18X18D with its input and output registers.

`synth_ecp5` infers the multiplier and none of its registers, so that the routes to and from the few DSP columns are
part of the longest paths. Source: Lattice FPGA-TN-02205, ECP5 and ECP5-5G sysDSP Usage Guide.
"""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value

from loomwork.rtl.technology.ecp5_logic import LogicMultiplier
from loomwork.rtl.technology.portable import Multiplier, Operand, Technology

CELL = "MULT18X18D"
OPERAND_BITS = 18
PRODUCT_BITS = 2 * OPERAND_BITS


class _Enables:
    """The ports CE0 to CE3 of a cell: 0 is always on, the others go to each enable in turn.

    The four cells of a block share these lines. A cell that needs no more than one beside the constant, which costs no
    line, can be placed with any other ones.
    """

    def __init__(self) -> None:
        self.lines: list[Value] = [Const(1)]

    def port(self, enable: Value | None) -> str:
        """Name of the port for an enable."""
        if enable is None:
            return "CE0"
        for index, line in enumerate(self.lines):
            if line is enable:
                return f"CE{index}"
        self.lines.append(enable)
        return f"CE{len(self.lines) - 1}"


class CellMultiplier(Multiplier):
    """One MULT18X18D for each product."""

    def __init__(self, m: Module) -> None:
        self._m = m

    def __call__(self, a: Operand, b: Operand, *, name: str, enable: Value | None = None) -> Value:
        enables = _Enables()
        connections: dict[str, Any] = {}
        for letter, operand in (("A", a), ("B", b)):
            shape = operand.d.shape()
            if shape.width > OPERAND_BITS:
                raise ValueError(f"{name}: an operand of {CELL} has at most {OPERAND_BITS} bits, not {shape.width}")
            wide = Signal(type(shape)(OPERAND_BITS, shape.signed), name=f"{name}_{letter.lower()}")
            self._m.d.comb += wide.eq(operand.d)
            connections |= {f"i_{letter}{bit}": wide[bit] for bit in range(OPERAND_BITS)}
            connections |= {
                f"i_SIGNED{letter}": Const(shape.signed),
                f"i_SOURCE{letter}": Const(0),  # the ports, not the neighbour's operand
                f"p_REG_INPUT{letter}_CLK": "CLK0",
                f"p_REG_INPUT{letter}_CE": enables.port(operand.enable),
            }
        result = Signal(PRODUCT_BITS, name=f"{name}_p")
        connections |= {f"o_P{bit}": result[bit] for bit in range(PRODUCT_BITS)}
        connections |= {"p_REG_OUTPUT_CLK": "CLK0", "p_REG_OUTPUT_CE": enables.port(enable)}
        connections |= {f"i_CE{index}": line for index, line in enumerate(enables.lines)}
        # Ports of the cascade and of the adder, which are not named here, must stay unconnected: nothing can be
        # routed to them.
        self._m.submodules[f"{name}_cell"] = Instance(
            CELL, i_CLK0=ClockSignal(), i_RST0=Const(0), p_GSR="DISABLED", **connections
        )
        product = Signal((a.q * b.q).shape(), name=name)
        self._m.d.comb += product.eq(result)
        return product


@dataclass(frozen=True, kw_only=True)
class Ecp5(Technology):
    """MULT18X18D, of which there are 28, 72 or 156 (LFE5U-25F, -45F, -85F), and carry cells in place of them."""

    def in_cells(self, m: Module) -> Multiplier:
        return CellMultiplier(m)

    def in_logic(self, m: Module) -> Multiplier:
        return LogicMultiplier(m)
