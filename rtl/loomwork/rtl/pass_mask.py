# SPDX-License-Identifier: Apache-2.0
"""The mask of a SKIP: which passes of a block are left out."""

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.isa import MASK_PASSES, MASK_WORDS
from loomwork.rtl.command import command_layout


class PassMask(Component):
    """Keeps a mask for one command, and tells it pass by pass, block after block.

    skip: the command; taken when `set`. clear: the command that it is for is over; from then on nothing is left out.
    first: the next cycle's pass is the first one of a block. next: otherwise, it is the next one.
    left_out: this cycle's pass is left out. last: it is the last one of its block, and is not left out.

    Passes may go by in each cycle: what is known of each is looked up two passes ahead.
    """

    skip: data.View
    set: Signal
    clear: Signal
    first: Signal
    next: Signal
    left_out: Signal
    last: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "skip": In(command_layout("SKIP")),
                "set": In(1),
                "clear": In(1),
                "first": In(1),
                "next": In(1),
                "left_out": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enabled, mask = Signal(), Signal(MASK_PASSES)
        last = Signal.like(self.skip.last, name="last_pass")
        with m.If(self.clear):
            m.d.sync += enabled.eq(0)
        with m.If(self.set):
            m.d.sync += [
                enabled.eq(1),
                last.eq(self.skip.last),
                mask.eq(Cat(self.skip[f"mask_{word}"] for word in range(MASK_WORDS))),
            ]
        ahead, next_left_out, next_last = Signal.like(last, name="ahead"), Signal(), Signal()

        def look_up(number: Value, bit: Value, left_out: Signal, is_last: Signal) -> None:
            ends = last == number
            m.d.sync += [is_last.eq(enabled & ends), left_out.eq(enabled & bit & ~ends)]

        with m.If(self.first):
            look_up(Const(0), mask[0], self.left_out, self.last)
            look_up(Const(1), mask[1], next_left_out, next_last)
            m.d.sync += ahead.eq(2)
        with m.Elif(self.next):
            m.d.sync += [self.left_out.eq(next_left_out), self.last.eq(next_last), ahead.eq(ahead + 1)]
            # Only the numbers in the mask have a bit.
            bits = mask.bit_select(ahead[: (MASK_PASSES - 1).bit_length()], 1)
            inside = ahead < MASK_PASSES
            look_up(ahead, bits & inside, next_left_out, next_last)
        return m
