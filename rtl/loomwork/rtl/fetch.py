# SPDX-License-Identifier: Apache-2.0
"""Fetch: reads the program, in order and ahead of its use, from window COMMANDS."""

from dataclasses import replace
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, OPCODE_BITS, Window
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.decoder import COMMAND_INDEX_BITS, FETCHED
from loomwork.rtl.gearbox import Narrower, Widener
from loomwork.rtl.memory_window import windows_layout
from loomwork.rtl.ports import ERROR_BITS
from loomwork.rtl.read_master import ReadBus
from loomwork.rtl.window_reader import WindowReader

PREFETCH_BEATS = 32
"""Beats of commands that are read ahead."""


class Fetch(Component):
    """Reads commands from the beginning of window COMMANDS until an END has been taken, or an error has come.

    It asks for the whole window in one span and stops asking at END; nobody takes what was read beyond. A soft reset,
    or the reset before the next program, throws it away.

    go: begin, one cycle; once after each reset. windows: base and size registers. bus: to the read master. halt: stop.
    o: commands; with `deep_pipeline` none is taken in the cycle behind another. error: nonzero `ErrorCode` for one
    cycle: WINDOW when the program runs to the end of its window or the window is not on the bus, BUS_READ when the bus
    reports an error. error_index: at which command, at that time.
    """

    go: Signal
    windows: data.View
    bus: Any
    halt: Signal
    o: stream.Interface
    error: Signal
    error_index: Signal

    def __init__(self, config: Config) -> None:
        self._config = replace(config, stream_beats=PREFETCH_BEATS)
        super().__init__(
            {
                "go": In(1),
                "windows": In(windows_layout(config)),
                "bus": Out(ReadBus(config)),
                "halt": In(1),
                "o": Out(stream.Signature(FETCHED)),
                "error": Out(ERROR_BITS),
                "error_index": Out(COMMAND_INDEX_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = reader = WindowReader(self._config)
        connect(m, reader.bus, flipped(self.bus))
        index = Signal(COMMAND_INDEX_BITS)
        limit = Signal(COMMAND_INDEX_BITS)
        running, stopped, wanted = Signal(), Signal(), Signal()
        at_limit = Signal()
        taken = Signal()
        is_end = Value.cast(self.o.payload.command)[:OPCODE_BITS] == BY_MNEMONIC["END"].opcode
        m.d.comb += [
            # A window too small for a command is asked for 0 bytes, which reads nothing.
            limit.eq(self.windows[Window.COMMANDS].size // COMMAND_BYTES),
            reader.windows.eq(self.windows),
            reader.halt.eq(self.halt | stopped),
            reader.spans.valid.eq(self.go & (limit != 0)),
            reader.spans.payload.window.eq(Window.COMMANDS),
            reader.spans.payload.length.eq(limit * COMMAND_BYTES),
            taken.eq(self.o.valid & self.o.ready),
            self.o.payload.index.eq(index),
        ]
        with m.If(self.go):
            m.d.sync += running.eq(1)
        # Known from a register; the limit does not change while a program runs.
        m.d.sync += at_limit.eq(index == limit)
        with m.If(taken):
            m.d.sync += index.eq(index + 1)
            if not self._config.deep_pipeline:
                # The next command may be taken in the next cycle.
                m.d.sync += at_limit.eq(index + 1 == limit)
            with m.If(is_end):
                m.d.sync += stopped.eq(1)

        command, command_valid, bad_beat = self._assemble(m, reader, self.o.ready & wanted)
        m.d.comb += [
            wanted.eq(running & ~stopped & ~at_limit),
            self.o.payload.command.eq(command),
            self.o.valid.eq(command_valid & wanted),
        ]

        code = Signal(ErrorCode)
        with m.If(running & ~stopped):
            with m.If(bad_beat):
                m.d.comb += code.eq(ErrorCode.BUS_READ)
            # Only when one more command is wanted: the last one may be illegal, and that error comes first.
            with m.Elif(reader.fault | (at_limit & self.o.ready)):
                m.d.comb += code.eq(ErrorCode.WINDOW)
        m.d.sync += [self.error.eq(code), self.error_index.eq(index)]
        with m.If(code != ErrorCode.NONE):
            m.d.sync += stopped.eq(1)
        return m

    def _assemble(self, m: Module, reader: WindowReader, ready: Value) -> tuple[Value, Value, Value]:
        """Commands from beats: (command, it is there, the next beat has an error)."""
        beat = reader.beats
        good = Signal()
        bad = Signal()
        m.d.comb += [good.eq(beat.valid & ~beat.payload.error), bad.eq(beat.valid & beat.payload.error)]
        bus_bytes = self._config.bus_bytes
        if bus_bytes > COMMAND_BYTES:
            m.submodules.narrower = narrower = Narrower(bus_bytes, COMMAND_BYTES)
            i, o = narrower.i, narrower.o
            # The last beat may hold fewer commands: what lies behind is not taken, for `index` is at its limit.
            m.d.comb += [i.payload.data.eq(beat.payload.data), i.payload.final.eq(bus_bytes // COMMAND_BYTES - 1)]
        else:
            m.submodules.widener = widener = Widener(bus_bytes, COMMAND_BYTES)
            i, o = widener.i, widener.o
            m.d.comb += i.payload.eq(beat.payload.data)
        m.d.comb += [i.valid.eq(good), beat.ready.eq(i.ready), o.ready.eq(ready)]
        return Value.cast(o.payload), o.valid, bad
