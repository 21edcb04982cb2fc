# SPDX-License-Identifier: Apache-2.0
"""The STREAM unit: reads weights and requantization parameters ahead of the array."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.burst import RUN_BEATS_BITS
from loomwork.rtl.command import command_layout
from loomwork.rtl.gearbox import Narrower, Widener
from loomwork.rtl.memory_window import windows_layout
from loomwork.rtl.ports import UnitPort
from loomwork.rtl.queue import BlockQueue
from loomwork.rtl.read_master import ReadBus
from loomwork.rtl.window_reader import WindowReader

COMMANDS_AHEAD = 4
"""Commands of which beats may be under way at the same time."""

STREAM = command_layout("STREAM")


class StreamReader(Component):
    """Turns spans of a window into words of `cols` bytes, across commands, as far ahead as the queue has room.

    A command is done when its last beat is in the queue, so that nothing but room limits how far it reads ahead. The
    whole of its last beat must lie in the window, though what is left of it is dropped.

    unit: commands; an error concerns the oldest one that is not done. windows: base and size registers.
    bus: to the read master. words: `[cols] bytes`. halt: request nothing more.
    """

    unit: Any
    windows: data.View
    bus: Any
    words: stream.Interface
    halt: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        self._words_per_beat = max(1, config.bus_bytes // config.cols)
        self._mark_bits = max(1, (self._words_per_beat - 1).bit_length())
        super().__init__(
            {
                "unit": In(UnitPort()),
                "windows": In(windows_layout(config)),
                "bus": Out(ReadBus(config)),
                "words": Out(stream.Signature(data.ArrayLayout(8, config.cols))),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = reader = WindowReader(self._config, self._mark_bits)
        # What is on its way, by command. final: number of the last word in the last beat. single: it is the only one.
        arrival = data.StructLayout({"beats": RUN_BEATS_BITS, "final": self._mark_bits, "single": 1})
        # Whether a beat is a command's last one is needed early.
        m.submodules.arrivals = arrivals = BlockQueue(arrival.size, COMMANDS_AHEAD)
        connect(m, reader.bus, flipped(self.bus))
        m.d.comb += [reader.windows.eq(self.windows), reader.halt.eq(self.halt)]

        command = self.unit.command
        wanted = data.View(STREAM, command.payload[: STREAM.size])
        pending = Signal(range(COMMANDS_AHEAD + 2))
        may_take, taken = Signal(), Signal()
        expected, comes = Signal(arrival), Signal()
        cols, bus_bytes = self._config.cols, self._config.bus_bytes
        beats = (wanted.words * cols + bus_bytes - 1) // bus_bytes
        m.d.comb += [
            # An illegal command is always the youngest: the next one is taken when this one is known to be legal.
            may_take.eq(reader.spans.ready & ~reader.checking & ~reader.fault & arrivals.i.ready & ~self.halt),
            command.ready.eq(may_take),
            taken.eq(command.valid & may_take),
            reader.spans.payload.window.eq(wanted.window),
            reader.spans.payload.offset.eq(wanted.offset),
            reader.spans.payload.length.eq(beats * bus_bytes),
            reader.spans.payload.misaligned.eq((wanted.offset & (bus_bytes - 1)) != 0),
            reader.spans.valid.eq(taken),
            expected.beats.eq(beats),
            expected.final.eq((wanted.words - 1) & (self._words_per_beat - 1)),
            expected.single.eq(wanted.words * cols <= bus_bytes),
            self.unit.busy.eq(pending != 0),
        ]
        m.d.sync += pending.eq(pending + taken - self.unit.done)
        # A cycle late: the next command is taken later, and beats come later still.
        m.d.sync += [arrivals.i.payload.eq(expected), comes.eq(taken)]
        m.d.comb += arrivals.i.valid.eq(comes)

        oldest = data.View(arrival, arrivals.o.payload)
        # Whether a beat is the last one is known a cycle ahead, but for the first one, whose command may come late.
        number = Signal(RUN_BEATS_BITS, init=2)  # of the beat behind the next one
        is_first, is_last = Signal(init=1), Signal()
        last = Signal()
        m.d.comb += [
            last.eq(Mux(is_first, oldest.single, is_last)),
            reader.mark.eq(Mux(last, oldest.final, self._words_per_beat - 1)),
            arrivals.o.ready.eq(reader.arriving & last),
        ]
        with m.If(reader.arriving):
            m.d.sync += [is_first.eq(last), is_last.eq(number == oldest.beats), number.eq(Mux(last, 2, number + 1))]
        self._deliver(m, reader.beats)

        code = Signal(ErrorCode)
        failed = Signal()
        with m.If(reader.arriving_error):
            m.d.comb += code.eq(ErrorCode.BUS_READ)
        with m.Elif(reader.fault & (pending == 1) & ~self.unit.done):
            m.d.comb += code.eq(ErrorCode.WINDOW)
        m.d.sync += [
            failed.eq(failed | (code != ErrorCode.NONE)),
            self.unit.error.eq(Mux(failed, ErrorCode.NONE, code)),
            self.unit.done.eq(arrivals.o.ready & ~failed & (code == ErrorCode.NONE)),
        ]
        return m

    def _deliver(self, m: Module, beats: stream.Interface) -> None:
        """Cut or gather the beats of the queue to words."""
        if self._words_per_beat > 1:
            m.submodules.narrower = narrower = Narrower(self._config.bus_bytes, self._config.cols)
            i, o = narrower.i, narrower.o
            m.d.comb += [i.payload.data.eq(beats.payload.data), i.payload.final.eq(beats.payload.mark)]
        else:
            m.submodules.widener = widener = Widener(self._config.bus_bytes, self._config.cols)
            i, o = widener.i, widener.o
            m.d.comb += i.payload.eq(beats.payload.data)
        m.d.comb += [i.valid.eq(beats.valid), beats.ready.eq(i.ready)]
        connect(m, o, flipped(self.words))
