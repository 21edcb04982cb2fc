# SPDX-License-Identifier: Apache-2.0
"""Lattice iCE40 UltraPlus: the multiplier SB_MAC16 with its registers, for one product of 16 bits or two of 8, and the
memory SB_SPRAM256KA.

`synth_ice40 -dsp` infers the multiplication of 16 bits only. Sources: Lattice FPGA-TN-02007, DSP Function Usage Guide
for iCE40 Devices; FPGA-TN-02022, iCE40 SPRAM Usage Guide.
"""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Signal, Value

from loomwork.rtl.technology.portable import Multiplier, Operand, SinglePortMemory, Technology

CELL = "SB_MAC16"
SPRAM = "SB_SPRAM256KA"
SPRAM_ADDRESS_BITS = 14
SPRAM_WORDS = 1 << SPRAM_ADDRESS_BITS
"""Of 16 bits, in one SB_SPRAM256KA."""
OPERAND_BITS = 16
HALF_BITS = OPERAND_BITS // 2
_CONSTANT_LOW = ("IRSTTOP", "IRSTBOT")
"""Ports that would disturb the registers in use."""
_HALVES = {"p_MODE_8x8": 1, "p_TOP_8x8_MULT_REG": 1, "p_BOT_8x8_MULT_REG": 1, "output": 0b10}
"""Two products of 8 bits, each with a register; which output that is."""
_WHOLE = {"p_MODE_8x8": 0, "p_PIPELINE_16x16_MULT_REG2": 1, "output": 0b11}
"""One product of 16 bits with a register."""


@dataclass(frozen=True)
class _Sharing:
    """What both halves of a cell have in common.

    signed: whether each operand is. inside: whether its register is the cell's. holds: what makes each of those wait,
    when that is not `enable`. enable: of all registers of the cell.
    """

    signed: tuple[bool, bool]
    inside: tuple[bool, bool]
    holds: tuple[Value | None, Value | None]
    enable: Value | None

    def fits(self, other: "_Sharing") -> bool:
        return (
            self.signed == other.signed
            and self.inside == other.inside
            and self.enable is other.enable
            and all(one is two for one, two in zip(self.holds, other.holds, strict=True))
        )


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

    A cell has one enable for all its registers, and a signal for each operand that makes its register wait. holds: an
    operand with an enable of its own has its register in the cell where the product is always enabled; two products
    share a cell only where that enable is the same. Otherwise such an operand keeps its own register.
    """

    def __init__(self, m: Module, *, holds: bool) -> None:
        self._m = m
        self._holds = holds
        self._free: list[tuple[_Sharing, _Place]] = []

    def __call__(self, a: Operand, b: Operand, *, name: str, enable: Value | None = None) -> Value:
        widest = max(len(a.d), len(b.d))
        if widest > OPERAND_BITS:
            raise ValueError(f"{name}: an operand of {CELL} has at most {OPERAND_BITS} bits, not {widest}")
        operands = a, b
        sharing = _Sharing(
            signed=(a.d.shape().signed, b.d.shape().signed),
            inside=(self._is_inside(a, enable), self._is_inside(b, enable)),
            holds=(self._hold(a, enable), self._hold(b, enable)),
            enable=enable,
        )
        place = self._cell(name, sharing, _WHOLE) if widest > HALF_BITS else self._half(name, sharing)
        for port, operand, is_inside in zip((place.a, place.b), operands, sharing.inside, strict=True):
            self._m.d.comb += port.eq(operand.d if is_inside else operand.q)
        product = Signal((a.q * b.q).shape(), name=name)
        self._m.d.comb += product.eq(place.product)
        return product

    def _is_inside(self, operand: Operand, enable: Value | None) -> bool:
        return operand.enable is enable or (self._holds and enable is None)

    def _hold(self, operand: Operand, enable: Value | None) -> Value | None:
        return operand.enable if self._is_inside(operand, enable) and operand.enable is not enable else None

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
        for letter, signed, inside, hold in zip("AB", sharing.signed, sharing.inside, sharing.holds, strict=True):
            connections |= {
                f"p_{letter}_SIGNED": Const(signed, 1),
                f"p_{letter}_REG": Const(inside, 1),
                f"i_{letter}HOLD": Const(0) if hold is None else ~hold,
            }
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
    """SB_MAC16, of which an iCE40UP5K has 8. What is left in logic asks for `synth_ice40` without `-dsp`.

    holds: see `CellMultiplier`.
    """

    single_port_bytes: int = 4 * 2 * SPRAM_WORDS
    holds: bool = False

    def in_cells(self, m: Module) -> Multiplier:
        return CellMultiplier(m, holds=self.holds)

    def single_port_memory(self, m: Module, words: int, word_bytes: int) -> SinglePortMemory:
        """In SB_SPRAM256KA, of which an iCE40UP5K has four. word_bytes: a multiple of 2."""
        port = SinglePortMemory(words, word_bytes)
        banks: list[Value] = []
        bank, latest = port.address[SPRAM_ADDRESS_BITS:], Signal(max(len(port.address) - SPRAM_ADDRESS_BITS, 0))
        with m.If(port.enable & ~port.lanes.any()):
            m.d.sync += latest.eq(bank)
        for number in range(-(-words // SPRAM_WORDS)):
            chosen = Signal(name=f"bank_{number}_chosen")
            m.d.comb += chosen.eq(port.enable & (bank == number))
            found = Signal(8 * word_bytes, name=f"bank_{number}_data")
            for part in range(word_bytes // 2):
                lanes = port.lanes[2 * part : 2 * part + 2]
                m.submodules[f"spram_{number}_{part}"] = Instance(
                    SPRAM,
                    i_CLOCK=ClockSignal(),
                    i_ADDRESS=port.address[:SPRAM_ADDRESS_BITS],
                    i_DATAIN=port.write_data.word_select(part, 16),
                    i_MASKWREN=Cat(lane.replicate(2) for lane in lanes),
                    i_WREN=lanes.any(),
                    i_CHIPSELECT=chosen,
                    i_STANDBY=Const(0),
                    i_SLEEP=Const(0),
                    i_POWEROFF=Const(1),  # active low
                    o_DATAOUT=found.word_select(part, 16),
                )
            banks.append(found)
        m.d.comb += port.read_data.eq(Array(banks)[latest] if len(banks) > 1 else banks[0])
        return port
