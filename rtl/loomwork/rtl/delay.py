# SPDX-License-Identifier: Apache-2.0
"""Delay lines."""

from amaranth.hdl import Module, Signal, Value


def delay(m: Module, name: str, value: Value, cycles: int, *, reset: bool = False) -> Value:
    """`value` as it was `cycles` cycles ago. reset: it reads 0 before that; arbitrary otherwise, which costs less."""
    for cycle in range(1, cycles + 1):
        q = Signal(value.shape(), name=f"{name}_{cycle}", reset_less=not reset)
        m.d.sync += q.eq(value)
        value = q
    return value
