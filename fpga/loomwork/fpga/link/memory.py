# SPDX-License-Identifier: Apache-2.0
"""Block RAM as the external memory of a core, with a second entrance for the host link."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In

from loomwork.arch.config import Config, ConfigError
from loomwork.arch.link import WORD_BYTES
from loomwork.fpga.link.words import WordAccess
from loomwork.rtl.axi import ID_BITS, Axi4Read, Axi4Write
from loomwork.rtl.csr import RESP_OKAY

READ_LATENCY = 3
"""Cycles from a read address to its data: a register on the way to the blocks, which lie all over the device, that of
the memory, and one behind the multiplexers of the blocks."""
RESP_DECERR = 3


def check_size(config: Config, size: int) -> None:
    """Raises ConfigError when no memory of so many bytes can serve a configuration on a board."""
    if config.bus_bytes < WORD_BYTES:
        raise ConfigError(f"bus_bytes must be at least {WORD_BYTES} on a board, not {config.bus_bytes}")
    if size % config.bus_bytes:
        raise ConfigError(f"the memory must be a multiple of {config.bus_bytes} bytes, not {size}")


class OnChipMemory(Component):
    """A memory of whole bus beats on AXI4, one burst at a time in each direction, a beat per cycle.

    size: bytes, a multiple of the bus width. Addresses behind them are answered by DECERR and never written.
    read, write: the core, whose `rready` and `bready` are always 1 (docs/driving.md, "Ports"). words: the host link,
    which goes first.

    Raises ConfigError for a size that is no multiple, or a bus narrower than a word of the link.
    """

    read: Any
    write: Any
    words: Any

    def __init__(self, config: Config, size: int) -> None:
        check_size(config, size)
        self._beat_bits = (config.bus_bytes - 1).bit_length()
        self._bytes = config.bus_bytes
        self._depth = size // config.bus_bytes
        super().__init__(
            {"read": In(Axi4Read(config)), "write": In(Axi4Write(config)), "words": In(WordAccess())},
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8 * self._bytes, depth=self._depth, init=[])
        # The link has time, the core's clock has not.
        words = WordAccess().create()
        reads, writes = Signal(), Signal()
        requested = self.words.request & ~self.words.done
        m.d.sync += [
            reads.eq(requested & ~self.words.write),
            writes.eq(requested & self.words.write),
            *(getattr(words, name).eq(getattr(self.words, name)) for name in ("address", "write_data")),
        ]
        m.d.comb += [self.words.done.eq(words.done), self.words.read_data.eq(words.read_data)]
        self._write(m, memory.write_port(granularity=8), words, writes)
        self._read(m, memory.read_port(), words, reads, writes)
        return m

    def _beat(self, address: Value) -> Value:
        return address[self._beat_bits :]

    def _read(self, m: Module, port: Any, words: Any, reads: Signal, writes: Signal) -> None:
        axi = self.read
        beat, left, ident = Signal(len(axi.araddr) - self._beat_bits), Signal(9), Signal(ID_BITS)
        # What accompanies a read through the memory and the register behind it.
        stages = [Signal(4 + ID_BITS, name=f"read_{stage}") for stage in range(READ_LATENCY)]
        by_link = reads & ~Cat(stage[1] for stage in stages).any()
        steps, idle = Signal(), Signal(init=1)
        m.d.comb += [
            axi.arready.eq(idle),
            steps.eq(~idle & ~by_link),
        ]
        m.d.sync += port.addr.eq(Mux(by_link, self._beat(words.address), beat))
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [beat.eq(self._beat(axi.araddr)), left.eq(axi.arlen + 1), ident.eq(axi.arid)]
            m.d.sync += idle.eq(0)
        with m.Elif(steps):
            m.d.sync += [beat.eq(beat + 1), left.eq(left - 1), idle.eq(left == 1)]
        found = Signal(8 * self._bytes)
        m.d.sync += [
            stages[0].eq(Cat(steps, by_link, left == 1, beat >= self._depth, ident)),
            *(late.eq(early) for early, late in pairwise(stages)),
            found.eq(port.data),
        ]
        last = stages[-1]
        m.d.comb += [
            axi.rvalid.eq(last[0]),
            axi.rdata.eq(found),
            axi.rlast.eq(last[2]),
            axi.rresp.eq(Mux(last[3], RESP_DECERR, RESP_OKAY)),
            axi.rid.eq(last[4:]),
        ]
        lane = self._lane(words.address)
        m.d.comb += words.read_data.eq(found.word_select(lane, 8 * WORD_BYTES))
        written = Signal()
        m.d.sync += written.eq(writes & ~written)
        m.d.comb += words.done.eq(last[1] | written)

    def _write(self, m: Module, port: Any, words: Any, by_link: Signal) -> None:
        axi = self.write
        beat, ident, beyond = Signal(len(axi.awaddr) - self._beat_bits), Signal(ID_BITS), Signal()
        busy, idle = Signal(), Signal(init=1)
        m.d.comb += [
            axi.awready.eq(idle),
            axi.wready.eq(busy & ~by_link),
            axi.bid.eq(ident),
            axi.bresp.eq(Mux(beyond, RESP_DECERR, RESP_OKAY)),
        ]
        with m.If(axi.bvalid & axi.bready):
            m.d.sync += [axi.bvalid.eq(0), idle.eq(1)]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += idle.eq(0)
            m.d.sync += [busy.eq(1), beat.eq(self._beat(axi.awaddr)), ident.eq(axi.awid), beyond.eq(0)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [beat.eq(beat + 1), beyond.eq(beyond | (beat >= self._depth))]
            with m.If(axi.wlast):
                m.d.sync += [busy.eq(0), axi.bvalid.eq(1)]

        lanes = self._bytes // WORD_BYTES
        of_lane = Cat((self._lane(words.address) == lane).replicate(WORD_BYTES) for lane in range(lanes))
        with m.If(by_link):
            m.d.sync += [
                port.addr.eq(self._beat(words.address)),
                port.data.eq(words.write_data.replicate(lanes)),
                port.en.eq(of_lane),
            ]
        with m.Else():
            m.d.sync += [
                port.addr.eq(beat),
                port.data.eq(axi.wdata),
                port.en.eq(axi.wstrb & (axi.wvalid & axi.wready & (beat < self._depth)).replicate(self._bytes)),
            ]

    def _lane(self, address: Value) -> Value:
        """Which word of its beat lies at a byte address."""
        return address[2 : self._beat_bits]
