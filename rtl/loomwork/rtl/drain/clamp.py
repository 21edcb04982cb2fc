# SPDX-License-Identifier: Apache-2.0
"""The clamp: from a rescaled int32 to an int8."""

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import ArrayLike, NDArray

from loomwork.arch.numerics import to_int8
from loomwork.rtl.compare import is_greater

_NEAR_BITS = 10
"""Values of so many bits may be an int8 with a zero point; others are not, with any."""


class Clamp(Component):
    """Adds the zero point and clamps to `minimum` .. `maximum`, in `latency` cycles.

    zero_point, minimum, maximum: of the value that comes in the next cycle. x: int32. result: int8.
    """

    zero_point: Signal
    minimum: Signal
    maximum: Signal
    x: Signal
    result: Signal

    latency = 2

    def __init__(self) -> None:
        super().__init__(
            {
                "zero_point": In(signed(8)),
                "minimum": In(signed(8)),
                "maximum": In(signed(8)),
                "x": In(signed(32)),
                "result": Out(signed(8)),
            }
        )

    def model(self, x: ArrayLike, zero_point: int, minimum: int, maximum: int) -> NDArray[np.int8]:
        """What comes out `latency` cycles after `x`."""
        return to_int8(x, zero_point, minimum, maximum)

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def register(name: str, value: Value) -> Signal:
            q = Signal(value.shape(), name=name, reset_less=True)
            m.d.sync += q.eq(value)
            return q

        # Before the value: the limits without the zero point, so that it is compared as it comes. As np.clip does it,
        # the upper one holds should they cross: every value is beyond one of them then.
        zero_point = register("zero_point_0", self.zero_point)
        low, high = (register(f"{limit.name}_0", limit - self.zero_point) for limit in (self.minimum, self.maximum))
        lowest = register("lowest_0", Mux(is_greater(self.minimum, self.maximum), self.maximum, self.minimum))
        highest = register("highest_0", self.maximum)

        # Stage 1. A value that is far from any int8 stays so, and on its side, whatever the zero point. It is near when
        # all upper bits are as its sign.
        near, is_negative = self.x[:_NEAR_BITS].as_signed(), register("is_negative_1", self.x[-1])
        signs = self.x[_NEAR_BITS - 1 : -1] ^ self.x[-1].replicate(32 - _NEAR_BITS)
        is_far = register("is_far_1", Cat(signs[::2].any(), signs[1::2].any()))
        is_below, is_above = (
            register("is_below_1", is_greater(low, near)),
            register("is_above_1", is_greater(near, high)),
        )
        shifted = register("shifted_1", (near + zero_point)[:8].as_signed())
        lowest, highest = register("lowest_1", lowest), register("highest_1", highest)

        # Stage 2.
        is_low = Mux(is_far.any(), is_negative, is_below)
        is_high = Mux(is_far.any(), ~is_negative, is_above)
        m.d.sync += self.result.eq(Mux(is_high, highest, Mux(is_low, lowest, shifted)))
        return m
