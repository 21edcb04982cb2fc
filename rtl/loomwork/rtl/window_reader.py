# SPDX-License-Identifier: Apache-2.0
"""Reads spans of bytes of a window ahead of their use, as a stream of bus beats."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import READABLE_WINDOWS
from loomwork.rtl.burst import BurstSplitter, burst_layout, burst_limit, run_layout, without_burst
from loomwork.rtl.memory_window import SPAN, WindowCheck, windows_layout
from loomwork.rtl.queue import BlockQueue
from loomwork.rtl.read_master import ReadBus
from loomwork.rtl.skid import PingPong, Skid, Slice


def beat_layout(config: Config, mark_bits: int) -> data.StructLayout:
    """data: `[bus_bytes] bytes`. mark: what its user noted on arrival.

    error: it is the first one for which the bus reported an error; who minds does not take it.
    """
    return data.StructLayout({"data": data.ArrayLayout(8, config.bus_bytes), "error": 1, "mark": mark_bits})


class WindowReader(Component):
    """Requests spans in order, as far ahead as its queue of `stream_beats` beats has room.

    Each span is checked before anything of it is requested. The first illegal one stops all further requests.

    windows: base and size registers. spans: what to read. bus: to the read master.
    checking: a span is being looked at: whether it is legal is not known yet. fault: a span was illegal; stays 1.
    beats: all beats of all spans. arriving: a beat enters the queue; arriving_error: with an error; `mark` is stored
    with it. With `deep_pipeline` it is there a cycle later than the queue has it. halt: request nothing more.
    """

    windows: data.View
    spans: stream.Interface
    bus: Any
    checking: Signal
    fault: Signal
    beats: stream.Interface
    arriving: Signal
    arriving_error: Signal
    mark: Signal
    halt: Signal

    def __init__(self, config: Config, mark_bits: int = 0) -> None:
        self._config = config
        self._mark_bits = mark_bits
        super().__init__(
            {
                "windows": In(windows_layout(config)),
                "spans": In(stream.Signature(SPAN)),
                "bus": Out(ReadBus(config)),
                "checking": Out(1),
                "fault": Out(1),
                "beats": Out(stream.Signature(beat_layout(config, mark_bits))),
                "arriving": Out(1),
                "arriving_error": Out(1),
                "mark": In(mark_bits),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self._config.stream_beats
        longest = burst_limit(self._config, depth)
        m.submodules.check = check = WindowCheck(self._config, READABLE_WINDOWS, longest)
        m.submodules.skid = skid = Skid(run_layout(self._config))
        m.submodules.splitter = splitter = BurstSplitter(self._config, longest)
        m.submodules.queue = queue = BlockQueue(8 * self._config.bus_bytes, depth)
        connect(m, flipped(self.spans), check.i)
        connect(m, check.o, skid.i)
        connect(m, skid.o, splitter.i)
        m.d.comb += [
            check.windows.eq(self.windows),
            self.checking.eq(check.busy),
            self.fault.eq(check.fault),
        ]

        room = Signal(range(depth + 1), init=depth)
        may_request = Signal()
        request, burst = self.bus.request, splitter.o
        if self._config.deep_pipeline:
            # Who gets the bus is decided between registers.
            m.submodules.slice = slice_ = Slice(burst_layout(self._config))
            request = slice_.i
            m.d.comb += [
                self.bus.request.payload.eq(slice_.o.payload),
                self.bus.request.valid.eq(slice_.o.valid & ~self.halt),
                slice_.o.ready.eq(self.bus.request.ready & ~self.halt),
            ]
        m.d.comb += [
            may_request.eq((room >= longest) & ~self.halt),
            request.payload.eq(burst.payload),
            request.valid.eq(burst.valid & may_request),
            burst.ready.eq(request.ready & may_request),
        ]
        # Whether a beat is taken is known last: it chooses between sums that are there, or makes room a cycle later.
        is_requested, length = request.valid & request.ready, burst.payload.length
        leaves = Signal()
        m.d["sync" if self._config.deep_pipeline else "comb"] += leaves.eq(self.beats.valid & self.beats.ready)
        m.d.sync += room.eq(Mux(is_requested, without_burst(room, length), room))
        with m.If(leaves):
            m.d.sync += room.eq(Mux(is_requested, room - length, room + 1))

        m.d.comb += [
            self.arriving.eq(self.bus.valid),
            self.arriving_error.eq(self.bus.valid & self.bus.error),
            queue.i.payload.eq(self.bus.data),
            queue.i.valid.eq(self.bus.valid),
        ]
        oldest: Value = queue.o.payload
        taken = Signal()  # the queue's oldest beat
        m.d.comb += queue.o.ready.eq(taken)
        if self._mark_bits:
            # Beside the beats, to stay out of the block RAM: marks decide when a beat is taken.
            m.submodules.marks = marks = BlockQueue(self._mark_bits, depth)
            m.d.comb += [marks.i.payload.eq(self.mark), marks.i.valid.eq(self.bus.valid), marks.o.ready.eq(taken)]
            oldest = Cat(queue.o.payload, marks.o.payload)
        beats = stream.Signature(len(oldest)).create()
        if self._config.deep_pipeline:
            # Block RAM is slow, and who takes a beat need not know of the queue.
            m.submodules.oldest = places = PingPong(len(oldest))
            m.d.comb += [
                places.i.payload.eq(oldest),
                places.i.valid.eq(queue.o.valid),
                taken.eq(places.i.ready),
            ]
            connect(m, places.o, flipped(beats))
        else:
            m.d.comb += [beats.payload.eq(oldest), beats.valid.eq(queue.o.valid), taken.eq(beats.ready)]
        data_bits = 8 * self._config.bus_bytes
        m.d.comb += [
            Value.cast(self.beats.payload.data).eq(beats.payload[:data_bits]),
            self.beats.payload.mark.eq(beats.payload[data_bits:]),
            self.beats.payload.error.eq(self._error_is_next(m)),
            self.beats.valid.eq(beats.valid),
            beats.ready.eq(self.beats.ready),
        ]
        return m

    def _error_is_next(self, m: Module) -> Value:
        """Whether the first beat with an error is the next one to be taken; counted, for block RAM would be late."""
        came = Signal(range(self._config.stream_beats + 1))  # beats before the first error
        # Beats that were taken, and that will be with the next one.
        left, following = Signal.like(came), Signal.like(came, init=1)
        failed, is_next = Signal(), Signal()
        with m.If(self.arriving_error):
            m.d.sync += failed.eq(1)
        with m.If(self.arriving & ~self.arriving_error & ~failed):
            m.d.sync += came.eq(came + 1)
        # A beat is seen two cycles after it came or later: `came` stands still by then. That it leaves is known last.
        leaves = self.beats.valid & self.beats.ready
        with m.If(leaves):
            m.d.sync += [left.eq(following), following.eq(following + 1)]
        m.d.sync += is_next.eq(failed & Mux(leaves, came == following, came == left))
        return is_next
