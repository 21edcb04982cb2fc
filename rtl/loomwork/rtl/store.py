# SPDX-License-Identifier: Apache-2.0
"""The STORE unit: copies image rows from the scratchpad to external memory."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import WRITABLE_WINDOWS
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.burst import BurstSplitter, burst_layout, burst_limit, run_layout, without_burst
from loomwork.rtl.delay import delay
from loomwork.rtl.memory_window import WindowCheck, windows_layout
from loomwork.rtl.ports import UnitPort, WindowRead
from loomwork.rtl.scratchpad_reader import MIN_QUEUE_WORDS, QUEUE_BEATS, ScratchpadReader
from loomwork.rtl.skid import Skid, Slice
from loomwork.rtl.transfer import SCRATCHPAD_WORD, TRANSFER, MemoryRows, ScratchpadWords, placement
from loomwork.rtl.up_down import count_up_down
from loomwork.rtl.write_master import MAX_OUTSTANDING, WriteBus


class Store(Component):
    """Reads words into a queue, and asks for a burst when all its beats are there. One command at a time.

    unit: commands. windows: base and size registers. read: from the scratchpad. bus: to the write master.
    halt: read and request nothing more.
    """

    unit: Any
    windows: data.View
    read: Any
    bus: Any
    halt: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "windows": In(windows_layout(config)),
                "read": Out(WindowRead(config)),
                "bus": Out(WriteBus(config)),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rows = rows = MemoryRows(self._config)
        longest = burst_limit(self._config, QUEUE_BEATS)
        m.submodules.check = check = WindowCheck(self._config, WRITABLE_WINDOWS, longest)
        m.submodules.skid = skid = Skid(run_layout(self._config))
        m.submodules.splitter = splitter = BurstSplitter(self._config, longest)
        m.submodules.words = words = ScratchpadWords()
        # Whether a word is read depends on those who go first.
        kind = Slice if self._config.deep_pipeline else Skid
        m.submodules.words_skid = words_skid = kind(SCRATCHPAD_WORD)
        m.submodules.reader = reader = ScratchpadReader(self._config)
        connect(m, rows.o, check.i)
        connect(m, check.o, skid.i)
        connect(m, skid.o, splitter.i)
        connect(m, words.o, words_skid.i)
        connect(m, words_skid.o, reader.words)
        connect(m, reader.read, flipped(self.read))
        connect(m, reader.beats, flipped(self.bus.data))

        command = self.unit.command
        transfer = data.View(TRANSFER, command.payload[: TRANSFER.size])
        taken = Signal()
        m.d.comb += [
            check.windows.eq(self.windows),
            reader.halt.eq(self.halt),
            command.ready.eq(~self.unit.busy & ~self.halt),
            taken.eq(command.valid & command.ready),
            rows.i.payload.eq(transfer),
            rows.i.valid.eq(taken),
            Value.cast(words.i.payload).eq(placement(transfer)),
            words.i.valid.eq(taken),
        ]

        # A burst is requested when its beats are in the queue and not promised to an earlier one.
        word_beats = self._config.rows // self._config.bus_bytes
        available = Signal(range(max(QUEUE_BEATS, MIN_QUEUE_WORDS * word_beats) + 1))
        unanswered = Signal(range(MAX_OUTSTANDING + 1))
        burst, request = splitter.o, self.bus.request
        if self._config.deep_pipeline:
            # What the bus takes is known between registers.
            m.submodules.slice = slice_ = Slice(burst_layout(self._config))
            connect(m, slice_.o, flipped(request))
            request = slice_.i
        may_request, requested = Signal(), Signal()
        length = burst.payload.length
        less = without_burst(available, length)
        enough: Value = less[-1]
        if self._config.deep_pipeline:
            # Known a cycle later; then more of them may have come, and none may be gone.
            enough = Signal(name="enough")
            m.d.sync += enough.eq(less[-1] & burst.valid & ~requested)
            less = delay(m, "less", less, 1)
        m.d.comb += [
            may_request.eq(enough & ~self.halt),
            request.payload.eq(burst.payload),
            request.valid.eq(burst.valid & may_request),
            burst.ready.eq(request.ready & may_request),
            requested.eq(request.valid & request.ready),
        ]
        # Whether a burst is taken is known last: it chooses between numbers that are there.
        if self._config.deep_pipeline:
            arrived = delay(m, "arrived", reader.arriving, 1, reset=True)
            words = reader.arriving + (requested & arrived)
            m.d.sync += available.eq(Mux(requested, less, available) + words * word_beats)
        else:
            with m.If(requested):
                m.d.sync += available.eq(Mux(reader.arriving, available + (word_beats - 1 - length), less))
            with m.Elif(reader.arriving):
                m.d.sync += available.eq(available + word_beats)
        # A cycle late: the answer takes longer.
        is_counted = Signal()
        m.d.sync += is_counted.eq(requested)
        count_up_down(m, unanswered, up=is_counted, down=self.bus.done)

        code = Signal(ErrorCode)
        failed, finished = Signal(), Signal()
        with m.If(self.bus.error):
            m.d.comb += code.eq(ErrorCode.BUS_WRITE)
        with m.Elif(check.fault):
            m.d.comb += code.eq(ErrorCode.WINDOW)
        all_requested = rows.i.ready & ~(check.busy | skid.o.valid | splitter.o.valid)
        m.d.comb += finished.eq(
            (self.unit.busy & ~self.unit.done)
            & (all_requested & ~is_counted & (unanswered == 0))
            & (~failed & (code == ErrorCode.NONE))
        )
        m.d.sync += [
            failed.eq(failed | (code != ErrorCode.NONE)),
            self.unit.error.eq(Mux(failed, ErrorCode.NONE, code)),
            self.unit.done.eq(finished),
            self.unit.busy.eq((self.unit.busy & ~self.unit.done) | taken),
        ]
        return m
