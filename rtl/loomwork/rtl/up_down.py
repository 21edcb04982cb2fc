# SPDX-License-Identifier: Apache-2.0
"""Counters of what is under way."""

from amaranth.hdl import Module, Mux, Signal, Value


def count_up_down(m: Module, counter: Signal, *, up: Value, down: Value, is_zero: Signal | None = None) -> None:
    """Count one more, one less, or, with both, neither.

    Both are known late: they choose between two sums instead of being added. is_zero: becomes a register of whether the
    counter is 0; 1 in the beginning, as the counter is 0.
    """
    with m.If(up ^ down):
        m.d.sync += counter.eq(Mux(down, counter - 1, counter + 1))
        if is_zero is not None:
            m.d.sync += is_zero.eq(down & (counter == 1))
