# SPDX-License-Identifier: Apache-2.0
"""The reader: launches steps, makes their reads, and brings together what the reads deliver."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import Params, Source
from loomwork.rtl.command import command_layout
from loomwork.rtl.delay import delay
from loomwork.rtl.drain.layouts import launched_layout, step_layout
from loomwork.rtl.drain.parameters import lanes_of
from loomwork.rtl.drain.shifter import Extractor
from loomwork.rtl.ports import ACCUMULATOR_LATENCY, AccumulatorRead, WindowRead, window_latency


class Reader(Component):
    """Launches each step as soon as its sources, its parameters and a place for its result are there.

    A step that needs two windows of the scratchpad, its source and its operand, takes two reads, the source first; it
    is launched with the last one. From then on nothing waits: data comes after a fixed time.

    i: steps. command: the DRAIN they belong to. has_operand: an operand tensor is read. has_sum: see `Address`.
    room: there is a place for one more result. parameters_ready, buffer: the next block's parameters are in `buffer`.
    bank: of the settings for the step at `i`.
    refused: see `Address`. read, accumulator: see ports.py.

    launch: the step at `i` is launched. outside: it wants a pixel that the accumulators do not have; it never will be.
    o: the same step `latency` cycles after its launch, with its values: `source` int32 and `operand` int8 by lane.
    wait_accumulator, wait_bank: what the step at `i` waits for.
    """

    i: stream.Interface
    command: data.View
    has_operand: Signal
    has_sum: Signal
    room: Signal
    parameters_ready: Signal
    buffer: Signal
    bank: Signal
    refused: Signal
    read: Any
    accumulator: Any
    launch: Signal
    outside: Signal
    o: data.View
    source: data.View
    operand: data.View
    wait_accumulator: Signal
    wait_bank: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        self._extractor = Extractor(8, config.requant_lanes, config.rows)
        self.latency = window_latency(self._config) + self._extractor.latency
        super().__init__(
            {
                "i": In(stream.Signature(step_layout(config))),
                "command": In(command_layout("DRAIN")),
                "has_operand": In(1),
                "has_sum": In(1),
                "room": In(1),
                "parameters_ready": In(1),
                "buffer": In(1),
                "bank": In(1),
                "refused": In(2),
                "read": Out(WindowRead(config)),
                "accumulator": Out(AccumulatorRead(config)),
                "launch": Out(1),
                "outside": Out(1),
                "o": Out(launched_layout(config)),
                "source": Out(data.ArrayLayout(signed(32), config.requant_lanes)),
                "operand": Out(data.ArrayLayout(signed(8), config.requant_lanes)),
                "wait_accumulator": Out(1),
                "wait_bank": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step, request, accumulator = self.i.payload, self.read.request, self.accumulator

        # Launch. `source_read` notes that the first of two reads is made.
        # The command is there some cycles before its first step.
        from_scratchpad, has_parameters, needs_window, reads_two = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            from_scratchpad.eq(self.command.source == Source.SCRATCHPAD),
            has_parameters.eq(self.command.params != Params.UNIFORM),
            needs_window.eq((self.command.source == Source.SCRATCHPAD) | self.has_operand),
            reads_two.eq((self.command.source == Source.SCRATCHPAD) & self.has_operand),
        ]
        # What a launch waits for, side by side: many registers wait for it.
        source_read, may_launch, has_windows, reads_first = Signal(), Signal(), Signal(), Signal()
        refused: Value = (needs_window & ~request.ready).replicate(2)
        if self._config.deep_pipeline:
            refused = self.refused
        m.d.comb += [
            self.outside.eq(self.i.valid & ~from_scratchpad & step.outside),
            may_launch.eq(self.has_sum & self.room & (self.parameters_ready | ~has_parameters)),
            has_windows.eq(~refused[1] & (source_read | ~(reads_two | refused[0]))),
            reads_first.eq(may_launch & reads_two & ~source_read & ~refused[0]),
            request.valid.eq(may_launch & needs_window),
            request.payload.bank.eq(step.bank),
            request.payload.word.eq(Mux(from_scratchpad & ~source_read, step.word, step.operand_word)),
            request.payload.wide.eq(step.wide),
            self.launch.eq(may_launch & has_windows),
            self.i.ready.eq(self.launch),
            accumulator.enable.eq(self.launch & ~from_scratchpad),
            accumulator.pixel.eq(step.pixel),
            self.wait_accumulator.eq(self.i.valid & ~self.has_sum & ~self.outside),
            self.wait_bank.eq(request.valid & ~has_windows & ~reads_first),
        ]
        m.d.sync += accumulator.release.eq(accumulator.enable & step.flags.block_last)
        with m.If(reads_first):
            m.d.sync += source_read.eq(1)
        with m.If(self.launch):
            m.d.sync += source_read.eq(0)

        # Steps on their way.
        launched = Signal(self.o.shape())
        m.d.comb += [
            launched.valid.eq(self.launch),
            launched.from_scratchpad.eq(from_scratchpad),
            launched.has_operand.eq(self.has_operand),
            launched.params.eq(self.command.params),
            launched.buffer.eq(self.buffer),
            launched.bank.eq(self.bank),
            launched.flags.eq(step.flags),
        ]
        at_pixel = delay(m, "launched_accumulator", Value.cast(launched), ACCUMULATOR_LATENCY, reset=True)
        rest = self.latency - ACCUMULATOR_LATENCY
        m.d.comb += self.o.eq(delay(m, "launched", at_pixel, rest, reset=True))

        # Values. Windows pass the extractor one by one; a source waits behind it for the operand of its step.
        m.submodules.extractor = self._extractor
        m.d.comb += [
            self._extractor.i.eq(self.read.data),
            self._extractor.amount.eq(delay(m, "byte", step.byte, window_latency(self._config))),
        ]
        held = Signal(len(self._extractor.o), reset_less=True)
        with m.If(delay(m, "first", reads_first, self.latency, reset=True)):
            m.d.sync += held.eq(self._extractor.o)

        group = data.View(self.o.shape(), at_pixel).flags.group
        sums = lanes_of(self._config, Value.cast(accumulator.data), group, 32)
        sums = delay(m, "sums", sums, rest)
        window = Mux(self.o.has_operand, held, self._extractor.o)
        for lane in range(self._config.requant_lanes):
            byte = window.word_select(lane, 8).as_signed()
            sum32 = sums.word_select(lane, 32).as_signed()
            m.d.comb += [
                self.source[lane].eq(Mux(self.o.from_scratchpad, byte, sum32)),
                self.operand[lane].eq(self._extractor.o.word_select(lane, 8)),
            ]
        return m
