# SPDX-License-Identifier: Apache-2.0
"""The address pipeline: turns the points of the walker into places in the accumulators and the scratchpad."""

from collections.abc import Callable
from functools import partial

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from loomwork.arch.config import Config
from loomwork.arch.isa import Source
from loomwork.rtl.command import command_layout
from loomwork.rtl.drain.layouts import has_operand, point_layout, step_layout
from loomwork.rtl.ports import MEMORIES, WORD_ADDRESS_BITS
from loomwork.rtl.scratchpad import meets
from loomwork.rtl.technology import Operand, technology_of

_WINDOWS = ("word", "operand_word")
"""What a step may read, source and operand: the names of their first words."""


def sum_below(one: Value, other: Value, bits: int) -> tuple[Value, Value]:
    """The lower `bits` of a sum of unsigned numbers, and whether it has more, known as soon as these are."""
    low = one[:bits] + other[:bits]
    return low[:bits], one[bits:].any() | other[bits:].any() | low[bits]


def saturated_sum(one: Value, other: Value) -> Value:
    """A word address, or the highest one, which no scratchpad has, for anything beyond."""
    word, is_beyond = sum_below(one, other, WORD_ADDRESS_BITS)
    return word | is_beyond.replicate(WORD_ADDRESS_BITS)


class Address(Component):
    """Computes the addresses of steps in three cycles, or four with `deep_pipeline`, one step per cycle. It takes one
    step more than it has room for, so that all in front of it need not know in the same cycle whether `o` is taken.

    command: the DRAIN, constant from its first point to its last step. operand_base, operand_pitch: of COMBINE.
    i: points. o: steps (layouts.py). next_memories: those that the feed takes in the next cycle. refused: which of the
    windows that the step reads, of its source and its operand, use one which the feed takes; only there with
    `deep_pipeline`.
    ready, next_ready, progress, release: see `AccumulatorRead`.
    has_sum: there is a step, and the sum that it takes, if any. Before its block is finished it is that of a pixel
    below `progress`, with `deep_pipeline` below that of the cycle before; it may be late when that grows by more than
    one. The last step of a block waits for the whole block, of which it may not take all pixels: a half is not given
    back while it is filled.
    """

    command: data.View
    operand_base: Signal
    operand_pitch: Signal
    i: stream.Interface
    o: stream.Interface
    next_memories: Signal
    refused: Signal
    ready: Signal
    next_ready: Signal
    progress: Signal
    release: Signal
    has_sum: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(command_layout("DRAIN")),
                "operand_base": In(16),
                "operand_pitch": In(12),
                "i": In(stream.Signature(point_layout(config))),
                "o": Out(stream.Signature(step_layout(config))),
                "next_memories": In(MEMORIES),
                "refused": Out(len(_WINDOWS)),
                "ready": In(1),
                "next_ready": In(1),
                "progress": In(range(config.accumulator_depth)),
                "release": In(1),
                "has_sum": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, command, point, step = self._config, self.command, self.i.payload, self.o.payload
        byte_bits = (config.rows - 1).bit_length()

        # All stages move together, until `spare` holds the step that was on its way when the last one was not taken.
        advance, leaves = Signal(), Signal()
        valid = Signal(3 if config.deep_pipeline else 2)  # behind each stage but the last one
        spare, is_spare = Signal.like(step), Signal()
        m.d.comb += [
            advance.eq(~is_spare),
            leaves.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(advance),
        ]
        m.d.sync += is_spare.eq(~leaves & (is_spare | valid[-1]))
        with m.If(leaves):
            m.d.sync += self.o.valid.eq(is_spare | valid[-1])

        def register(name: str, value: Value) -> Signal:
            q = Signal(value.shape(), name=name, reset_less=True)
            with m.If(advance):
                m.d.sync += q.eq(value)
            return q

        with m.If(advance):
            m.d.sync += valid.eq((valid << 1) | self.i.valid)

        multiply = technology_of(platform).multiplier(m)

        def operand(name: str, value: Value) -> Operand:
            return Operand(d=value, q=register(name, value), enable=advance)

        def constant(value: Value) -> Operand:
            return Operand(d=value, q=value, enable=advance)

        # Stage 1: image rows and bytes.
        column = register("column_1", point.column)
        in_row = operand("in_row_1", point.row + command.in_row)
        factor = operand("factor_1", Mux(command.source == Source.ACCUMULATOR, point.row, in_row.d >> 2))
        in_byte = register("in_byte_1", point.byte + point.channel)
        out_row = operand("out_row_1", point.out_row)
        out_byte = register("out_byte_1", point.out_byte + point.channel)

        # Stage 2: the rows' distances from the first word or pixel.
        in_pitch, operand_pitch, out_pitch = map(constant, (command.in_pitch, self.operand_pitch, command.out_pitch))
        distance = multiply(factor, in_pitch, name="distance_2", enable=advance)
        operand_distance = multiply(in_row[2:], operand_pitch, name="operand_distance_2", enable=advance)
        out_distance = multiply(out_row[2:], out_pitch, name="out_distance_2", enable=advance)
        word = register("word_2", command.in_base + (in_byte >> byte_bits))
        operand_word = register("operand_word_2", self.operand_base + (in_byte >> byte_bits))
        out_word = register("out_word_2", command.out_base + (out_byte >> byte_bits))
        column = register("column_2", column)

        bank, out_bank = register("bank_2", in_row.q[:2]), register("out_bank_2", out_row.q[:2])
        first, out_first = register("first_2", in_byte[:byte_bits]), register("out_first_2", out_byte[:byte_bits])
        rest = register("point_1", Value.cast(point))
        rest = data.View(point_layout(config), register("point_2", rest))

        # Stage 3: their sums.
        pixel, is_outside = sum_below(distance, column, exact_log2(config.accumulator_depth))
        new = Signal.like(step)
        m.d.comb += [
            new.bank.eq(bank),
            new.word.eq(saturated_sum(distance, word)),
            new.operand_word.eq(saturated_sum(operand_distance, operand_word)),
            new.byte.eq(first),
            new.wide.eq(first + rest.count > config.rows),
            new.pixel.eq(pixel),
            new.outside.eq(is_outside),
            new.target.bank.eq(out_bank),
            new.target.word.eq(saturated_sum(out_distance, out_word)),
            new.target.byte.eq(out_first),
            new.target.end.eq(out_first + rest.count),
            new.target.last.eq(rest.last),
            new.window_last.eq(rest.window_last),
            new.last.eq(rest.last),
            new.flags.eq(rest.flags),
        ]
        if config.deep_pipeline:
            # They are looked at in a cycle of their own.
            new = data.View(step.shape(), register("step_3", Value.cast(new)))

        self._look_ahead(m, new, spare, leaves, follows=is_spare | valid[-1], keeps=is_spare)
        with m.If(advance):
            m.d.sync += spare.eq(new)
        with m.If(leaves):
            m.d.sync += step.eq(Mux(is_spare, spare, new))
        return m

    def _look_ahead(
        self, m: Module, new: data.View, spare: data.View, leaves: Signal, *, follows: Value, keeps: Value
    ) -> None:
        """Find out what the launch of the step at `o` depends on, with `deep_pipeline` in the cycle before.

        new, spare: the steps that may be the next one at `o`; leaves: it is one of them. follows: there is one; keeps:
        it is `spare`.
        """
        command, step = self.command, self.o.payload
        # The command is there some cycles before its first step.
        reads = Signal(len(_WINDOWS))
        m.d.sync += reads.eq(Cat(command.source == Source.SCRATCHPAD, has_operand(command.combine)))
        needs_none = reads[0]

        def of_following(of: Callable[[data.View], Value]) -> Value:
            return Mux(keeps, of(spare), of(new))

        def of_next_step(of: Callable[[data.View], Value]) -> Value:
            """What holds of the step that is at `o` in the next cycle."""
            return Mux(leaves, of_following(of), of(step))

        def is_in(one: data.View, ready: Value, is_below: Value) -> Value:
            """Whether a step finds what it takes."""
            return needs_none | (~one.outside & (ready | (is_below & ~one.flags.block_last)))

        if self._config.deep_pipeline:

            def will_be_in(one: data.View) -> Value:
                return is_in(one, self.next_ready, one.pixel < self.progress)

            # The step behind a block's last one waits while the half is given back.
            closes = self.o.valid & step.flags.block_last & ~needs_none
            m.d.sync += self.has_sum.eq(Mux(leaves, follows & of_following(will_be_in) & ~closes, will_be_in(step)))
            for place, word in enumerate(_WINDOWS):
                m.d.sync += self.refused[place].eq(of_next_step(partial(self._is_refused, word=word)) & reads[place])
        else:
            # Progress grows by one, or ends with a finished block: what held in the last cycle tells what holds now.
            was_below, is_next, was_odd = Signal(), Signal(), Signal()
            m.d.sync += [
                was_odd.eq(self.progress[0]),
                was_below.eq(of_next_step(lambda one: one.pixel < self.progress)),
                is_next.eq(of_next_step(lambda one: one.pixel == self.progress)),
            ]
            is_below = was_below | (is_next & (was_odd ^ self.progress[0]))
            m.d.comb += self.has_sum.eq(self.o.valid & is_in(step, self.ready, is_below) & ~self.release)

    def _is_refused(self, step: data.View, *, word: str) -> Value:
        """Whether the window of a step from this word on uses a memory that the feed takes in the next cycle."""
        return meets(step.bank, step[word], step.wide, self.next_memories)
