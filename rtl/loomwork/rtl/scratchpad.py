# SPDX-License-Identifier: Apache-2.0
"""The scratchpad: activation memory in four banks, each of an even and an odd memory of words."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import BANKS, Config
from loomwork.rtl.delay import delay
from loomwork.rtl.ports import SCRATCHPAD_LATENCY, WORD_ADDRESS_BITS, FeedRead, WindowRead, window_write_layout

PARITIES = 2
EVEN, ODD = range(PARITIES)


def word_write_layout(config: Config) -> data.StructLayout:
    """A write of one whole word of one bank: `[rows] bytes`."""
    return data.StructLayout({"bank": 2, "word": WORD_ADDRESS_BITS, "data": data.ArrayLayout(8, config.rows)})


def touches(word: Value, first: Any, second: Any, parity: int) -> Value:
    """Whether a window at `word`, of which the words `first` and `second` matter, uses the memory of this parity."""
    return Mux(word[0] == parity, first, second)


def address(word: Value, parity: int) -> Value:
    """Where the memory of this parity holds its word of the window at `word`."""
    return (word[1:] + word[0])[: WORD_ADDRESS_BITS - 1] if parity == EVEN else word[1:]


class Scratchpad(Component):
    """Four banks; word `w` of a bank lies in its memory of parity `w % 2`. Word addresses count within the bank.

    feed: reads that are never refused. drain_read, store_read: reads that wait until the memories they touch are free
    of feed (and drain). Data come SCRATCHPAD_LATENCY cycles after a read was taken; a read in the cycle after a write
    was taken sees it. No one reads and writes a word in the same cycle: the tickets see to that.
    drain_write: always taken. load_write: waits until its memory is free of drain.
    halt: writes are taken and not performed.
    <port>_error: one cycle, in the cycle after the access was taken: it touched a word behind the last one. Such a
    write is not performed, such a read gives anything.
    """

    feed: Any
    drain_read: Any
    store_read: Any
    drain_write: stream.Interface
    load_write: stream.Interface
    halt: Signal
    feed_error: Signal
    drain_read_error: Signal
    store_read_error: Signal
    drain_write_error: Signal
    load_write_error: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "feed": In(FeedRead(config)),
                "drain_read": In(WindowRead(config)),
                "store_read": In(WindowRead(config)),
                "drain_write": In(stream.Signature(window_write_layout(config))),
                "load_write": In(stream.Signature(word_write_layout(config))),
                "halt": In(1),
                "feed_error": Out(1),
                "drain_read_error": Out(1),
                "store_read_error": Out(1),
                "drain_write_error": Out(1),
                "load_write_error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self._config.rows
        read_ports: dict[tuple[int, int], Any] = {}
        write_ports: dict[tuple[int, int], Any] = {}
        for bank in range(BANKS):
            for parity in range(PARITIES):
                memory = Memory(shape=8 * rows, depth=self._config.bank_words // 2, init=[])
                m.submodules[f"bank_{bank}_{('even', 'odd')[parity]}"] = memory
                read_ports[bank, parity] = memory.read_port()
                write_ports[bank, parity] = memory.write_port(granularity=8)
        self._read(m, read_ports)
        self._write(m, write_ports)
        return m

    def _beyond(self, word: Value, second: Any) -> Value:
        """Whether a window at `word` ends behind the last word; `second`: its second word matters."""
        words = self._config.bank_words
        return (word >= words) | (second & (word == words - 1))

    def _read(self, m: Module, ports: dict[tuple[int, int], Any]) -> None:
        feed, drain, store = self.feed, self.drain_read.request, self.store_read.request
        memories = list(ports)
        # One bit for each memory, in the order of `memories`.
        wants = {
            "feed": Cat(
                feed.enable[bank] & touches(feed.word[bank], 1, feed.wide[bank], parity) for bank, parity in memories
            ),
            **{
                name: Cat(
                    (request.payload.bank == bank) & touches(request.payload.word, 1, request.payload.wide, parity)
                    for bank, parity in memories
                )
                for name, request in (("drain", drain), ("store", store))
            },
        }
        drain_busy, store_busy = Signal(len(memories)), Signal(len(memories))
        m.d.comb += [
            drain_busy.eq(wants["feed"]),
            store_busy.eq(wants["feed"] | Mux(drain.valid, wants["drain"], 0)),
            drain.ready.eq(~(wants["drain"] & drain_busy).any()),
            store.ready.eq(~(wants["store"] & store_busy).any()),
        ]
        for number, (bank, parity) in enumerate(memories):
            word = Signal(WORD_ADDRESS_BITS, name=f"read_word_{bank}_{parity}")
            with m.If(wants["feed"][number]):
                m.d.comb += word.eq(feed.word[bank])
            with m.Elif(drain.valid & wants["drain"][number]):
                m.d.comb += word.eq(drain.payload.word)
            with m.Else():
                m.d.comb += word.eq(store.payload.word)
            requested = drain.valid & wants["drain"][number] | store.valid & wants["store"][number]
            m.d.comb += [
                ports[bank, parity].addr.eq(address(word, parity)),
                ports[bank, parity].en.eq(wants["feed"][number] | requested),
            ]
        self._deliver(m, ports)

        m.d.sync += [
            self.feed_error.eq(
                Cat(feed.enable[bank] & self._beyond(feed.word[bank], feed.wide[bank]) for bank in range(BANKS)).any()
            ),
            self.drain_read_error.eq(drain.valid & drain.ready & self._beyond(drain.payload.word, drain.payload.wide)),
            self.store_read_error.eq(store.valid & store.ready & self._beyond(store.payload.word, store.payload.wide)),
        ]

    def _deliver(self, m: Module, ports: dict[tuple[int, int], Any]) -> None:
        """A register behind each memory, whose output is slow; then its words in the order of each reader's window."""
        layout = data.ArrayLayout(8, 2 * self._config.rows)
        words: dict[tuple[int, int], Signal] = {}
        for (bank, parity), port in ports.items():
            words[bank, parity] = Signal(8 * self._config.rows, name=f"word_{bank}_{parity}", reset_less=True)
            m.d.sync += words[bank, parity].eq(port.data)

        def window(bank: int, starts_odd: Value) -> Value:
            even, odd = words[bank, EVEN], words[bank, ODD]
            return Mux(starts_odd, Cat(odd, even), Cat(even, odd))

        for bank in range(BANKS):
            starts_odd = delay(m, f"feed_odd_{bank}", self.feed.word[bank][0], SCRATCHPAD_LATENCY)
            m.d.comb += self.feed.data[bank].eq(window(bank, starts_odd))
        for name, port in (("drain", self.drain_read), ("store", self.store_read)):
            from_bank = delay(m, f"{name}_bank", port.request.payload.bank, SCRATCHPAD_LATENCY)
            starts_odd = delay(m, f"{name}_odd", port.request.payload.word[0], SCRATCHPAD_LATENCY)
            taken = Signal(SCRATCHPAD_LATENCY, name=f"{name}_taken")
            m.d.sync += taken.eq(Cat(port.request.valid & port.request.ready, taken))
            m.d.comb += [
                port.data.eq(layout(Array(window(bank, starts_odd) for bank in range(BANKS))[from_bank])),
                port.data_valid.eq(taken[-1]),
            ]

    def _write(self, m: Module, ports: dict[tuple[int, int], Any]) -> None:
        rows = self._config.rows
        drain, load = self.drain_write.payload, self.load_write.payload
        first, second = drain.mask[:rows], drain.mask[rows:]
        drain_beyond, load_beyond = Signal(), Signal()
        drain_allowed, load_allowed = Signal(), Signal()
        m.d.comb += [
            drain_beyond.eq(self._beyond(drain.word, second.any())),
            load_beyond.eq(self._beyond(load.word, 0)),
            drain_allowed.eq(self.drain_write.valid & ~drain_beyond & ~self.halt),
            load_allowed.eq(self.load_write.valid & ~load_beyond & ~self.halt),
            self.drain_write.ready.eq(1),
            self.load_write.ready.eq(1),
        ]
        drain_bytes = Value.cast(drain.data)
        halves = drain_bytes[: 8 * rows], drain_bytes[8 * rows :]
        for (bank, parity), port in ports.items():
            starts_here = drain.word[0] == parity
            by_drain, by_load = Signal(name=f"drain_{bank}_{parity}"), Signal(name=f"load_{bank}_{parity}")
            m.d.comb += [
                by_drain.eq(
                    self.drain_write.valid
                    & (drain.bank == bank)
                    & touches(drain.word, first.any(), second.any(), parity)
                ),
                by_load.eq((load.bank == bank) & (load.word[0] == parity)),
            ]
            with m.If(by_drain):
                m.d.comb += [
                    port.addr.eq(address(drain.word, parity)),
                    port.data.eq(Mux(starts_here, *halves)),
                    port.en.eq(Mux(starts_here, first, second) & drain_allowed.replicate(rows)),
                ]
                with m.If(by_load):
                    m.d.comb += self.load_write.ready.eq(0)
            with m.Else():
                m.d.comb += [
                    port.addr.eq(address(load.word, parity)),
                    port.data.eq(load.data),
                    port.en.eq((load_allowed & by_load).replicate(rows)),
                ]
        m.d.sync += [
            self.drain_write_error.eq(self.drain_write.valid & drain_beyond),
            self.load_write_error.eq(self.load_write.valid & self.load_write.ready & load_beyond),
        ]
