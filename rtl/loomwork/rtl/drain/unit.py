# SPDX-License-Identifier: Apache-2.0
"""The DRAIN unit as a whole."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import Params
from loomwork.rtl.drain.address import Address
from loomwork.rtl.drain.datapath import Datapath
from loomwork.rtl.drain.layouts import has_operand
from loomwork.rtl.drain.parameters import Parameters
from loomwork.rtl.drain.reader import Reader
from loomwork.rtl.drain.sequencer import Sequencer
from loomwork.rtl.drain.walker import Walker
from loomwork.rtl.drain.writer import Writer
from loomwork.rtl.ports import MEMORIES, AccumulatorRead, UnitPort, WindowRead, params_layout, window_write_layout


class Drain(Component):
    """The DRAIN unit.

    unit: commands. read, write: of the scratchpad. next_memories: those that the feed takes in the next cycle; with
    `deep_pipeline` the drain finds out by itself whether a read is taken.
    accumulator: finished blocks. params: parameters of each block.
    halt: the engine has stopped: read and write nothing more from the next cycle on.
    wait_accumulator, wait_bank: cycles lost while a block is not finished, or a bank not free.

    One step per cycle is launched when nothing is missing: `requant_lanes` channels of one source pixel (two cycles
    when both the source and an operand lie in the scratchpad). A block of one pass is taken while the array still makes
    it. DRAINs that read accumulators only follow each other, with a REQUANT between them or not, while the results of
    the one before are still on their way; every other command waits until those are written.

    Errors: ILLEGAL_OPERAND for a second stage or a TABLE that the configuration does not have, for SUM together with
    ADD or MULTIPLY, for a window of several pixels without pooling, and for parameters with values from the scratchpad;
    SCRATCHPAD for a pixel beyond the accumulators. They come when all earlier commands are done. Afterwards the unit
    stands still until reset.
    """

    unit: Any
    accumulator: Any
    read: Any
    next_memories: Signal
    write: stream.Interface
    params: stream.Interface
    halt: Signal
    wait_accumulator: Signal
    wait_bank: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "accumulator": Out(AccumulatorRead(config)),
                "read": Out(WindowRead(config)),
                "next_memories": In(MEMORIES),
                "write": Out(stream.Signature(window_write_layout(config))),
                "params": In(stream.Signature(params_layout(config))),
                "halt": In(1),
                "wait_accumulator": Out(1),
                "wait_bank": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.walker = walker = Walker(config)
        m.submodules.address = address = Address(config)
        m.submodules.reader = reader = Reader(config)
        m.submodules.parameters = parameters = Parameters(config)
        m.submodules.datapath = datapath = Datapath(config)
        m.submodules.writer = writer = Writer(config, reader.latency + datapath.latency)
        drain, combine, step = sequencer.drain, sequencer.combine, reader.i.payload

        # The end of a command is known late, and has a long way before it. An error must not overtake it.
        m.d["sync" if config.deep_pipeline else "comb"] += [
            self.unit.done.eq(sequencer.unit.done),
            self.unit.error.eq(sequencer.unit.error),
        ]
        connect(m, flipped(self.unit.command), sequencer.unit.command)
        m.d.comb += [
            self.unit.busy.eq(sequencer.unit.busy | self.unit.done),
            sequencer.halt.eq(self.halt),
            sequencer.idle.eq(writer.idle),
            sequencer.written.eq(writer.done),
            sequencer.launched.eq(reader.launch & step.last),
            sequencer.outside.eq(reader.outside),
        ]

        # Steps from loop to launch.
        connect(m, walker.o, address.i)
        connect(m, address.o, reader.i)
        m.d.comb += [
            walker.start.eq(sequencer.start),
            walker.command.eq(drain),
            walker.window_step.eq(sequencer.window_step),
            address.command.eq(drain),
            address.operand_base.eq(combine.operand_base),
            address.operand_pitch.eq(combine.operand_pitch),
            address.ready.eq(self.accumulator.ready),
            address.next_ready.eq(self.accumulator.next_ready),
            address.progress.eq(self.accumulator.progress),
            address.release.eq(self.accumulator.release),
            address.next_memories.eq(self.next_memories),
            reader.refused.eq(address.refused),
            reader.command.eq(drain),
            reader.has_sum.eq(address.has_sum),
            reader.has_operand.eq(has_operand(drain.combine)),
            reader.room.eq(writer.room),
            reader.parameters_ready.eq(parameters.ready),
            reader.buffer.eq(parameters.buffer),
            reader.bank.eq(sequencer.bank),
            self.wait_accumulator.eq(reader.wait_accumulator),
            self.wait_bank.eq(reader.wait_bank | (self.write.valid & ~self.write.ready)),
        ]
        connect(m, reader.read, flipped(self.read))
        connect(m, reader.accumulator, flipped(self.accumulator))

        # A buffer of parameters is claimed with the launch of its block's last step, and free when that has read it.
        connect(m, flipped(self.params), parameters.i)
        m.d.comb += [
            parameters.claim.eq(reader.launch & step.flags.block_last & (drain.params != Params.UNIFORM)),
            parameters.read_buffer.eq(reader.o.buffer),
            parameters.group.eq(reader.o.flags.group),
            parameters.free.eq(reader.o.valid & reader.o.flags.block_last & (reader.o.params != Params.UNIFORM)),
            parameters.free_buffer.eq(reader.o.buffer),
        ]

        # From launch to write.
        connect(m, writer.write, flipped(self.write))
        m.d.comb += [
            datapath.requants.eq(sequencer.requants),
            datapath.combine.eq(sequencer.combine),
            datapath.mode.eq(sequencer.mode),
            datapath.table.eq(sequencer.table),
            datapath.write_table.eq(sequencer.write_table),
            datapath.i.eq(reader.o),
            datapath.source.eq(reader.source),
            datapath.operand.eq(reader.operand),
            datapath.parameters.eq(parameters.lanes),
            writer.target.eq(step.target),
            writer.expect.eq(reader.launch & step.window_last),
            writer.bytes.eq(datapath.bytes),
            writer.push.eq(datapath.push),
            writer.halt.eq(self.halt),
        ]
        return m
