# SPDX-License-Identifier: Apache-2.0
"""Where the words of a transfer lie in the scratchpad, against the formula of image rows in banks."""

import random

from amaranth.sim import SimulatorContext

from loomwork.arch.config import BANKS
from loomwork.rtl.ports import WORD_ADDRESS_BITS
from loomwork.rtl.transfer import ScratchpadWords
from tests.rtl.unit_driver import simulate

HIGHEST = (1 << WORD_ADDRESS_BITS) - 1
FIRST_WORD = 3
"""Cycles from a placement to its first word."""


def addresses(base: int, pitch: int, row: int, rows: int, words: int) -> list[tuple[int, int]]:
    """Bank and word of each; what does not fit is the highest one."""
    return [
        (y % BANKS, min(base + y // BANKS * pitch + word, HIGHEST))
        for y in range(row, row + rows)
        for word in range(words)
    ]


def test_rows_lie_in_banks_and_what_does_not_fit_is_the_highest_word():
    rng = random.Random(20260105)
    placements = [
        # Over the end within a row, by a row, by far; one word per row.
        {"base": 0xFFFF - 2, "pitch": 3072, "row": 4 * 64, "rows": 1, "words": 9},
        {"base": 0xFFFF - 9, "pitch": 3072, "row": 4 * 63 + 2, "rows": 9, "words": 3},
        {"base": 0xFFFF, "pitch": 4095, "row": 2047, "rows": 3, "words": 2},
        {"base": 7, "pitch": 3, "row": 1, "rows": 12, "words": 1},
        *(
            {
                "base": rng.randrange(1 << 16),
                "pitch": rng.randrange(1, 4096),
                "row": rng.randrange(2048),
                "rows": rng.randint(1, 9),
                "words": rng.randint(1, 5),
            }
            for _ in range(60)
        ),
    ]
    dut = ScratchpadWords()

    async def send(ctx: SimulatorContext):
        for placement in placements:
            ctx.set(dut.i.payload, placement)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def receive(ctx: SimulatorContext):
        for placement in placements:
            expected = addresses(**placement)
            waited, number = 0, 0
            while number < len(expected):
                ctx.set(dut.o.ready, rng.random() < 0.7)
                _, _, valid, ready, bank, word, last = await ctx.tick().sample(
                    dut.o.valid, dut.o.ready, dut.o.payload.bank, dut.o.payload.word, dut.o.payload.last
                )
                waited += not valid
                if valid and ready:
                    assert (bank, word) == expected[number], placement
                    assert last == (number == len(expected) - 1)
                    number += 1
            assert waited == FIRST_WORD, "a word per cycle behind the first one"

    simulate(dut, receive, beside=send)
