# SPDX-License-Identifier: Apache-2.0
"""Comparisons that one carry chain makes."""

from amaranth.hdl import Cat, Const, Mux, Value


def is_greater(one: Value, other: Value) -> Value:
    """Whether the first one of two numbers, signed or not, is the greater one.

    Signs are looked at beside the carry chain. Of signed numbers Yosys would ask for the last but one carry as well,
    where nextpnr cuts the carry chain of an ECP5 in two.
    """
    bits = max(len(value) + (not value.shape().signed) for value in (one, other))
    one, other = _extended(one, bits), _extended(other, bits)
    return Mux(one[-1] == other[-1], one[:-1] > other[:-1], other[-1])


def _extended(value: Value, bits: int) -> Value:
    """A number as so many bits with sign."""
    sign = value[-1] if value.shape().signed else Const(0)
    return Cat(value, sign.replicate(bits - len(value)))
