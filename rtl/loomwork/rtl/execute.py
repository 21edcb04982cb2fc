# SPDX-License-Identifier: Apache-2.0
"""EXECUTE: the unit that convolves. Joins pass sequencer, feed, weight loader, array and accumulators."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, OPCODE_BITS
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.accumulator import REUSE_CYCLES, TAG, Accumulator
from loomwork.rtl.array import SystolicArray
from loomwork.rtl.delay import delay
from loomwork.rtl.feed import Feed
from loomwork.rtl.ports import MEMORIES, AccumulatorRead, FeedRead, UnitPort, params_layout
from loomwork.rtl.sequencer import PassSequencer
from loomwork.rtl.skid import Skid
from loomwork.rtl.weights import WeightLoader

TILES_AHEAD = 8
"""Passes that the sequencer may be ahead of the weight loader. The feed holds as many of one pixel, at 4 rows 3 of
them in its pipeline; fewer here would leave it short of passes."""
COMMANDS_AHEAD = 4
"""Convolutions between their arrival and their last read: one in the sequencer, one in the walk, and more that are so
short that they fit into the feed's pipeline."""


def entry_cycles(config: Config) -> int:
    """Cycles from the admission of a pixel until it is in the array."""
    return int(config.deep_pipeline)


class Execute(Component):
    """Carries out CONVOLVE and DEPTHWISE commands (docs/microarchitecture.md, "Feed and array", "Depthwise mode"), with
    the passes that a SKIP leaves them.

    unit: raw commands. `done` comes when the data of a command's last scratchpad read is there, in order; the
    next command may be taken before. A SKIP is done when all before it are. `error`: see `PassSequencer`, once all
    commands before are done; nothing is executed after it.
    read, next_memories: see `Feed`. weights: `[cols] bytes` per word, in the order of use. params: parameters found
    among them. accumulator: the drain's requests.
    halt: start no pixel from now on, take no weights and begin no reads from the next cycle on; only a reset makes
    sense after it.
    array_active: a pixel enters the array. wait_weights, wait_accumulator: one could, but for its pass's weights, or
    for a free half.
    """

    unit: Any
    read: Any
    next_memories: Signal
    weights: stream.Interface
    params: stream.Interface
    accumulator: Any
    halt: Signal
    array_active: Signal
    wait_weights: Signal
    wait_accumulator: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "read": Out(FeedRead(config)),
                "next_memories": Out(MEMORIES),
                "weights": In(stream.Signature(data.ArrayLayout(8, config.cols))),
                "params": Out(stream.Signature(params_layout(config))),
                "accumulator": In(AccumulatorRead(config)),
                "halt": In(1),
                "array_active": Out(1),
                "wait_weights": Out(1),
                "wait_accumulator": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sequencer = sequencer = PassSequencer(self._config)
        m.submodules.tiles = tiles = SyncFIFO(width=len(sequencer.tiles.payload), depth=TILES_AHEAD)
        m.submodules.feed = feed = Feed(self._config)
        m.submodules.loader = loader = WeightLoader(self._config)
        m.submodules.array = array = SystolicArray(self._config, TAG)
        m.submodules.accumulator = accumulator = Accumulator(self._config)
        connect(m, sequencer.passes, feed.passes)
        connect(m, flipped(self.read), feed.read)
        if self._config.deep_pipeline:
            m.submodules.weights_skid = skid = Skid(self.weights.payload.shape())
            connect(m, flipped(self.weights), skid.i)
            connect(m, skid.o, loader.i)
        else:
            connect(m, flipped(self.weights), loader.i)
        connect(m, flipped(self.params), loader.params)
        connect(m, flipped(self.accumulator), accumulator.read)
        # Whether there are tiles, and places for them, from registers: long ways begin with it.
        some_tiles, no_place, comes, leaves = Signal(), Signal(), Signal(), Signal()
        some_then = Signal()
        m.d.comb += [
            comes.eq(tiles.w_en & ~no_place),
            leaves.eq(tiles.r_en & some_tiles),
            some_then.eq(Mux(comes ^ leaves, comes | (tiles.level != 1), some_tiles)),
        ]
        m.d.sync += some_tiles.eq(some_then)
        with m.If(comes ^ leaves):
            m.d.sync += no_place.eq(comes & (tiles.level == TILES_AHEAD - 1))
        m.d.comb += [
            tiles.w_data.eq(sequencer.tiles.payload),
            tiles.w_en.eq(sequencer.tiles.valid),
            sequencer.tiles.ready.eq(~no_place),
            loader.tiles.payload.eq(tiles.r_data),
            loader.tiles.valid.eq(some_tiles),
            loader.tile_comes.eq(some_then),
            tiles.r_en.eq(loader.tiles.ready),
            self.next_memories.eq(feed.next_memories),
            accumulator.tag.eq(array.o_tag),
            accumulator.psums.eq(array.psums),
            *(part.halt.eq(self.halt) for part in (sequencer, feed, loader)),
        ]
        self._report(m, sequencer, feed)
        self._admit(m, feed, loader, array, accumulator)
        return m

    def _report(self, m: Module, sequencer: PassSequencer, feed: Feed) -> None:
        """Take commands; say when they are done, and when one cannot be."""
        unfinished = Signal(range(COMMANDS_AHEAD + 2))
        reported = Signal()
        command = self.unit.command
        holds, skip_is_done = Signal(), Signal()
        if self._config.block_sparsity:
            self._finish_skip(m, sequencer.skips, unfinished, feed.done, holds=holds, is_done=skip_is_done)
        fails = (sequencer.error != ErrorCode.NONE) & (unfinished == 1) & ~reported & ~self.halt
        m.d.comb += [
            sequencer.command.payload.eq(command.payload),
            sequencer.command.valid.eq(command.valid & ~holds),
            command.ready.eq(sequencer.command.ready & ~holds),
            self.unit.done.eq(feed.done | skip_is_done),
            self.unit.busy.eq((unfinished != 0) | feed.running),
            self.unit.error.eq(Mux(fails, sequencer.error, ErrorCode.NONE)),
        ]
        m.d.sync += unfinished.eq(unfinished + (command.valid & command.ready) - self.unit.done)
        with m.If(fails):
            m.d.sync += reported.eq(1)

    def _finish_skip(
        self, m: Module, skips: Signal, unfinished: Signal, convolved: Signal, *, holds: Signal, is_done: Signal
    ) -> None:
        """Say when a SKIP is done (`is_done`), and that no other can be taken before (`holds`).

        skips: it is taken. convolved: another command is done. If both were, the other one is the first to be reported,
        which makes no difference to those who count.
        """
        waits, before = Signal(), Signal.like(unfinished)
        is_skip = self.unit.command.payload[:OPCODE_BITS] == BY_MNEMONIC["SKIP"].opcode
        m.d.comb += [holds.eq(waits & is_skip), is_done.eq(waits & (before == 0))]
        with m.If(skips):
            m.d.sync += [waits.eq(1), before.eq(unfinished - convolved)]
        with m.Elif(convolved):
            m.d.sync += before.eq(Mux(before == 0, 0, before - 1))
        with m.Elif(before == 0):
            m.d.sync += waits.eq(0)

    def _admit(
        self, m: Module, feed: Feed, loader: WeightLoader, array: SystolicArray, accumulator: Accumulator
    ) -> None:
        """Let pixels into the array: the first one of a pass when its weights and an accumulator half are there."""
        pixel, marks = feed.pixels.payload, feed.pixels.payload.marks
        # Passes of fewer than REUSE_CYCLES pixels: the next one waits until pixel 0 may be added to again.
        pause, pixels = Signal(range(REUSE_CYCLES)), Signal(range(REUSE_CYCLES))
        half_there, admitted, first, paused = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            half_there.eq(~marks.opens | accumulator.available),
            admitted.eq(feed.pixels.valid & ~self.halt & (~marks.start | (loader.present & half_there & ~paused))),
            first.eq(admitted & marks.start),
            feed.pixels.ready.eq(admitted),
            loader.swap.eq(first),
            accumulator.reserve.eq(first & marks.opens),
            self.array_active.eq(admitted),
            self.wait_weights.eq(feed.pixels.valid & marks.start & ~loader.present),
            self.wait_accumulator.eq(feed.pixels.valid & marks.start & loader.present & ~half_there),
        ]
        tag = Signal(TAG)
        m.d.comb += [tag.start.eq(marks.start), tag.overwrite.eq(marks.opens), tag.closes.eq(marks.closes)]
        enters = {"pixel": pixel.bytes, "weights": loader.word}
        if self._config.depthwise:
            # An output pixel is a sum that begins with its first column; with other columns nothing enters at the top.
            m.d.comb += [tag.valid.eq(admitted & marks.output), tag.last.eq(marks.last & marks.closes)]
            enters |= {"buses": pixel.buses, "depthwise": marks.depthwise}
        else:
            m.d.comb += [tag.valid.eq(admitted), tag.last.eq(marks.end & marks.closes)]
        # Whether a pixel is admitted is known late.
        for name, value in enters.items():
            m.d.comb += Value.cast(getattr(array, name)).eq(
                delay(m, name, Value.cast(value), entry_cycles(self._config))
            )
        for name, value in {"swap": first, "load": loader.load, "tag": tag}.items():
            entered = delay(m, name, Value.cast(value), entry_cycles(self._config), reset=True)
            m.d.comb += Value.cast(getattr(array, name)).eq(entered)
        with m.If(paused):
            m.d.sync += [pause.eq(pause - 1), paused.eq(pause != 1)]
        with m.If(admitted):
            with m.If(marks.end):
                m.d.sync += [pause.eq(REUSE_CYCLES - 1 - pixels), paused.eq(pixels != REUSE_CYCLES - 1), pixels.eq(0)]
            with m.Elif(pixels != REUSE_CYCLES - 1):
                m.d.sync += pixels.eq(pixels + 1)
