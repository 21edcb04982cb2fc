# SPDX-License-Identifier: Apache-2.0
"""Multiplication in the ECP5's carry cells, for places that shall leave the MULT18X18D to others.

Two bits of `b` make one row: a carry cell adds two partial products by itself, for each of its lookup tables has four
inputs, two bits of each operand. `synth_ecp5` would spend a lookup table on every partial product first. Rows are added
in pairs until two numbers are left, which the product's register holds; their sum comes behind it. So both cycles have
about the same to do, since an adder follows. Source of the cell: Yosys's model of CCU2C.
"""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Instance, Module, Signal, Value

from loomwork.rtl.technology.portable import Multiplier, Operand, product_register

SLOTS = 2
"""Bits in a carry cell."""
_SUM = Const(0x7888, 16)
"""Lookup table of `(A & B) ^ (C & D)`. Where that is 0, the carry is what the low four bits say: `A & B`."""
_DIFFERENCE = Const(0x8777, 16)
"""Of `~(A & B) ^ (C & D)`."""


@dataclass(frozen=True)
class _Number:
    """A signed number, in units of 2**weight."""

    value: Value
    weight: int


class LogicMultiplier(Multiplier):
    """Takes operands of any width."""

    def __init__(self, m: Module) -> None:
        self._m = m

    def __call__(self, a: Operand, b: Operand, *, name: str, enable: Value | None = None) -> Value:
        factor, digits = _to_signed(a.q), _to_signed(b.q)
        if len(digits) % 2:
            digits = Cat(digits, digits[-1])
        top = len(digits) - 2
        rows = [
            _Number(self._row(factor, digits[n : n + 2], f"{name}_row_{n}", is_top=n == top), n)
            for n in range(0, top + 1, 2)
        ]
        while len(rows) > 2:
            pairs = zip(rows[::2], rows[1::2], strict=False)
            rows = [*(_add(low, high) for low, high in pairs), *(rows[-1:] if len(rows) % 2 else [])]
        rows = [
            _Number(product_register(self._m, row.value, f"{name}_{row.weight}", enable), row.weight) for row in rows
        ]
        product = Signal((a.q * b.q).shape(), name=name)
        self._m.d.comb += product.eq((rows[0] if len(rows) == 1 else _add(*rows)).value)
        return product

    def _row(self, factor: Value, digits: Value, name: str, *, is_top: bool) -> Value:
        """`factor` times a number of two bits, of which the upper one is a sign at the top."""
        (low, high), sign, none = digits, factor[-1], Const(0)
        bits = zip([*factor, sign, sign], [none, *factor, sign], strict=True)
        # To subtract is to add the complement, and 1 as the first carry.
        inputs = [(twice, high, once, low) if is_top else (once, low, twice, high) for once, twice in bits]
        if len(inputs) % SLOTS:
            inputs.append((none, none, none, none))
        sums = Signal(len(inputs), name=name)
        carry: Value = Const(int(is_top))
        for first in range(0, len(inputs), SLOTS):
            ports: dict[str, Any] = {"i_CIN": carry}
            for slot in range(SLOTS):
                ports |= {f"i_{port}{slot}": bit for port, bit in zip("ABCD", inputs[first + slot], strict=True)}
                ports |= {f"p_INIT{slot}": _DIFFERENCE if is_top else _SUM, f"p_INJECT1_{slot}": "NO"}
                ports[f"o_S{slot}"] = sums[first + slot]
            carry = Signal(name=f"{name}_carry_{first + SLOTS}")
            self._m.submodules[f"{name}_cell_{first}"] = Instance("CCU2C", o_COUT=carry, **ports)
        return sums[: len(factor) + 2].as_signed()


def _to_signed(value: Value) -> Value:
    """The same number, with a sign."""
    return value if value.shape().signed else Cat(value, Const(0)).as_signed()


def _add(low: _Number, high: _Number) -> _Number:
    """The sum of one operand times two groups of the other one's bits, `high` next to `low`: no wider than both."""
    shift = high.weight - low.weight
    upper = (low.value[shift:].as_signed() + high.value)[: len(high.value)]
    return _Number(Cat(low.value[:shift], upper).as_signed(), low.weight)
