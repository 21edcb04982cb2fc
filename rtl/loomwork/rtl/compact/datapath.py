# SPDX-License-Identifier: Apache-2.0
"""The array of the compact core: from words of the memory to sums in the accumulators."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.rtl.compact.layout import NUMBER_BITS
from loomwork.rtl.technology import Operand, technology_of

ACCUMULATOR_BITS = 32


def tag_layout(rows: int) -> data.StructLayout:
    """What goes along with a word that is read.

    weight: it is of weights for the array rows `lanes`, otherwise of a pixel. diagonal: every array row takes the byte
    of its own column, and zeros. last: of the words of a pixel; of weights: they count, otherwise they are zero.
    offset: of the pixel in its first word. lanes: bytes of it that lie in the image. number: of the pixel. overwrites:
    what the accumulators have.
    """
    return data.StructLayout(
        {
            "weight": 1,
            "diagonal": 1,
            "last": 1,
            "offset": (rows - 1).bit_length(),
            "lanes": rows,
            "number": NUMBER_BITS,
            "overwrites": 1,
        }
    )


class Datapath(Component):
    """`rows` x `rows` multipliers, an adder tree per column, and the accumulators behind it.

    valid, tag: a word has been asked for; it is in `word` in the next cycle. pad: outside of the image.
    number, column: of a value of the accumulators, which is in `value` in the next cycle when no pixel is on its way.
    busy: one is.
    """

    valid: Signal
    tag: Any
    word: Signal
    pad: Signal
    number: Signal
    column: Signal
    value: Signal
    busy: Signal

    def __init__(self, config: Config) -> None:
        self._size = config.rows
        self._depth = 2 * config.accumulator_depth
        super().__init__(
            {
                "valid": In(1),
                "tag": In(tag_layout(config.rows)),
                "word": In(8 * config.rows),
                "pad": In(8),
                "number": In(NUMBER_BITS),
                "column": In(range(config.cols)),
                "value": Out(signed(ACCUMULATOR_BITS)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = self._size
        tag, valid = Signal(tag_layout(size)), Signal()
        m.d.sync += [tag.eq(self.tag), valid.eq(self.valid)]

        # Weights, row by row; of a diagonal, each row takes the byte of its own column.
        weights: list[list[Operand]] = []
        byte_of_column = [Signal(signed(8), name=f"weight_byte_{column}") for column in range(size)]
        beside_diagonal = [Signal(signed(8), name=f"weight_beside_{column}") for column in range(size)]
        for column in range(size):
            byte = Mux(tag.last, self.word.word_select(column, 8), 0)
            m.d.comb += [
                byte_of_column[column].eq(byte),
                beside_diagonal[column].eq(Mux(tag.diagonal, 0, byte)),
            ]
        for row in range(size):
            takes = Signal(name=f"row_{row}_takes")
            m.d.comb += takes.eq(valid & tag.weight & (tag.lanes[row] | tag.diagonal))
            operands: list[Operand] = []
            for column in range(size):
                weight = Signal(signed(8), name=f"weight_{row}_{column}", reset_less=True)
                source = (byte_of_column if row == column else beside_diagonal)[column]
                with m.If(takes):
                    m.d.sync += weight.eq(source)
                operands.append(Operand(source, weight, takes))
            weights.append(operands)
        # Bytes of a pixel.
        held, window = Signal(8 * size), Signal(8 * size)
        both = Mux(tag.offset == 0, self.word.replicate(2), Cat(held, self.word))
        with m.If(valid & ~tag.weight & ~tag.last):
            m.d.sync += held.eq(self.word)
        m.d.comb += window.eq(both >> (tag.offset << 3))
        is_pixel = Signal()
        m.d.comb += is_pixel.eq(valid & ~tag.weight & tag.last)
        multipliers = technology_of(platform).array_multipliers(m, size)
        lanes: list[Operand] = []
        for row in range(size):
            byte, lane = Signal(signed(8), name=f"byte_{row}"), Signal(signed(8), name=f"lane_{row}", reset_less=True)
            m.d.comb += byte.eq(Mux(tag.lanes[row], window.word_select(row, 8), self.pad))
            m.d.sync += lane.eq(byte)
            lanes.append(Operand(byte, lane))

        # Bytes of a pixel, products, accumulators: a cycle each.
        stages = [Signal(data.StructLayout({"valid": 1, "overwrites": 1, "number": NUMBER_BITS})) for _ in range(2)]
        previous = {"valid": is_pixel, "overwrites": tag.overwrites, "number": tag.number}
        for stage in stages:
            m.d.sync += [getattr(stage, name).eq(value) for name, value in previous.items()]
            previous = {name: getattr(stage, name) for name in previous}
        lanes_taken, done = stages
        m.d.comb += self.busy.eq(valid | lanes_taken.valid | done.valid)

        m.submodules.accumulators = memory = Memory(shape=ACCUMULATOR_BITS * size, depth=self._depth, init=[])
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [
            read.addr.eq(Mux(lanes_taken.valid, lanes_taken.number, self.number)),
            write.addr.eq(done.number),
            write.en.eq(done.valid),
        ]
        found = [read.data.word_select(column, ACCUMULATOR_BITS) for column in range(size)]
        for column, multiplier in enumerate(multipliers):
            terms = [
                multiplier(lanes[row], weights[row][column], name=f"product_{row}_{column}") for row in range(size)
            ]
            while len(terms) > 1:
                terms = [one + other for one, other in zip(terms[::2], terms[1::2], strict=True)]
            total = terms[0]
            # The choice behind the sum, so that it fits into the lookup tables of the carry chain.
            m.d.comb += write.data.word_select(column, ACCUMULATOR_BITS).eq(
                Mux(done.overwrites, total, total + found[column].as_signed())
            )
        m.d.comb += self.value.eq(read.data.word_select(self.column, ACCUMULATOR_BITS))
        return m
