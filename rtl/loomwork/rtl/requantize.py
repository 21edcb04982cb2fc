# SPDX-License-Identifier: Apache-2.0
"""The requantizer: rescales an int32 by a Q31 multiplier and a power of two, as `arch/numerics.py` defines it."""

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import ArrayLike

from loomwork.arch import numerics
from loomwork.arch.numerics import Int64Array, Rounding
from loomwork.rtl.technology import Operand, technology_of

PIECE_BITS = 16
"""Operands are multiplied in pieces of so many bits, which fit the 16x16 or 18x18 multipliers of any FPGA."""
MULTIPLIER_BITS = 31
SHIFT_BITS = 6


class Requantizer(Component):
    """Rescales one value per cycle, exactly as `arch.numerics.requantize`.

    operand_bits: width of `x`: 32, or at most 16, which halves the multipliers; `shift` must then not be positive.
    operand_shift: what is rescaled is `x << operand_shift`, which must fit 32 bits.

    x: the value. multiplier: Q31. shift: -31 .. 7, left when positive, one cycle before all others, so that none of
    them waits for its sign. rounding: a `Rounding`. All four may change in every cycle. result: int32, `latency` cycles
    after `x`. Registers of the path are not reset.

    Raises ValueError for widths that it cannot be built for.
    """

    x: Signal
    multiplier: Signal
    shift: Signal
    rounding: Signal
    result: Signal

    latency = 7

    def __init__(self, operand_bits: int = 2 * PIECE_BITS, operand_shift: int = 0) -> None:
        if not (operand_bits == 2 * PIECE_BITS or 1 <= operand_bits <= PIECE_BITS):
            raise ValueError(f"operand_bits must be {2 * PIECE_BITS} or from 1 to {PIECE_BITS}, not {operand_bits}")
        if not 0 <= operand_shift <= 2 * PIECE_BITS - operand_bits:
            raise ValueError(
                f"operand_shift must be from 0 to {2 * PIECE_BITS - operand_bits} for a value of {operand_bits} bits, "
                f"not {operand_shift}"
            )
        self._operand_bits = operand_bits
        self._operand_shift = operand_shift
        super().__init__(
            {
                "x": In(signed(operand_bits)),
                "multiplier": In(MULTIPLIER_BITS),
                "shift": In(signed(SHIFT_BITS)),
                "rounding": In(1),
                "result": Out(signed(32)),
            }
        )

    def model(self, x: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, rounding: Rounding) -> Int64Array:
        """What comes out `latency` cycles after the arguments that belong together; they broadcast."""
        value = np.asarray(x, dtype=np.int64) << self._operand_shift
        return numerics.requantize(value, multiplier, shift, rounding)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        multiply = technology_of(platform).multiplier(m)

        def register(name: str, value: Value, shape: Shape | int | None = None) -> Signal:
            q = Signal(value.shape() if shape is None else shape, name=name, reset_less=True)
            m.d.sync += q.eq(value)
            return q

        # Before the first stage: which way.
        is_left = self.shift > 0
        left = register("left_0", Mux(is_left, self.shift[:3], 0))
        right = register("right_0", Mux(is_left, 0, (-self.shift)[: SHIFT_BITS - 1]))

        # Stage 1: left shift.
        x = self.x
        if self._operand_bits == 2 * PIECE_BITS:
            x = (self.x << left)[: self._operand_bits].as_signed()
        x = Operand(d=x, q=register("x_1", x))
        multiplier = Operand(d=self.multiplier, q=register("multiplier_1", self.multiplier))
        right = register("right_1", right)
        onnx = register("onnx_1", self.rounding == Rounding.ONNX)

        # Stage 2: products of the pieces. The upper piece of x has its sign, the lower ones of both have none.
        # `outer` holds those of equal weight as one number, `mid` the other ones, which weigh 2**PIECE_BITS.
        low, high = multiplier[:PIECE_BITS], multiplier[PIECE_BITS:]
        if self._operand_bits == 2 * PIECE_BITS:
            x_low, x_high = x[:PIECE_BITS], x[PIECE_BITS:]
            low_low, high_high = multiply(x_low, low, name="low_low"), multiply(x_high, high, name="high_high")
            outer = Cat(low_low, high_high).as_signed()
            mid = [multiply(x_low, high, name="low_high"), multiply(x_high, low, name="high_low")]
        else:
            outer = multiply(x, low, name="low")
            mid = [multiply(x, high, name="high")]
        right, onnx = register("right_2", right), register("onnx_2", onnx)

        # Stages 3 and 4: their sum; with TFLITE, plus half of the last place that is kept.
        half = 1 << (30 - self._operand_shift)
        if len(mid) == 2:
            outer = register("outer_3", outer)
            total = register("mid_3", mid[0] + mid[1] + Mux(onnx, 0, half >> PIECE_BITS))
        else:
            outer = register("outer_3", outer + Mux(onnx, 0, half))
            total = register("mid_3", mid[0])
        right, onnx = register("right_3", right), register("onnx_3", onnx)
        product = register("product_4", (outer + (total << PIECE_BITS)) << self._operand_shift, signed(64))
        right, onnx = register("right_4", right), register("onnx_4", onnx)

        # Stages 5 and 6: right shift of the upper 32 bits with, below them, the bit that decides on rounding; `sticky`
        # tells whether anything but zeros lay below that. TFLITE has rounded away what the product had there.
        value = Cat(product[30] & onnx, product[31:63]).as_signed()
        bytes_right, bits_right = right[3:], right[:3]
        lost = Cat(value[8 * index : 8 * index + 8].any() & (bytes_right > index) for index in range(3))
        sticky = register("sticky_5", Cat(lost, product[:30].any() & onnx))
        value = register("value_5", value >> Cat(Const(0, 3), bytes_right), signed(33))
        bits_right, onnx = register("right_5", bits_right), register("onnx_5", onnx)

        lost = Cat(value[index] & (bits_right > index) for index in range(7))
        sticky = register("sticky_6", Cat(sticky, lost).any())
        value = register("value_6", value >> bits_right, signed(33))
        onnx = register("onnx_6", onnx)

        # Stage 7: up when more than half is left; of an exact half, ONNX makes an even number and TFLITE goes away
        # from zero, which is up unless negative.
        quotient = value[1:].as_signed()
        is_up = value[0] & (sticky | Mux(onnx, quotient[0], ~quotient[-1]))
        m.d.sync += self.result.eq(quotient + is_up)
        return m
