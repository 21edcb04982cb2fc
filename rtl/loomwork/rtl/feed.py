# SPDX-License-Identifier: Apache-2.0
"""The feed: brings each pixel's bytes from the scratchpad to the array."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.rtl.align import Align, buses_layout
from loomwork.rtl.passes import pass_layout
from loomwork.rtl.ports import MEMORIES, FeedRead, feed_latency
from loomwork.rtl.queue import BlockQueue, PingPongQueue
from loomwork.rtl.up_down import count_up_down
from loomwork.rtl.walk import Walk, marks_layout
from loomwork.rtl.window import Window

PIXELS_AHEAD = 17
"""Pixels between the walk and the array: what is in the pipeline (13 cycles from a pixel's position to the return of
its place, 15 with `deep_pipeline`) and some more. One is the queue's output register, the others a power of two."""


def read_cycles(config: Config) -> int:
    """Cycles from the beginning of a pixel to its scratchpad reads."""
    return Window.latency + config.deep_pipeline


def pixel_layout(config: Config) -> data.StructLayout:
    """One pixel, or input column of a DEPTHWISE, on its way to the array.

    bytes: `[rows]`, one for each array row; of a column `[cols]` bytes of the first kernel row of the pass.
    buses: `[kernel rows but the first, cols]` of a column. marks: see `marks_layout`.
    """
    layouts = {"bytes": data.ArrayLayout(8, config.rows), "buses": buses_layout(config)}
    return data.StructLayout({**layouts, "marks": marks_layout(config)})


class Feed(Component):
    """Reads the scratchpad for each pixel of each pass. Reads cannot be held back, so that a pixel is only begun when
    there is room for it behind the pipeline.

    Once the first pixel of a pass is taken, the others follow in consecutive cycles if they are taken as soon as they
    are there: a DEPTHWISE depends on it. While nothing is taken, the walk begins PIXELS_AHEAD pixels, without a gap
    within a pass. From then on each pixel taken lets one more begin, which is there before those in front of it are
    gone, because PIXELS_AHEAD exceeds the cycles from a place's return to the arrival of the pixel that gets it.

    passes: from the sequencer. pixels: to the array, one per cycle without a gap between passes.
    read: scratchpad. next_memories: `read.memories` of the next cycle; only there with `deep_pipeline`.
    done: one cycle, when the data of a command's last read is there. running: there are pixels between walk and array.
    halt: begin no more reads from the next cycle on.
    """

    passes: stream.Interface
    read: Any
    next_memories: Signal
    pixels: stream.Interface
    done: Signal
    running: Signal
    halt: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "passes": In(stream.Signature(pass_layout(config))),
                "read": Out(FeedRead(config)),
                "next_memories": Out(MEMORIES),
                "pixels": Out(stream.Signature(pixel_layout(config))),
                "done": Out(1),
                "running": Out(1),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = Walk(self._config)
        m.submodules.window = window = Window(self._config)
        m.submodules.align = align = Align(self._config)
        # Whether the array takes a pixel is known late.
        kind = PingPongQueue if self._config.deep_pipeline else BlockQueue
        m.submodules.queue = queue = kind(pixel_layout(self._config).size, PIXELS_AHEAD)
        connect(m, walk.passes, flipped(self.passes))

        places = Signal(range(PIXELS_AHEAD + 1), init=PIXELS_AHEAD)
        may_begin = Signal(init=1)
        begins, leaves, left = Signal(), Signal(), Signal()
        m.d.comb += [
            walk.positions.ready.eq(may_begin),
            begins.eq(walk.positions.valid & walk.positions.ready),
            leaves.eq(self.pixels.valid & self.pixels.ready),
            self.running.eq(~Mux(left, places == PIXELS_AHEAD - 1, places == PIXELS_AHEAD)),
        ]
        # Whether a pixel leaves is known late: its place is counted a cycle later, and there all the same.
        m.d.sync += left.eq(leaves)
        count_up_down(m, places, up=left, down=begins)
        # A register, for all that the walk does depends on it.
        m.d.sync += may_begin.eq((leaves | Mux(left, places >= begins, places > begins)) & ~self.halt)

        # What travels beside the reads: one signal per cycle from the walk to the queue.
        tag = data.StructLayout({"valid": 1, "final": 1, "marks": marks_layout(self._config)})
        data_time = read_cycles(self._config) + feed_latency(self._config)
        tags = [Signal(tag, name=f"tag_{cycle}") for cycle in range(data_time + align.latency + 1)]
        m.d.comb += [
            tags[0].valid.eq(begins),
            tags[0].final.eq(begins & walk.positions.payload.final),
            tags[0].marks.eq(walk.positions.payload.marks),
            window.i.eq(walk.positions.payload),
        ]
        m.d.sync += [late.eq(early) for early, late in pairwise(tags)]

        m.d.comb += [
            window.asked.eq(tags[window.latency - 1].valid),
            self.done.eq(tags[data_time].final),
        ]
        # Who asks for what the feed takes hears of it a cycle before.
        domain = "comb"
        if self._config.deep_pipeline:
            domain = "sync"
            m.d.comb += self.next_memories.eq(window.reads.memories)
        m.d[domain] += [self.read.memories.eq(window.reads.memories), self.read.word.eq(window.reads.word)]
        alignments = [
            Signal.like(window.alignment, name=f"alignment_{cycle}", reset_less=True)
            for cycle in range(data_time - window.latency)
        ]
        stages = [window.alignment, *alignments]
        m.d.sync += [late.eq(early) for early, late in pairwise(stages)]
        m.d.comb += [align.words.eq(self.read.data), align.alignment.eq(alignments[-1])]
        if self._config.depthwise:
            m.d.comb += align.depthwise.eq(tags[data_time].marks.depthwise)

        entered = data.View(pixel_layout(self._config), queue.i.payload)
        m.d.comb += [
            entered.bytes.eq(align.o),
            entered.buses.eq(align.buses),
            entered.marks.eq(tags[-1].marks),
            queue.i.valid.eq(tags[-1].valid),
            self.pixels.payload.eq(queue.o.payload),
            self.pixels.valid.eq(queue.o.valid),
            queue.o.ready.eq(self.pixels.ready),
        ]
        return m
