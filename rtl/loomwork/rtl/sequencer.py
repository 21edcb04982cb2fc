# SPDX-License-Identifier: Apache-2.0
"""The pass sequencer: takes commands and cuts them into passes, ahead of the feed."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, OPCODE_BITS, Params
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.command import command_layout, view_as
from loomwork.rtl.passes import SLOT_BITS, PassCutter, pass_layout
from loomwork.rtl.ports import COMMAND_BITS


class PassSequencer(Component):
    """Takes a command when its predecessor's last pass is taken, prepares it in a few cycles, and has it cut.

    command: raw CONVOLVE, DEPTHWISE and SKIP commands. passes, tiles: see `PassCutter`. skips: a SKIP is being taken,
    which has no passes.
    error: not NONE when the command taken last cannot be executed: SCRATCHPAD for a tile of more than
    `accumulator_depth` pixels, ILLEGAL_OPERAND for a DEPTHWISE of more taps than there are rows for, of as many shared
    columns as taps, or for a command that the configuration leaves out. It has no passes and none follow: the
    sequencer has stopped until reset.
    halt: take no commands.
    """

    command: stream.Interface
    passes: stream.Interface
    tiles: stream.Interface
    skips: Signal
    error: Signal
    halt: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(COMMAND_BITS)),
                "passes": Out(stream.Signature(pass_layout(config))),
                "tiles": Out(stream.Signature(Params)),
                "skips": Out(1),
                "error": Out(ErrorCode),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cutter = cutter = PassCutter(self._config)
        connect(m, cutter.passes, flipped(self.passes))
        connect(m, cutter.tiles, flipped(self.tiles))
        layout = command_layout("CONVOLVE")
        command, coming = Signal(layout), data.View(layout, self.command.payload[: layout.size])
        origin, row_words, y_words, ring_words, ring_end = (
            Signal(SLOT_BITS, name=name) for name in ("origin", "row_words", "y_words", "ring_words", "ring_end")
        )
        m.d.comb += [
            cutter.command.eq(command),
            cutter.origin.eq(origin),
            cutter.row_words.eq(row_words),
            cutter.y_words.eq(y_words),
            cutter.ring_words.eq(ring_words),
            cutter.ring_end.eq(ring_end),
        ]

        error = Signal(ErrorCode)
        m.d.comb += self.error.eq(error)
        step = Signal(range(5))
        # One multiplier for all products of a command: that of what is set in one step is there in the next but one.
        factor, multiplicand, product = Signal(signed(11)), Signal(12), Signal(SLOT_BITS)
        m.d.sync += [multiplicand.eq(command.pitch), product.eq(factor * multiplicand)]
        if self._config.block_sparsity:
            skip = command_layout("SKIP")
            m.d.comb += [
                cutter.skip.eq(self.command.payload[: skip.size]),
                cutter.skips.eq(self.skips),
            ]
        # `y_step` has four bits: its upper two are not worth a turn of the multiplier.
        quarter_steps = Mux(command.y_step[2], command.pitch, 0) + Mux(command.y_step[3], command.pitch << 1, 0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(~self.halt)
                m.d.sync += [command.eq(coming), step.eq(0)]
                m.d.sync += [factor.eq(coming.y_start >> 2), multiplicand.eq(coming.pitch)]
                with m.If(self.command.valid & self.command.ready):
                    m.next = "PREPARE"
                    if self._config.block_sparsity:
                        with m.If(self.command.payload[:OPCODE_BITS] == BY_MNEMONIC["SKIP"].opcode):
                            m.d.comb += self.skips.eq(1)
                            m.next = "IDLE"
            with m.State("PREPARE"):
                m.d.sync += [step.eq(step + 1), y_words.eq(quarter_steps)]
                with m.Switch(step):
                    with m.Case(0):
                        m.d.sync += factor.eq(command.row_step >> 2)
                    with m.Case(1):
                        m.d.sync += [origin.eq(command.base + product), factor.eq(command.ring)]
                    with m.Case(2):
                        m.d.sync += row_words.eq(product)
                        m.d.sync += [factor.eq(command.tile_height), multiplicand.eq(command.tile_width)]
                    with m.Case(3):
                        # Without a ring both are such that nothing changes: zero words less from the first word on.
                        m.d.sync += [ring_words.eq(product), ring_end.eq(command.base + product)]
                    with m.Case(4):
                        m.next = "RUN"
                        with m.If(self._is_illegal(command)):
                            m.d.sync += error.eq(ErrorCode.ILLEGAL_OPERAND)
                            m.next = "FAILED"
                        with m.Elif(product > self._config.accumulator_depth):
                            m.d.sync += error.eq(ErrorCode.SCRATCHPAD)
                            m.next = "FAILED"
                        with m.Else():
                            m.d.comb += cutter.begin.eq(1)
            with m.State("RUN"):
                with m.If(cutter.taken):
                    m.next = "IDLE"
            with m.State("FAILED"):
                pass
        return m

    def _is_illegal(self, command: data.View) -> Value:
        """Whether there is no hardware for a command."""
        depthwise = command.opcode == BY_MNEMONIC["DEPTHWISE"].opcode
        illegal = depthwise
        if self._config.depthwise:
            operands = view_as("DEPTHWISE", command)
            illegal &= (operands.taps > self._config.depthwise_taps) | (operands.shared >= operands.taps)
        if not self._config.block_sparsity:
            illegal |= command.opcode == BY_MNEMONIC["SKIP"].opcode
        return illegal
