# SPDX-License-Identifier: Apache-2.0
"""Where the rows and words of a transfer lie in memory and scratchpad, against the formulas of both."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import SimulatorContext

from loomwork.arch.config import BANKS, TINY, Config
from loomwork.rtl.ports import WORD_ADDRESS_BITS
from loomwork.rtl.transfer import MemoryRows, ScratchpadWords
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


@pytest.mark.parametrize(
    "config", [TINY, replace(TINY, name="deep", deep_pipeline=True)], ids=lambda config: config.name
)
def test_rows_are_spans_and_one_span_when_they_lie_end_to_end(config: Config):
    rng = random.Random(20261130)
    transfers: list[dict[str, int]] = []
    for _ in range(60):
        words, rows = rng.randint(1, 4095), rng.randint(1, 6)
        row_bytes = words * config.rows
        stride = rng.choice([row_bytes, row_bytes + config.bus_bytes, row_bytes + 1, rng.randrange(1 << 24)])
        transfers.append(
            {
                "window": rng.randrange(4), "offset": rng.randrange(1 << 30), "rows": rows, "words": words,
                "row_stride": stride % (1 << 24),
            }
        )  # fmt: skip
    dut = MemoryRows(config)

    async def send(ctx: SimulatorContext):
        for transfer in transfers:
            # What stands there while nothing comes is not meant.
            ctx.set(dut.i.payload, {**transfers[0], "words": rng.randint(1, 4095)})
            await ctx.tick().repeat(rng.randint(1, 6))
            ctx.set(dut.i.payload, transfer)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def receive(ctx: SimulatorContext):
        for transfer in transfers:
            row_bytes, stride = transfer["words"] * config.rows, transfer["row_stride"]
            misaligned = transfer["offset"] % config.bus_bytes != 0 or stride % config.bus_bytes != 0
            spans = [(transfer["offset"] + row * stride, row_bytes) for row in range(transfer["rows"])]
            if stride == row_bytes:
                spans = [(transfer["offset"], transfer["rows"] * row_bytes)]
            for offset, length in spans:
                while not (rng.random() < 0.7 and ctx.get(dut.o.valid)):
                    await ctx.tick()
                span = ctx.get(dut.o.payload)
                found = span.window, span.offset, span.length, bool(span.misaligned)
                assert found == (transfer["window"], offset, length, misaligned)
                ctx.set(dut.o.ready, 1)
                await ctx.tick()
                ctx.set(dut.o.ready, 0)

    simulate(dut, receive, beside=send)
