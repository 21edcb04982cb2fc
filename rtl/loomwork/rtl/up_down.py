# SPDX-License-Identifier: Apache-2.0
"""Counters of what is under way."""

from amaranth.hdl import Module, Mux, Signal, Value


def count_up_down(m: Module, counter: Signal, *, up: Value, down: Value) -> None:
    """Count one more, one less, or, with both, neither.

    Both are known late: they choose between two sums instead of being added.
    """
    with m.If(up ^ down):
        m.d.sync += counter.eq(Mux(down, counter - 1, counter + 1))
