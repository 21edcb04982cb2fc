# SPDX-License-Identifier: Apache-2.0
"""Single words: what the bridge asks of the registers and the memory."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out, Signature

from loomwork.arch.link import WORD_BYTES
from loomwork.rtl.axi import Axi4Lite
from loomwork.rtl.csr import CSR_ADDRESS_BITS

ADDRESS_BITS = 32


class WordAccess(Signature):
    """One access at a time, seen from who asks.

    request: stays, with the rest, until `done`. write: or read. address: of a byte, a multiple of 4. write_data,
    read_data: 32 bits; the latter with `done`. done: one cycle, at least one cycle after `request` rose.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "request": Out(1),
                "write": Out(1),
                "address": Out(ADDRESS_BITS),
                "write_data": Out(8 * WORD_BYTES),
                "read_data": In(8 * WORD_BYTES),
                "done": In(1),
            }
        )


class LiteMaster(Component):
    """Makes word accesses on AXI4-Lite. words: who asks. bus: the registers."""

    words: Any
    bus: Any

    def __init__(self) -> None:
        super().__init__({"words": In(WordAccess()), "bus": Out(Axi4Lite(CSR_ADDRESS_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words, bus = self.words, self.bus
        sent_address, sent_data = Signal(), Signal()
        reads, writes = words.request & ~words.write, words.request & words.write
        m.d.comb += [
            bus.awaddr.eq(words.address),
            bus.araddr.eq(words.address),
            bus.wdata.eq(words.write_data),
            bus.wstrb.eq(-1),
            bus.awvalid.eq(writes & ~sent_address),
            bus.wvalid.eq(writes & ~sent_data),
            bus.arvalid.eq(reads & ~sent_address),
            bus.bready.eq(1),
            bus.rready.eq(1),
            words.read_data.eq(bus.rdata),
            words.done.eq(bus.bvalid | bus.rvalid),
        ]
        with m.If(words.done):
            m.d.sync += [sent_address.eq(0), sent_data.eq(0)]
        with m.Else():
            with m.If(bus.awvalid & bus.awready | bus.arvalid & bus.arready):
                m.d.sync += sent_address.eq(1)
            with m.If(bus.wvalid & bus.wready):
                m.d.sync += sent_data.eq(1)
        return m
