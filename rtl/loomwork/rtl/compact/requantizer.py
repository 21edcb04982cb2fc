# SPDX-License-Identifier: Apache-2.0
"""Requantization of one value after the other, one bit of the multiplier per cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.numerics import Rounding, requantize, to_int8, wrap_int32

MULTIPLIER_BITS = 31
CLOSE_BITS = 10
"""A value with its zero point: what does not fit is beyond every clamp."""


class Requantizer(Component):
    """`requantize`, then `to_int8` (arch/numerics.py).

    load: `multiplier` is taken, for all values from then on. start: one cycle, while not `busy`, with `value`; bias,
    shift, rounding, zero_point, minimum and maximum stay until the end.
    scaled, finished: the results, while not `busy`.
    """

    start: Signal
    value: Signal
    bias: Signal
    load: Signal
    multiplier: Signal
    shift: Signal
    rounding: Signal
    zero_point: Signal
    minimum: Signal
    maximum: Signal
    busy: Signal
    scaled: Signal
    finished: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "value": In(signed(32)),
                "bias": In(signed(32)),
                "load": In(1),
                "multiplier": In(MULTIPLIER_BITS),
                "shift": In(signed(6)),
                "rounding": In(Rounding),
                "zero_point": In(signed(8)),
                "minimum": In(signed(8)),
                "maximum": In(signed(8)),
                "busy": Out(1),
                "scaled": Out(signed(32)),
                "finished": Out(signed(8)),
            }
        )

    @staticmethod
    def model(value: int, *, bias: int, multiplier: int, shift: int, rounding: Rounding) -> int:
        """`scaled` after `start`."""
        return int(requantize(wrap_int32(value + bias), multiplier, shift, rounding))

    @staticmethod
    def model_finished(scaled: int, zero_point: int, minimum: int, maximum: int) -> int:
        """`finished` that goes with `scaled`."""
        return int(to_int8(scaled, zero_point, minimum, maximum))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The product, from its top: what has been shifted out below it is `half`, one bit, and `rest`, the OR of all
        # that came before. The multiplier goes round once per product.
        factor, bits = Signal(signed(32)), Signal(MULTIPLIER_BITS)
        product, half, rest = Signal(signed(33)), Signal(), Signal()
        left = Signal(6)  # left shifts, then steps, then right shifts
        addend, total = Signal(signed(33)), Signal(signed(34))
        shifts, multiplies, is_first = Signal(), Signal(), Signal()
        m.d.comb += [total.eq(product + addend), self.scaled.eq(total)]
        # TFLite rounds the product, half up, before the right shifts, and what they leave, half away from zero.
        rounds_twice = self.rounding == Rounding.TFLITE
        with m.If(multiplies):
            m.d.comb += addend.eq(Mux(bits[0], factor, 0))
        with m.Elif(rounds_twice & is_first):
            m.d.comb += addend.eq(half)
        with m.Elif(~shifts):
            m.d.comb += addend.eq(half & (rest | Mux(rounds_twice, ~product[-1], product[0])))
        with m.If(shifts | multiplies):
            m.d.sync += [
                product.eq(total >> 1),
                half.eq(total[0]),
                rest.eq((rest | half) & (multiplies | ~(rounds_twice & is_first))),
            ]
        with m.If(multiplies):
            m.d.sync += bits.eq(bits.rotate_right(1))
        with m.If(self.load):
            m.d.sync += bits.eq(self.multiplier)
        with m.FSM() as machine:
            m.d.comb += self.busy.eq(~machine.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [
                        factor.eq(self.value + self.bias),
                        *(product.eq(0), half.eq(0), rest.eq(0)),
                        left.eq(Mux(self.shift > 0, self.shift, 0)),
                    ]
                    m.next = "LEFT"
            with m.State("LEFT"):
                with m.If(left == 0):
                    m.d.sync += left.eq(MULTIPLIER_BITS - 1)
                    m.next = "MULTIPLY"
                with m.Else():
                    m.d.sync += [factor.eq(factor << 1), left.eq(left - 1)]
            with m.State("MULTIPLY"):
                m.d.comb += multiplies.eq(1)
                m.d.sync += [left.eq(left - 1), is_first.eq(1)]
                with m.If(left == 0):
                    m.d.sync += left.eq(Mux(self.shift < 0, -self.shift, 0))
                    m.next = "RIGHT"
            with m.State("RIGHT"):
                with m.If(left == 0):
                    m.next = "CLOSE"
                with m.Else():
                    m.d.comb += shifts.eq(1)
                    m.d.sync += [left.eq(left - 1), is_first.eq(0)]
            with m.State("CLOSE"):
                m.next = "CLAMP"
            with m.State("CLAMP"):
                m.next = "IDLE"

        # A cycle for the zero point and one for the clamp.
        close, upper = Signal(signed(CLOSE_BITS)), Signal(signed(CLOSE_BITS))
        lower = CLOSE_BITS - 2
        is_far = (total[lower:] != 0) & ~total[lower:].all()
        farthest = Cat((~total[-1]).replicate(CLOSE_BITS - 1), total[-1]).as_signed()
        m.d.comb += upper.eq(Mux(close < self.minimum, self.minimum, close))
        m.d.sync += [
            close.eq(Mux(is_far, farthest, total[: lower + 1].as_signed() + self.zero_point)),
            self.finished.eq(Mux(upper > self.maximum, self.maximum, upper)),
        ]
        return m
