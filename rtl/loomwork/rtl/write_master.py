# SPDX-License-Identifier: Apache-2.0
"""The write side of the bus: bursts of one writer on the write channels of an AXI4 master."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature

from loomwork.arch.config import Config
from loomwork.rtl.axi import MAX_BURST_BEATS, Axi4Write, drive_constants
from loomwork.rtl.burst import burst_layout
from loomwork.rtl.queue import BlockQueue
from loomwork.rtl.up_down import count_up_down

MAX_OUTSTANDING = 255
"""Bursts whose response has not come, at most."""
BURSTS_AHEAD = 4
"""Addresses that may go out before the data of their bursts."""


class WriteBus(Signature):
    """Writes of the writer (seen from the writer).

    request: bursts; asked for only when all their beats are in the writer's queue, so that a burst which has begun
    always ends. data: their beats, `[bus_bytes] bytes` each, in order; taken only for requests that were taken.
    done: a burst's response came. error: it reported an error.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(burst_layout(config))),
                "data": Out(stream.Signature(data.ArrayLayout(8, config.bus_bytes))),
                "done": In(1),
                "error": In(1),
            }
        )


class WriteMaster(Component):
    """Issues bursts with ID 0; every beat writes the whole width of the bus.

    writer: what to write. axi: write channels. halt: take no more requests; those taken are completed.
    idle: nothing is under way. beat: a beat moves on the bus, for the performance counter.
    """

    writer: Any
    axi: Any
    halt: Signal
    idle: Signal
    beat: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "writer": In(WriteBus(config)),
                "axi": Out(Axi4Write(config)),
                "halt": In(1),
                "idle": Out(1),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi, request, beats = self.axi, self.writer.request, self.writer.data
        m.submodules.lengths = lengths = BlockQueue(len(axi.awlen), BURSTS_AHEAD)
        outstanding, is_idle = Signal(range(MAX_OUTSTANDING + 1)), Signal(init=1)
        accepted, responded = Signal(), Signal()
        may_accept = Signal(init=1)  # a cycle late, in which one more may be accepted
        m.d.sync += may_accept.eq(outstanding < MAX_OUTSTANDING - 1)
        drive_constants(m, axi, "aw", self._config)
        m.d.comb += [
            request.ready.eq((~axi.awvalid | axi.awready) & lengths.i.ready & ~self.halt & may_accept),
            accepted.eq(request.valid & request.ready),
            lengths.i.payload.eq(request.payload.length),
            lengths.i.valid.eq(accepted),
            self.idle.eq(is_idle),
        ]
        count_up_down(m, outstanding, up=accepted, down=responded, is_zero=is_idle)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(accepted):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(request.payload.address),
                axi.awlen.eq(request.payload.length),
            ]

        sent = Signal(range(MAX_BURST_BEATS))
        m.d.comb += [
            axi.wdata.eq(beats.payload),
            axi.wstrb.eq(~0),
            axi.wlast.eq(sent == lengths.o.payload),
            axi.wvalid.eq(beats.valid & lengths.o.valid),
            beats.ready.eq(axi.wready & lengths.o.valid),
            self.beat.eq(axi.wvalid & axi.wready),
            lengths.o.ready.eq(self.beat & axi.wlast),
        ]
        with m.If(self.beat):
            m.d.sync += sent.eq(sent + 1)
            with m.If(axi.wlast):
                m.d.sync += sent.eq(0)

        m.d.comb += [axi.bready.eq(1), self.writer.done.eq(responded)]
        m.d.sync += [responded.eq(axi.bvalid), self.writer.error.eq(axi.bvalid & axi.bresp[1])]
        return m
