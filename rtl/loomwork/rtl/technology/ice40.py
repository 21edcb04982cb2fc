# SPDX-License-Identifier: Apache-2.0
"""Lattice iCE40 UltraPlus: the multiplier SB_MAC16 with its registers, for one product of 16 bits or two of 8.

`synth_ice40 -dsp` infers the one of 16 bits only. Source: Lattice FPGA-TN-02007, DSP Function Usage Guide for iCE40
Devices.
"""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value

from loomwork.rtl.technology.portable import Multiplier, Operand, Technology

CELL = "SB_MAC16"
OPERAND_BITS = 16
HALF_BITS = OPERAND_BITS // 2
_CONSTANT_LOW = ("AHOLD", "BHOLD", "IRSTTOP", "IRSTBOT")
"""Ports that would disturb the registers in use."""
_HALVES = {"p_MODE_8x8": 1, "p_TOP_8x8_MULT_REG": 1, "p_BOT_8x8_MULT_REG": 1, "output": 0b10}
"""Two products of 8 bits, each with a register; which output that is."""
_WHOLE = {"p_MODE_8x8": 0, "p_PIPELINE_16x16_MULT_REG2": 1, "output": 0b11}
"""One product of 16 bits with a register."""


@dataclass(frozen=True)
class _Sharing:
    """What both halves of a cell have in common.

    signed: whether each operand is. inside: whether its register is the cell's. enable: of all registers of the cell.
    """

    signed: tuple[bool, bool]
    inside: tuple[bool, bool]
    enable: Value | None

    def fits(self, other: "_Sharing") -> bool:
        return self.signed == other.signed and self.inside == other.inside and self.enable is other.enable


@dataclass(frozen=True)
class _Place:
    """A cell or a half of one. a, b: to be driven, with operands of so many bits. product: twice as wide."""

    a: Value
    b: Value
    product: Value

    def half(self, index: int) -> "_Place":
        start, end = index * HALF_BITS, (index + 1) * HALF_BITS
        return _Place(self.a[start:end], self.b[start:end], self.product[2 * start : 2 * end])


class CellMultiplier(Multiplier):
    """One SB_MAC16 for a product with an operand of more than 8 bits, or for two of the other ones.

    A cell has one enable for all its registers: an operand with another one than the product keeps its own register.
    """

    def __init__(self, m: Module) -> None:
        self._m = m
        self._free: list[tuple[_Sharing, _Place]] = []

    def __call__(self, a: Operand, b: Operand, *, name: str, enable: Value | None = None) -> Value:
        widest = max(len(a.d), len(b.d))
        if widest > OPERAND_BITS:
            raise ValueError(f"{name}: an operand of {CELL} has at most {OPERAND_BITS} bits, not {widest}")
        operands = a, b
        sharing = _Sharing((a.d.shape().signed, b.d.shape().signed), (a.enable is enable, b.enable is enable), enable)
        place = self._cell(name, sharing, _WHOLE) if widest > HALF_BITS else self._half(name, sharing)
        for port, operand, is_inside in zip((place.a, place.b), operands, sharing.inside, strict=True):
            self._m.d.comb += port.eq(operand.d if is_inside else operand.q)
        product = Signal((a.q * b.q).shape(), name=name)
        self._m.d.comb += product.eq(place.product)
        return product

    def _half(self, name: str, sharing: _Sharing) -> _Place:
        """The half that an earlier product has left, or one of a new cell."""
        for index, (its, place) in enumerate(self._free):
            if its.fits(sharing):
                del self._free[index]
                return place
        cell = self._cell(name, sharing, _HALVES)
        self._free.append((sharing, cell.half(1)))
        return cell.half(0)

    def _cell(self, name: str, sharing: _Sharing, mode: dict[str, int]) -> _Place:
        a, b = (Signal(OPERAND_BITS, name=f"{name}_{letter}") for letter in "ab")
        product = Signal(2 * OPERAND_BITS, name=f"{name}_o")
        connections: dict[str, Any] = {
            **{f"i_{port}": Const(0) for port in _CONSTANT_LOW},
            "p_TOPOUTPUT_SELECT": Const(mode["output"], 2),
            "p_BOTOUTPUT_SELECT": Const(mode["output"], 2),
            **{parameter: Const(value, 1) for parameter, value in mode.items() if parameter.startswith("p_")},
        }
        for letter, signed, inside in zip("AB", sharing.signed, sharing.inside, strict=True):
            connections |= {f"p_{letter}_SIGNED": Const(signed, 1), f"p_{letter}_REG": Const(inside, 1)}
        self._m.submodules[f"{name}_cell"] = Instance(
            CELL,
            i_CLK=ClockSignal(),
            i_CE=Const(1) if sharing.enable is None else sharing.enable,
            i_A=a,
            i_B=b,
            o_O=product,
            **connections,
        )
        return _Place(a, b, product)


@dataclass(frozen=True, kw_only=True)
class Ice40(Technology):
    """SB_MAC16, of which an iCE40UP5K has 8. What is left in logic asks for `synth_ice40` without `-dsp`."""

    def in_cells(self, m: Module) -> Multiplier:
        return CellMultiplier(m)
