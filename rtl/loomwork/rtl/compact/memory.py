# SPDX-License-Identifier: Apache-2.0
"""The one memory of the compact core, and who may use it in which cycle."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, Signature

from loomwork.rtl.compact.layout import Layout
from loomwork.rtl.technology import technology_of

WORD_BYTES = 4
"""Of an access by processor or host."""


class Access(Signature):
    """One access per cycle, seen from who asks.

    request, write, address (of a word of `rows` bytes), write_data, lanes (bytes that are written). grant: in this
    cycle; read_data is there in the next one.
    """

    def __init__(self, layout: Layout) -> None:
        rows = layout.config.rows
        super().__init__(
            {
                "request": Out(1),
                "write": Out(1),
                "address": Out(layout.address_bits),
                "write_data": Out(8 * rows),
                "lanes": Out(rows),
                "grant": In(1),
                "read_data": In(8 * rows),
            }
        )


class SharedMemory(Component):
    """Serves host, engine and processor, in this order, one per cycle. host, engine, processor: see `Access`."""

    host: Any
    engine: Any
    processor: Any

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        super().__init__({name: In(Access(layout)) for name in ("host", "engine", "processor")})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = self._layout
        memory = technology_of(platform).single_port_memory(m, layout.words, layout.config.rows)
        users = (self.host, self.engine, self.processor)
        taken: Any = 0
        for user in users:
            m.d.comb += [user.grant.eq(user.request & ~taken), user.read_data.eq(memory.read_data)]
            taken = taken | user.request
        for name in ("address", "write_data"):
            values = [getattr(user, name) for user in users]
            m.d.comb += getattr(memory, name).eq(
                Mux(self.host.request, values[0], Mux(self.engine.request, values[1], values[2]))
            )
        enables = [user.lanes & user.write.replicate(len(user.lanes)) for user in users]
        m.d.comb += [
            memory.enable.eq(taken),
            memory.lanes.eq(Mux(self.host.request, enables[0], Mux(self.engine.request, enables[1], enables[2]))),
        ]
        return m


class WordAdapter(Component):
    """Accesses of four bytes as those of the memory's words.

    request, write, address (of a byte), write_data, lanes: stay until `done`, with which read_data comes.
    """

    request: Signal
    write: Signal
    address: Signal
    write_data: Signal
    lanes: Signal
    done: Signal
    read_data: Signal
    memory: Any

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        bits = (layout.config.rows - 1).bit_length()
        super().__init__(
            {
                "request": In(1),
                "write": In(1),
                "address": In(layout.address_bits + bits),
                "write_data": In(8 * WORD_BYTES),
                "lanes": In(WORD_BYTES),
                "done": Out(1),
                "read_data": Out(8 * WORD_BYTES),
                "memory": Out(Access(layout)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, memory = self._layout.config.rows, self.memory
        bits = (rows - 1).bit_length()
        part = self.address[2:bits]
        m.d.comb += [
            memory.request.eq(self.request & ~self.done),
            memory.write.eq(self.write),
            memory.address.eq(self.address >> bits),
            memory.write_data.eq(self.write_data.replicate(rows // WORD_BYTES)),
            memory.lanes.eq(self.lanes << (part << 2) if len(part) else self.lanes),
            self.read_data.eq(memory.read_data.word_select(part, 8 * WORD_BYTES) if len(part) else memory.read_data),
        ]
        m.d.sync += self.done.eq(memory.grant)
        return m
