# SPDX-License-Identifier: Apache-2.0
"""The writer: joins finished bytes with the place they go to, and writes them."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.rtl.drain.layouts import target_layout
from loomwork.rtl.drain.shifter import Inserter
from loomwork.rtl.ports import window_write_layout
from loomwork.rtl.up_down import count_up_down

_QUEUE_CYCLES = 6
"""Cycles that a result spends in queue and output, and that pass until its write makes room for another launch."""


class Writer(Component):
    """Takes the place of each result when its step is launched, and its bytes whenever they are finished.

    cycles: from the launch of a step to its bytes. There is room for as many results as are then on their way.

    room: another target may come. target, expect: one that does. bytes, push: `requant_lanes` finished bytes, in the
    order of the targets. halt: have no room and write nothing, from the next cycle on. write: see ports.py. idle: every
    target has been written to. done: the last bytes of a command are being taken.
    """

    room: Signal
    target: data.View
    expect: Signal
    bytes: Signal
    push: Signal
    halt: Signal
    write: stream.Interface
    idle: Signal
    done: Signal

    def __init__(self, config: Config, cycles: int) -> None:
        self._config = config
        self._inserter = Inserter(config.requant_lanes, config.rows)
        self._depth = 1 << (cycles + self._inserter.latency + _QUEUE_CYCLES - 1).bit_length()
        super().__init__(
            {
                "room": Out(1),
                "target": In(target_layout(config)),
                "expect": In(1),
                "bytes": In(8 * config.requant_lanes),
                "push": In(1),
                "halt": In(1),
                "write": Out(stream.Signature(window_write_layout(config))),
                "idle": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._config.requant_lanes
        m.submodules.targets = targets = SyncFIFOBuffered(width=len(Value.cast(self.target)), depth=self._depth)
        m.submodules.values = values = SyncFIFOBuffered(width=8 * lanes, depth=self._depth)

        # Results between launch and write; as there are never more than `depth`, neither queue overflows.
        written = Signal()
        outstanding = Signal(range(self._depth + 1))
        m.d.comb += [
            written.eq(self.write.valid & self.write.ready),
        ]
        count_up_down(m, outstanding, up=self.expect, down=written)
        is_full, is_busy = Signal(), Signal()
        m.d.comb += [self.room.eq(~is_full), self.idle.eq(~is_busy)]
        with m.If(self.expect & ~written):
            m.d.sync += [is_full.eq(outstanding == self._depth - 1), is_busy.eq(1)]
        with m.If(written & ~self.expect):
            m.d.sync += [is_full.eq(0), is_busy.eq(outstanding != 1)]
        with m.If(self.halt):
            m.d.sync += is_full.eq(1)

        # The pipeline behind the queues moves whenever its end is free. A target is always there before its bytes.
        advance, taken = Signal(), Signal()
        comes, target_comes = Signal(), Signal.like(self.target, reset_less=True)
        m.d.sync += [comes.eq(self.expect), target_comes.eq(self.target)]  # the launch is known late in its cycle
        m.d.comb += [
            targets.w_data.eq(target_comes),
            targets.w_en.eq(comes),
            values.w_data.eq(self.bytes),
            values.w_en.eq(self.push),
            taken.eq(advance & values.r_rdy),
            values.r_en.eq(taken),
            targets.r_en.eq(taken),
        ]
        target = data.View(target_layout(self._config), targets.r_data)

        m.submodules.inserter = inserter = self._inserter
        m.d.comb += [
            inserter.stall.eq(~advance),
            inserter.amount.eq(target.byte),
            inserter.end.eq(target.end),
            inserter.i.eq(values.r_data),
        ]
        head = Cat(taken, target.bank, target.word, target.last)
        for stage in range(inserter.latency):
            q = Signal(len(head), name=f"head_{stage}")
            with m.If(advance):
                m.d.sync += q.eq(head)
            with m.If(self.halt):
                m.d.sync += q[0].eq(0)
            head = q
        valid, bank, word, last = head[0], head[1:3], head[3:-1], head[-1]
        m.d.comb += [
            advance.eq(~valid | written),
            self.write.valid.eq(valid),
            self.write.payload.bank.eq(bank),
            self.write.payload.word.eq(word),
            self.write.payload.wide.eq(inserter.wide),
            self.write.payload.data.eq(inserter.o),
            self.write.payload.mask.eq(inserter.mask),
            self.done.eq(written & last),
        ]
        return m
