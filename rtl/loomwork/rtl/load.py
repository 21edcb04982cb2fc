# SPDX-License-Identifier: Apache-2.0
"""The LOAD unit: copies image rows from external memory into the scratchpad."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.gearbox import Widener
from loomwork.rtl.memory_window import windows_layout
from loomwork.rtl.ports import UnitPort
from loomwork.rtl.queue import Queue
from loomwork.rtl.read_master import ReadBus
from loomwork.rtl.scratchpad import word_write_layout
from loomwork.rtl.skid import Skid
from loomwork.rtl.transfer import PLACEMENT, SCRATCHPAD_WORD, TRANSFER, MemoryRows, ScratchpadWords, placement
from loomwork.rtl.window_reader import WindowReader

COMMANDS_AHEAD = 2
"""Commands whose reads may be requested before the words of an earlier one are written."""


class Load(Component):
    """Requests rows as far ahead as the queue has room, across commands too, and writes their words as they come.

    unit: commands; an error concerns the oldest one that is not done. windows: base and size registers.
    bus: to the read master. write: to the scratchpad. halt: request and write nothing more.
    """

    unit: Any
    windows: data.View
    bus: Any
    write: stream.Interface
    halt: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "windows": In(windows_layout(config)),
                "bus": Out(ReadBus(config)),
                "write": Out(stream.Signature(word_write_layout(config))),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rows = rows = MemoryRows(self._config)
        m.submodules.reader = reader = WindowReader(self._config)
        m.submodules.placements = placements = Queue(PLACEMENT.size, COMMANDS_AHEAD)
        m.submodules.generator = generator = ScratchpadWords()
        m.submodules.skid = skid = Skid(SCRATCHPAD_WORD)
        m.submodules.widener = widener = Widener(self._config.bus_bytes, self._config.rows)
        connect(m, rows.o, reader.spans)
        connect(m, reader.bus, flipped(self.bus))
        connect(m, generator.o, skid.i)
        words = skid.o
        m.d.comb += [reader.windows.eq(self.windows), reader.halt.eq(self.halt)]

        # The next command is taken when all rows of this one are known to be legal: an illegal row is always one of
        # the youngest command.
        command = self.unit.command
        transfer = data.View(TRANSFER, command.payload[: TRANSFER.size])
        pending = Signal(range(COMMANDS_AHEAD + 3))
        may_take, taken = Signal(), Signal()
        m.d.comb += [
            may_take.eq(rows.i.ready & ~reader.checking & ~reader.fault & placements.i.ready & ~self.halt),
            command.ready.eq(may_take),
            taken.eq(command.valid & may_take),
            rows.i.valid.eq(taken),
            rows.i.payload.eq(transfer),
            placements.i.valid.eq(taken),
            placements.i.payload.eq(placement(transfer)),
            generator.i.valid.eq(placements.o.valid),
            Value.cast(generator.i.payload).eq(placements.o.payload),
            placements.o.ready.eq(generator.i.ready),
            self.unit.busy.eq(pending != 0),
        ]
        m.d.sync += pending.eq(pending + taken - self.unit.done)

        # Beats and word addresses meet in front of the scratchpad, which may refuse what they make: it is kept then, so
        # that the queue of beats need not know.
        beat = reader.beats
        layout = data.StructLayout({"write": word_write_layout(self._config), "last": 1})
        m.submodules.writes = writes = Skid(layout)
        m.d.comb += [
            widener.i.payload.eq(beat.payload.data),
            widener.i.valid.eq(beat.valid & ~beat.payload.error),
            beat.ready.eq(widener.i.ready & ~beat.payload.error),
            writes.i.payload.write.bank.eq(words.payload.bank),
            writes.i.payload.write.word.eq(words.payload.word),
            writes.i.payload.write.data.eq(widener.o.payload),
            writes.i.payload.last.eq(words.payload.last),
            writes.i.valid.eq(widener.o.valid & words.valid),
            widener.o.ready.eq(words.valid & writes.i.ready),
            words.ready.eq(widener.o.valid & writes.i.ready),
            self.write.payload.eq(writes.o.payload.write),
            self.write.valid.eq(writes.o.valid & ~self.halt),
            writes.o.ready.eq(self.write.ready & ~self.halt),
        ]
        m.d.sync += self.unit.done.eq(self.write.valid & self.write.ready & writes.o.payload.last)

        code = Signal(ErrorCode)
        failed = Signal()
        # A word that is kept may be the last one of the command before, which is not to blame.
        with m.If(beat.valid & beat.payload.error & writes.i.ready):
            m.d.comb += code.eq(ErrorCode.BUS_READ)
        with m.Elif(reader.fault & (pending == 1)):
            m.d.comb += code.eq(ErrorCode.WINDOW)
        m.d.sync += [
            self.unit.error.eq(Mux(failed, ErrorCode.NONE, code)),
            failed.eq(failed | (code != ErrorCode.NONE)),
        ]
        return m
