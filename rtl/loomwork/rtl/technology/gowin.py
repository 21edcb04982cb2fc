# SPDX-License-Identifier: Apache-2.0
"""Gowin GW1N and GW2A: the multipliers MULT9X9 and MULT18X18 with their registers.

`synth_gowin` infers the multipliers and none of their registers. Source: Gowin UG287, DSP User Guide.
"""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Shape, Signal, Value

from loomwork.rtl.technology.portable import Multiplier, Operand, Technology

OPERAND_BITS = (9, 18)
"""Of the cells, the smallest first."""


class CellMultiplier(Multiplier):
    """The smallest cell that holds both operands, for each product.

    A cell has one enable for all its registers: an operand with another one than the product keeps its own register.
    """

    def __init__(self, m: Module) -> None:
        self._m = m

    def __call__(self, a: Operand, b: Operand, *, name: str, enable: Value | None = None) -> Value:
        widest = max(len(a.d), len(b.d))
        if widest > OPERAND_BITS[-1]:
            raise ValueError(f"{name}: an operand of MULT18X18 has at most {OPERAND_BITS[-1]} bits, not {widest}")
        bits = next(bits for bits in OPERAND_BITS if bits >= widest)
        connections: dict[str, Any] = {}
        for letter, operand in (("A", a), ("B", b)):
            is_inside, signed = operand.enable is enable, operand.d.shape().signed
            port = Signal(Shape(bits, signed), name=f"{name}_{letter.lower()}")
            self._m.d.comb += port.eq(operand.d if is_inside else operand.q)
            connections |= {
                f"i_{letter}": port,
                f"i_{letter}SIGN": Const(signed),
                f"p_{letter}REG": Const(is_inside, 1),
            }
            # The ports of this cell, not what comes from the neighbour.
            connections |= {f"i_{letter}SEL": Const(0), f"i_SI{letter}": Const(0, bits)}
        result = Signal(2 * bits, name=f"{name}_p")
        self._m.submodules[f"{name}_cell"] = Instance(
            f"MULT{bits}X{bits}",
            i_CLK=ClockSignal(),
            i_CE=Const(1) if enable is None else enable,
            i_RESET=Const(0),
            o_DOUT=result,
            p_OUT_REG=Const(1, 1),
            **connections,
        )
        product = Signal((a.q * b.q).shape(), name=name)
        self._m.d.comb += product.eq(result)
        return product


@dataclass(frozen=True, kw_only=True)
class Gowin(Technology):
    """MULT9X9 and MULT18X18: a GW2A-18 has 96 or 48 of them. What is left in logic asks for `synth_gowin -nodsp`."""

    def in_cells(self, m: Module) -> Multiplier:
        return CellMultiplier(m)
