# SPDX-License-Identifier: Apache-2.0
"""Comparisons that one carry chain makes."""

from amaranth.hdl import Cat, Const, Value


def is_greater(one: Value, other: Value) -> Value:
    """Whether the first one of two numbers, signed or not, is the greater one.

    Both are moved up by half of their range, so that neither is negative. Of signed numbers Yosys would ask for the
    last but one carry as well, where nextpnr cuts the carry chain of an ECP5 in two.
    """
    bits = max(len(value) + (not value.shape().signed) for value in (one, other))
    return _moved_up(one, bits) > _moved_up(other, bits)


def _moved_up(value: Value, bits: int) -> Value:
    """The lower bits of a number of so many bits with sign, and its sign inverted."""
    sign = value[-1] if value.shape().signed else Const(0)
    return Cat(Cat(value, sign.replicate(bits - len(value)))[: bits - 1], ~sign)
