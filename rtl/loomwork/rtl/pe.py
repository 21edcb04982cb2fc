# SPDX-License-Identifier: Apache-2.0
"""The processing element: one int8 weight, one multiplication and one addition per cycle."""

from dataclasses import dataclass

from amaranth.hdl import Module, Shape, Signal, Value, signed

from loomwork.rtl.technology import Multiplier, Operand


def psum_shape(row: int) -> Shape:
    """Shape of a partial sum below `row`: it holds `row + 1` products of two int8."""
    return signed(16 + row.bit_length())


@dataclass(frozen=True)
class PE:
    """Place (row, col) of the array. Not a component: Amaranth would write one Verilog module for each.

    latency: cycles from an activation in its register to the partial sum that contains it.
    """

    row: int
    col: int

    latency = 2

    @staticmethod
    def model(activation: int, weight: int, psum_above: int) -> int:
        """Partial sum, for the activation of `latency` cycles ago and the sum above of one cycle ago."""
        return psum_above + activation * weight

    def add_to(
        self,
        m: Module,
        multiply: Multiplier,
        *,
        activation: Value,
        swap: Value,
        weight: Value,
        load: Value,
        psum_above: Value | None,
    ) -> tuple[Signal, Signal]:
        """Add the PE to module `m`; return its activation, for the neighbour to the right, and its partial sum.

        multiply: makes the multiplication. activation: int8 from the left; in the register one cycle later. swap: with
        the first activation that shall meet the shadow weight. weight, load: new shadow weight. psum_above: of the PE
        above; None = 0.
        The registers hold nothing that a reset would have to clear: what they contain counts only where a valid
        pixel meets a loaded weight.
        """
        place = f"{self.row}_{self.col}"
        kept, active, shadow = (Signal(signed(8), name=f"{n}_{place}", reset_less=True) for n in ("a", "w", "shadow"))
        psum = Signal(psum_shape(self.row), name=f"psum_{place}", reset_less=True)
        with m.If(load):
            m.d.sync += shadow.eq(weight)
        with m.If(swap):
            m.d.sync += active.eq(shadow)
        product = multiply(
            Operand(d=activation, q=kept), Operand(d=shadow, q=active, enable=swap), name=f"product_{place}"
        )
        m.d.sync += [kept.eq(activation), psum.eq(product if psum_above is None else psum_above + product)]
        return kept, psum
