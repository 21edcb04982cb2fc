# SPDX-License-Identifier: Apache-2.0
"""Thermometer codes."""

from amaranth.hdl import Cat, Const, Value


def thermometer(value: Value, width: int) -> Value:
    """Bit `n` of `width` is `n < value`, for an unsigned value; from tables, which are faster than comparisons."""
    numbers = 1 << len(value)
    return Cat(
        Const(sum(1 << number for number in range(bit + 1, numbers)), numbers).bit_select(value, 1)
        for bit in range(width)
    )
