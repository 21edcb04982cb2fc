# SPDX-License-Identifier: Apache-2.0
"""Memories for block RAM."""

from typing import Any

from amaranth.lib.memory import Memory


def block_memory(shape: Any, depth: int) -> Memory:
    """A memory of which no word is read, with any use of what is read, in the cycle in which it is written.

    Block RAMs differ in what such a read gives. Where the memory does not say that nobody minds, synthesis puts
    registers, a comparator and multiplexers around it, so that the read gives the old word on all of them. The
    attribute is the one of Yosys; it stands in the Verilog, for Yosys heeds it in no other language.
    """
    return Memory(shape=shape, depth=depth, init=[], attrs={"no_rw_check": "1"})
