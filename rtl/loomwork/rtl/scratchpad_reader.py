# SPDX-License-Identifier: Apache-2.0
"""Reads words of the scratchpad ahead of their use, as a stream of bus beats."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect

from loomwork.arch.config import Config
from loomwork.rtl.gearbox import Narrower
from loomwork.rtl.ports import WindowRead
from loomwork.rtl.queue import BlockQueue
from loomwork.rtl.skid import PingPong
from loomwork.rtl.transfer import SCRATCHPAD_WORD

QUEUE_BEATS = 64
MIN_QUEUE_WORDS = 8
"""Covers the way from a request to the scratchpad to its word at the end of the queue."""


class ScratchpadReader(Component):
    """Reads one word per cycle, as long as its queue of at least QUEUE_BEATS beats has room.

    With `deep_pipeline` a word that leaves the queue makes room a cycle later, and two more find room behind it.

    words: addresses. read: from the scratchpad. arriving: a word (`rows // bus_bytes` beats) enters the queue.
    beats: the words, cut into `[bus_bytes] bytes`; some cycles after they arrived. halt: request nothing more.
    """

    words: stream.Interface
    read: Any
    arriving: Signal
    beats: stream.Interface
    halt: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "words": In(stream.Signature(SCRATCHPAD_WORD)),
                "read": Out(WindowRead(config)),
                "arriving": Out(1),
                "beats": Out(stream.Signature(data.ArrayLayout(8, config.bus_bytes))),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word_bytes, bus_bytes = self._config.rows, self._config.bus_bytes
        ratio = word_bytes // bus_bytes
        depth = max(QUEUE_BEATS // ratio, MIN_QUEUE_WORDS)
        m.submodules.queue = queue = BlockQueue(8 * word_bytes, depth)
        m.submodules.narrower = narrower = Narrower(word_bytes, bus_bytes)

        room, has_room = Signal(range(depth + 1), init=depth), Signal(init=1)
        may_request, taken = Signal(), Signal()
        request = self.read.request
        m.d.comb += [
            may_request.eq(has_room & ~self.halt),
            taken.eq(request.valid & request.ready),
            request.payload.bank.eq(self.words.payload.bank),
            request.payload.word.eq(self.words.payload.word),
            request.valid.eq(self.words.valid & may_request),
            self.words.ready.eq(request.ready & may_request),
        ]
        # Whether a request is taken is known late: it chooses between two sums. So is whether a word leaves.
        leaves = Signal()
        m.d["sync" if self._config.deep_pipeline else "comb"] += leaves.eq(queue.o.valid & queue.o.ready)
        m.d.sync += [
            room.eq(Mux(taken, Mux(leaves, room, room - 1), Mux(leaves, room + 1, room))),
            has_room.eq(leaves | Mux(taken, room != 1, has_room)),
        ]

        oldest = queue.o
        if self._config.deep_pipeline:
            # Block RAM is slow.
            m.submodules.places = places = PingPong(8 * word_bytes)
            connect(m, queue.o, places.i)
            oldest = places.o
        m.d.comb += [
            queue.i.payload.eq(Value.cast(self.read.data)[: 8 * word_bytes]),
            queue.i.valid.eq(self.read.data_valid),
            self.arriving.eq(self.read.data_valid),
            Value.cast(narrower.i.payload.data).eq(oldest.payload),
            narrower.i.payload.final.eq(ratio - 1),
            narrower.i.valid.eq(oldest.valid),
            oldest.ready.eq(narrower.i.ready),
            self.beats.payload.eq(narrower.o.payload),
            self.beats.valid.eq(narrower.o.valid),
            narrower.o.ready.eq(self.beats.ready),
        ]
        return m
