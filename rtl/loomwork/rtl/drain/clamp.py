# SPDX-License-Identifier: Apache-2.0
"""The clamp: from a rescaled int32 to an int8."""

import numpy as np
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import ArrayLike, NDArray

from loomwork.arch.numerics import to_int8

_NEAR_BITS = 10
"""Values of so many bits may be an int8 with a zero point; others are not, with any."""


class Clamp(Component):
    """Adds the zero point and clamps to `minimum` .. `maximum`, in `latency` cycles.

    x: int32. zero_point, minimum, maximum: constant while values pass. result: int8.
    """

    x: Signal
    zero_point: Signal
    minimum: Signal
    maximum: Signal
    result: Signal

    latency = 2

    def __init__(self) -> None:
        super().__init__(
            {
                "x": In(signed(32)),
                "zero_point": In(signed(8)),
                "minimum": In(signed(8)),
                "maximum": In(signed(8)),
                "result": Out(signed(8)),
            }
        )

    def model(self, x: ArrayLike, zero_point: int, minimum: int, maximum: int) -> NDArray[np.int8]:
        """What comes out `latency` cycles after the same arguments."""
        return to_int8(x, zero_point, minimum, maximum)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A value that is far from any int8 stays so, and on its side, whatever the zero point.
        near = self.x[:_NEAR_BITS].as_signed()
        is_far, is_negative = Signal(reset_less=True), Signal(reset_less=True)
        shifted = Signal(signed(_NEAR_BITS + 1), reset_less=True)
        m.d.sync += [
            is_far.eq(self.x[_NEAR_BITS - 1 :].any() & ~self.x[_NEAR_BITS - 1 :].all()),
            is_negative.eq(self.x[-1]),
            shifted.eq(near + self.zero_point),
        ]
        # As np.clip does it: should the limits cross, the upper one holds.
        is_low = Mux(is_far, is_negative, shifted < self.minimum)
        is_high = Mux(is_far, ~is_negative, shifted > self.maximum) | (self.minimum > self.maximum)
        m.d.sync += self.result.eq(Mux(is_high, self.maximum, Mux(is_low, self.minimum, shifted[:8].as_signed())))
        return m
