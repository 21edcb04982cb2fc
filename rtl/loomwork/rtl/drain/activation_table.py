# SPDX-License-Identifier: Apache-2.0
"""The activation table: any function of an int8 value, looked up in every lane of the drain."""

from collections.abc import Iterable

import numpy as np
from amaranth.hdl import Cat, Module, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import ArrayLike, NDArray

from loomwork.arch.isa import ENTRIES_PER_COMMAND, TABLE_ENTRIES
from loomwork.arch.numerics import INT8_MIN
from loomwork.rtl.command import command_layout

LANES_PER_MEMORY = 8
"""Read ports that a memory has at most: of one with 16, Yosys makes flip-flops where it could take distributed RAM."""


class ActivationTable(Component):
    """Looks up one value of each lane per cycle, in `latency` cycles.

    command: a TABLE. write: take its entries, for the lookups of the following cycles.
    x: int8 values by lane. result: entry `x + 128` of each. Entries that were never written are arbitrary.

    A word of a memory holds the entries of one TABLE. Each lane has a read port, which is like logic: in an FPGA a
    copy in distributed RAM for each lane, on a chip one set of flip-flops for up to LANES_PER_MEMORY of them.
    """

    command: data.View
    write: Signal
    x: data.View
    result: data.View

    latency = 1

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        values = data.ArrayLayout(signed(8), lanes)
        super().__init__(
            {
                "command": In(command_layout("TABLE")),
                "write": In(1),
                "x": In(values),
                "result": Out(values),
            }
        )

    def model(self, table: ArrayLike, x: ArrayLike) -> NDArray[np.int8]:
        """What comes out `latency` cycles after `x`, with all of `table` written."""
        return np.asarray(table, np.int8)[np.asarray(x, np.int64) - INT8_MIN]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for first in range(0, self._lanes, LANES_PER_MEMORY):
            lanes = range(first, min(first + LANES_PER_MEMORY, self._lanes))
            m.submodules[f"memory_{first}"] = self._memory(m, lanes)
        return m

    def _memory(self, m: Module, lanes: Iterable[int]) -> Memory:
        """All entries, for some of the lanes."""
        memory = Memory(shape=8 * ENTRIES_PER_COMMAND, depth=TABLE_ENTRIES // ENTRIES_PER_COMMAND, init=[])
        writing = memory.write_port()
        m.d.comb += [
            writing.addr.eq(self.command.index),
            writing.data.eq(Cat(Value.cast(self.command[f"entry_{n}"]) for n in range(ENTRIES_PER_COMMAND))),
            writing.en.eq(self.write),
        ]
        entry_bits = len(writing.addr)
        for lane in lanes:
            reading = memory.read_port(domain="comb")
            number = Value.cast(self.x[lane]) ^ -INT8_MIN  # adds 128
            looked_up = Signal(signed(8), name=f"looked_up_{lane}", reset_less=True)
            m.d.comb += [reading.addr.eq(number[8 - entry_bits :]), self.result[lane].eq(looked_up)]
            m.d.sync += looked_up.eq(reading.data.word_select(number[: 8 - entry_bits], 8))
        return memory
