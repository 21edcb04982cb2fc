"""The DRAIN unit: runs REQUANT, COMBINE and DRAIN in order."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, OPCODE_BITS, Combine, Params, Source
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.command import command_layout
from loomwork.rtl.drain.address import Address
from loomwork.rtl.drain.datapath import Datapath
from loomwork.rtl.drain.parameters import Parameters
from loomwork.rtl.drain.reader import Reader
from loomwork.rtl.drain.walker import Walker
from loomwork.rtl.drain.writer import Writer
from loomwork.rtl.ports import AccumulatorRead, UnitPort, WindowRead, params_layout, window_write_layout

_MNEMONICS = ("REQUANT", "COMBINE", "DRAIN")
_COMMAND_BITS = max(BY_MNEMONIC[mnemonic].bits for mnemonic in _MNEMONICS)
_QUEUE_CYCLES = 6
"""Cycles that a result spends in the writer besides shifting, and between its write and the launch it makes room for."""


class Drain(Component):
    """The DRAIN unit.

    unit: commands. read, write: of the scratchpad. accumulator: finished blocks. params: parameters of each block.
    halt: the engine has stopped: read and write nothing more.
    wait_accumulator, wait_bank: cycles lost while a block is not finished, or a bank not free.

    One step per cycle is launched when nothing is missing: `requant_lanes` channels of one source pixel (two cycles
    when both the source and an operand lie in the scratchpad). DRAINs that read accumulators only follow each other
    while the results of the one before are still on their way; every other command waits until those are written.

    Errors: ILLEGAL_OPERAND for a second stage that the configuration does not have, and for parameters with values from
    the scratchpad; SCRATCHPAD for a pixel beyond the accumulators. They come when all earlier commands are done.
    Afterwards the unit stands still until reset.
    """

    unit: UnitPort
    accumulator: AccumulatorRead
    read: WindowRead
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
        m.submodules.walker = walker = Walker(config)
        m.submodules.address = address = Address(config)
        m.submodules.reader = reader = Reader(config)
        m.submodules.parameters = parameters = Parameters(config)
        m.submodules.datapath = datapath = Datapath(config)
        cycles = reader.latency + datapath.latency + _QUEUE_CYCLES + (config.rows - 1).bit_length() // 3
        m.submodules.writer = writer = Writer(config, depth=1 << (cycles - 1).bit_length())

        # Settings, and the command that is being executed.
        command, requant, combine = Signal(_COMMAND_BITS), Signal(_COMMAND_BITS), Signal(_COMMAND_BITS)
        mode = Signal(Combine)
        settings = {
            mnemonic: data.View(command_layout(mnemonic), register[: BY_MNEMONIC[mnemonic].bits])
            for mnemonic, register in zip(_MNEMONICS, (requant, combine, command), strict=True)
        }
        drain, operand_tensor = settings["DRAIN"], settings["COMBINE"]
        self._sequence(m, command, requant, combine, mode, walker, reader, writer)

        # Steps from loop to launch.
        connect(m, walker.o, address.i)
        connect(m, address.o, reader.i)
        step = reader.i.payload
        m.d.comb += [
            walker.command.eq(drain),
            address.command.eq(drain),
            address.operand_base.eq(operand_tensor.operand_base),
            address.operand_pitch.eq(operand_tensor.operand_pitch),
            reader.command.eq(drain),
            reader.has_operand.eq(drain.combine == Combine.ADD),
            reader.room.eq(writer.room),
            reader.parameters_ready.eq(parameters.ready),
            reader.buffer.eq(parameters.buffer),
            reader.halt.eq(self.halt),
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
            datapath.requant.eq(settings["REQUANT"]),
            datapath.combine.eq(settings["COMBINE"]),
            datapath.mode.eq(mode),
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

    def _sequence(
        self,
        m: Module,
        command: Signal,
        requant: Signal,
        combine: Signal,
        mode: Signal,
        walker: Walker,
        reader: Reader,
        writer: Writer,
    ) -> None:
        """Take commands and carry them out one by one."""
        drain = walker.command
        opcode = command[:OPCODE_BITS]
        is_legal = (drain.source == Source.ACCUMULATOR) | (drain.params == Params.UNIFORM)
        if not self._config.residual_add:
            is_legal &= drain.combine == Combine.NONE
        # Commands see the results of those before them; only DRAINs that read no scratchpad need not wait for that.
        may_follow = (drain.source == Source.ACCUMULATOR) & (drain.combine == mode) & (mode != Combine.ADD)
        applied = Signal()
        m.d.comb += self.unit.done.eq(applied | writer.done)

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.unit.command.ready.eq(~self.halt)
                m.d.sync += command.eq(self.unit.command.payload)
                with m.If(self.unit.command.valid & self.unit.command.ready):
                    m.next = "BEGIN"
            with m.State("BEGIN"), m.Switch(opcode):
                with m.Case(BY_MNEMONIC["DRAIN"].opcode):
                    with m.If(~is_legal & writer.idle):
                        m.d.comb += self.unit.error.eq(ErrorCode.ILLEGAL_OPERAND)
                        m.next = "FAILED"
                    with m.Elif(is_legal & (writer.idle | may_follow)):
                        m.d.comb += walker.start.eq(1)
                        m.d.sync += mode.eq(drain.combine)
                        m.next = "DRAIN"
                with m.Default(), m.If(writer.idle):
                    m.d.comb += applied.eq(1)
                    with m.If(opcode == BY_MNEMONIC["REQUANT"].opcode):
                        m.d.sync += requant.eq(command)
                    with m.Else():
                        m.d.sync += combine.eq(command)
                    m.next = "IDLE"
            with m.State("DRAIN"):
                with m.If(reader.launch & reader.i.payload.last):
                    m.next = "IDLE"
                with m.Elif(reader.outside & writer.idle):
                    m.d.comb += self.unit.error.eq(ErrorCode.SCRATCHPAD)
                    m.next = "FAILED"
            with m.State("FAILED"):
                pass
        m.d.comb += self.unit.busy.eq(~fsm.ongoing("IDLE") | ~writer.idle)
