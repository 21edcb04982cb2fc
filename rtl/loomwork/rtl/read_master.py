# SPDX-License-Identifier: Apache-2.0
"""The read side of the bus: several readers share the read channels of one AXI4 master."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature

from loomwork.arch.config import Config
from loomwork.rtl.axi import ID_BITS, Axi4Read, drive_constants
from loomwork.rtl.burst import burst_layout
from loomwork.rtl.up_down import count_up_down

MAX_OUTSTANDING = 1023
"""Bursts under way at most; the queues of the readers hold fewer beats."""


class ReadBus(Signature):
    """Reads of one reader (seen from the reader).

    request: bursts; a reader asks only for what it has room for. data, error: `[bus_bytes] bytes` of each beat, in the
    order of the requests, and whether the bus reported an error for it, when valid; they cannot be held back.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(burst_layout(config))),
                "data": In(data.ArrayLayout(8, config.bus_bytes)),
                "error": In(1),
                "valid": In(1),
            }
        )


class ReadMaster(Component):
    """Issues the bursts of `readers` readers and gives each its beats. Reader `n` reads with ID `n`.

    Reader 0 goes first, for it asks for little (commands); the others take turns. Beats of different readers may come
    interleaved. Beats take one cycle from the bus to the reader, requests one cycle from the reader to the bus.

    readers: one `ReadBus` each. axi: read channels. halt: take no more requests; those taken are completed.
    idle: nothing is under way. beat: a beat arrived on the bus, for the performance counter.
    """

    readers: list[Any]
    axi: Any
    halt: Signal
    idle: Signal
    beat: Signal

    def __init__(self, config: Config, readers: int) -> None:
        if not 1 <= readers <= 1 << ID_BITS:
            raise ValueError(f"readers must be from 1 to {1 << ID_BITS}, the number of AXI IDs, not {readers}")
        self._config = config
        super().__init__(
            {
                "readers": In(ReadBus(config)).array(readers),
                "axi": Out(Axi4Read(config)),
                "halt": In(1),
                "idle": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.axi
        outstanding, is_idle = Signal(range(MAX_OUTSTANDING + 1)), Signal(init=1)
        accept, accepted, completed = Signal(), Signal(), Signal()
        may_accept = Signal(init=1)  # a cycle late, in which one more may be accepted
        m.d.sync += may_accept.eq(outstanding < MAX_OUTSTANDING - 1)
        m.d.comb += [
            accept.eq((~axi.arvalid | axi.arready) & ~self.halt & may_accept),
            self.idle.eq(is_idle),
        ]
        count_up_down(m, outstanding, up=accepted, down=completed, is_zero=is_idle)
        drive_constants(m, axi, "ar", self._config)

        granted = self._arbitrate(m, accept)
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        for number, reader in enumerate(self.readers):
            m.d.comb += reader.request.ready.eq(accept & granted[number])
            with m.If(reader.request.valid & reader.request.ready):
                m.d.comb += accepted.eq(1)
                m.d.sync += [
                    axi.arvalid.eq(1),
                    axi.arid.eq(number),
                    axi.araddr.eq(reader.request.payload.address),
                    axi.arlen.eq(reader.request.payload.length),
                ]

        identity = Signal(ID_BITS)
        last = Signal()
        beat, error = Signal(data.ArrayLayout(8, self._config.bus_bytes)), Signal()
        m.d.comb += [axi.rready.eq(1), completed.eq(self.beat & last)]
        m.d.sync += [
            self.beat.eq(axi.rvalid),
            identity.eq(axi.rid),
            last.eq(axi.rlast),
            beat.eq(axi.rdata),
            error.eq(axi.rresp[1]),  # SLVERR = 2, DECERR = 3
        ]
        for number, reader in enumerate(self.readers):
            m.d.comb += [
                reader.data.eq(beat),
                reader.error.eq(error),
                reader.valid.eq(self.beat & (identity == number)),
            ]
        return m

    def _arbitrate(self, m: Module, accept: Signal) -> Signal:
        """Choose one of the readers that ask: bit `n` of the result is reader `n`."""
        count = len(self.readers)
        asking = Cat(reader.request.valid for reader in self.readers)
        granted = Signal(count)
        if count == 1:
            m.d.comb += granted.eq(1)
            return granted
        latest = Signal(range(1, count), init=count - 1)
        with m.Switch(latest):
            for number in range(1, count):
                with m.Case(number):
                    # The last assignment wins: least urgent first.
                    for place in reversed(range(count - 1)):
                        candidate = 1 + (number + place) % (count - 1)
                        with m.If(asking[candidate]):
                            m.d.comb += granted.eq(1 << candidate)
        with m.If(asking[0]):
            m.d.comb += granted.eq(1)
        for number in range(1, count):
            with m.If(accept & granted[number]):
                m.d.sync += latest.eq(number)
        return granted
