# SPDX-License-Identifier: Apache-2.0
"""The scratchpad: activation memory in four banks, each of an even and an odd memory of words."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from loomwork.arch.config import BANKS, Config
from loomwork.rtl.block_memory import block_memory
from loomwork.rtl.delay import delay
from loomwork.rtl.ports import (
    PARITIES,
    WORD_ADDRESS_BITS,
    FeedRead,
    WindowRead,
    feed_latency,
    window_latency,
    window_write_layout,
)

EVEN, ODD = range(PARITIES)


def word_write_layout(config: Config) -> data.StructLayout:
    """A write of one whole word of one bank: `[rows] bytes`."""
    return data.StructLayout({"bank": 2, "word": WORD_ADDRESS_BITS, "data": data.ArrayLayout(8, config.rows)})


def touches(word: Value, wide: Value, parity: int) -> Value:
    """Whether a window at `word` uses the memory of this parity. wide: its second word matters too."""
    return (word[0] == parity) | wide


def meets(bank: Value, word: Value, wide: Value, memories: Value) -> Value:
    """Whether a window uses one of a set of memories. wide: its second word matters."""
    of_bank = memories.word_select(bank, PARITIES)
    return Cat(touches(word, wide, parity) & of_bank[parity] for parity in range(PARITIES)).any()


def address(word: Value, parity: int) -> Value:
    """Where the memory of this parity holds its word of the window at `word`."""
    return (word[1:] + word[0])[: WORD_ADDRESS_BITS - 1] if parity == EVEN else word[1:]


def clash(one: data.View, other: data.View, *, wide: Value) -> Value:
    """Whether a window and another one, or a word, use the same memory. wide: the second word of a window matters."""
    return (one.bank == other.bank) & (wide | (one.word[0] == other.word[0]))


class Scratchpad(Component):
    """Four banks; word `w` of a bank lies in its memory of parity `w % 2`. Word addresses count within the bank.

    feed: reads that are never refused. drain_read, store_read: reads that wait until the memories they touch are free
    of feed (and drain). Data come `feed_latency` and `window_latency` cycles after a read was taken; a read in the
    second cycle after a write was taken sees it. No one reads a word in that cycle or before: the tickets see to that.
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
                memory = block_memory(8 * rows, self._config.bank_words // 2)
                m.submodules[f"bank_{bank}_{('even', 'odd')[parity]}"] = memory
                read_ports[bank, parity] = memory.read_port()
                write_ports[bank, parity] = memory.write_port(granularity=8)
        self._read(m, read_ports)
        self._write(m, write_ports)
        return m

    def _beyond(self, word: Value, second: Any) -> Value:
        """Whether a window at `word` ends behind the last word; `second`: its second word matters."""
        words = self._config.bank_words
        # Yosys makes a carry chain of any comparison that it does not see through.
        is_behind = word >= words if words & (words - 1) else word[exact_log2(words) :].any()
        return is_behind | (second & (word == words - 1))

    def _read(self, m: Module, ports: dict[tuple[int, int], Any]) -> None:
        feed, drain, store = self.feed, self.drain_read.request, self.store_read.request
        domain = "sync" if self._config.deep_pipeline else "comb"
        fed = feed.memories  # in the order of `ports`
        drain_meets = clash(drain.payload, store.payload, wide=drain.payload.wide | store.payload.wide)
        m.d.comb += [
            drain.ready.eq(~meets(drain.payload.bank, drain.payload.word, drain.payload.wide, fed)),
            store.ready.eq(
                ~meets(store.payload.bank, store.payload.word, store.payload.wide, fed) & ~(drain.valid & drain_meets)
            ),
        ]
        for number, (bank, parity) in enumerate(ports):
            drains, stores = (
                request.valid
                & (request.payload.bank == bank)
                & touches(request.payload.word, request.payload.wide, parity)
                for request in (drain, store)
            )
            # The drain is the last to know what it wants: its turn comes late.
            words = feed.word[bank], drain.payload.word, store.payload.word
            if not self._config.deep_pipeline:
                words = tuple(address(word, parity) for word in words)
            fed_at, drained_at, stored_at = words
            chosen = Mux(drains & ~fed[number], drained_at, Mux(fed[number], fed_at, stored_at))
            if self._config.deep_pipeline:
                # Where that lies in the memory is found behind the register.
                chosen = address(delay(m, f"word_at_{bank}_{parity}", chosen, 1), parity)
            m.d.comb += ports[bank, parity].addr.eq(chosen)
            m.d[domain] += ports[bank, parity].en.eq(fed[number] | drains | stores)
        self._deliver(m, ports)

        beyond = (
            self._beyond(feed.word[bank], fed.word_select(bank, PARITIES).all()) & fed.word_select(bank, PARITIES).any()
            for bank in range(BANKS)
        )
        m.d.comb += self.feed_error.eq(delay(m, "feed_beyond", Cat(beyond), 1, reset=True).any())
        for error, request in ((self.drain_read_error, drain), (self.store_read_error, store)):
            self._report(m, error, request, self._beyond(request.payload.word, request.payload.wide))

    def _report(self, m: Module, error: Signal, access: stream.Interface, is_beyond: Value) -> None:
        """An error of an access, in the cycle after it was taken: both that it was and where it goes are known late."""
        taken = delay(m, f"{error.name}_taken", access.valid & access.ready, 1, reset=True)
        m.d.comb += error.eq(taken & delay(m, f"{error.name}_beyond", is_beyond, 1))

    def _deliver(self, m: Module, ports: dict[tuple[int, int], Any]) -> None:
        """A register behind each memory, whose output is slow; then its words in the order of each reader's window."""
        layout = data.ArrayLayout(8, 2 * self._config.rows)
        latency = feed_latency(self._config)
        domain = "comb" if window_latency(self._config) == latency else "sync"
        words: dict[tuple[int, int], Signal] = {}
        for (bank, parity), port in ports.items():
            words[bank, parity] = Signal(8 * self._config.rows, name=f"word_{bank}_{parity}", reset_less=True)
            m.d.sync += words[bank, parity].eq(port.data)

        def window(even: Value, odd: Value, starts_odd: Value) -> Value:
            return Mux(starts_odd, Cat(odd, even), Cat(even, odd))

        for bank in range(BANKS):
            starts_odd = delay(m, f"feed_odd_{bank}", self.feed.word[bank][0], latency)
            m.d.comb += self.feed.data[bank].eq(window(words[bank, EVEN], words[bank, ODD], starts_odd))
        for name, port in (("drain", self.drain_read), ("store", self.store_read)):
            from_bank = delay(m, f"{name}_bank", port.request.payload.bank, latency)
            starts_odd = delay(m, f"{name}_odd", port.request.payload.word[0], latency)
            taken = Signal(latency, name=f"{name}_taken")
            m.d.sync += taken.eq(Cat(port.request.valid & port.request.ready, taken))
            even, odd = (Array(words[bank, parity] for bank in range(BANKS))[from_bank] for parity in range(PARITIES))
            m.d[domain] += [
                port.data.eq(layout(window(even, odd, starts_odd))),
                port.data_valid.eq(taken[-1]),
            ]

    def _write(self, m: Module, ports: dict[tuple[int, int], Any]) -> None:
        drain, load = self.drain_write.payload, self.load_write.payload
        drain_beyond, load_beyond = Signal(), Signal()
        meets = clash(drain, load, wide=drain.wide)
        m.d.comb += [
            drain_beyond.eq(self._beyond(drain.word, drain.wide)),
            load_beyond.eq(self._beyond(load.word, 0)),
            self.drain_write.ready.eq(1),
            self.load_write.ready.eq(~(self.drain_write.valid & meets)),
        ]
        self._report(m, self.drain_write_error, self.drain_write, drain_beyond)
        self._report(m, self.load_write_error, self.load_write, load_beyond)
        self._perform(m, ports, drain_allowed=~drain_beyond & ~self.halt, load_allowed=~load_beyond & ~self.halt)

    def _perform(
        self, m: Module, ports: dict[tuple[int, int], Any], *, drain_allowed: Value, load_allowed: Value
    ) -> None:
        """Make the writes that are taken and allowed, a cycle later: memories are far from each other."""
        rows = self._config.rows

        def late(name: str, value: Value) -> Value:
            return delay(m, f"write_{name}", value, 1)

        drain, load = self.drain_write.payload, self.load_write.payload
        drain_address = [late(f"drain_address_{parity}", address(drain.word, parity)) for parity in range(PARITIES)]
        load_address = late("load_address", load.word[1:])
        load_data = late("load_data", Value.cast(load.data))
        drain_data: list[Value] = []
        enabled: list[Value] = []
        for parity in range(PARITIES):
            second = drain.word[0] != parity  # the window's second word is here
            half = Value.cast(drain.data).word_select(second, 8 * rows)
            drain_data.append(late(f"drain_data_{parity}", half))
            enabled.append(late(f"enabled_{parity}", drain.mask.word_select(second, rows)))
        for (bank, parity), port in ports.items():
            by_drain = self.drain_write.valid & (drain.bank == bank) & touches(drain.word, drain.wide, parity)
            by_load = self.load_write.valid & (load.bank == bank) & (load.word[0] == parity) & self.load_write.ready
            drains = Signal(name=f"drains_{bank}_{parity}")
            loads = Signal(name=f"loads_{bank}_{parity}")
            m.d.sync += [drains.eq(by_drain & drain_allowed), loads.eq(by_load & load_allowed)]
            m.d.comb += [
                port.addr.eq(Mux(drains, drain_address[parity], load_address)),
                port.data.eq(Mux(drains, drain_data[parity], load_data)),
                port.en.eq((enabled[parity] & drains.replicate(rows)) | loads.replicate(rows)),
            ]
