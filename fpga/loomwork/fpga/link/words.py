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

    request: stays until `done` and falls behind it; the rest stays as long. write: or read. address: of a byte, a
    multiple of 4. write_data, read_data: 32 bits; the latter with `done`. done: one cycle, at least one cycle after
    `request` rose.
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
    """Makes word accesses on AXI4-Lite, with registers in both directions: the link has time, the core's clock has not.

    words: who asks. bus: the registers.
    """

    words: Any
    bus: Any

    def __init__(self) -> None:
        super().__init__({"words": In(WordAccess()), "bus": Out(Axi4Lite(CSR_ADDRESS_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words, bus = self.words, self.bus
        under_way = Signal()
        m.d.comb += [bus.wstrb.eq(-1), bus.bready.eq(1), bus.rready.eq(1)]
        with m.If(words.request & ~under_way):
            m.d.sync += [
                under_way.eq(1),
                bus.awaddr.eq(words.address),
                bus.araddr.eq(words.address),
                bus.wdata.eq(words.write_data),
                bus.awvalid.eq(words.write),
                bus.wvalid.eq(words.write),
                bus.arvalid.eq(~words.write),
            ]
        for valid, ready in ((bus.awvalid, bus.awready), (bus.wvalid, bus.wready), (bus.arvalid, bus.arready)):
            with m.If(valid & ready):
                m.d.sync += valid.eq(0)
        m.d.sync += [words.done.eq(bus.bvalid | bus.rvalid), words.read_data.eq(bus.rdata)]
        with m.If(words.done):
            m.d.sync += under_way.eq(0)
        return m
