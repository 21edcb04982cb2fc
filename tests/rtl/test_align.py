# SPDX-License-Identifier: Apache-2.0
"""The byte aligner against its model, and the model against a plain description."""

import random

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.config import BANKS, FORMAL, SMALL, TINY, Config
from loomwork.rtl.align import Align

SEED = 20250306


def random_alignment(rng: random.Random, rows: int) -> dict:
    """Up to four spans that do not overlap, in different banks."""
    edges = sorted(rng.randint(0, rows) for _ in range(2 * BANKS))
    banks = rng.sample(range(BANKS), BANKS)
    spans = [
        {"bank": bank, "low": low, "high": high} if low < high else {"bank": bank, "low": low, "high": 0}
        for bank, low, high in zip(banks, edges[::2], edges[1::2], strict=True)
    ]
    turns = [{"merge": rng.randrange(rows), "rotate": rng.randrange(rows)} for _ in range(BANKS)]
    return {"banks": turns, "spans": spans, "pad": rng.randint(-128, 127)}


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL], ids=lambda c: c.name)
def test_agrees_with_the_model(config: Config):
    rng = random.Random(SEED)
    dut = Align(config)
    expected: list[list[int]] = []

    async def bench(ctx: SimulatorContext):
        for cycle in range(200):
            if cycle >= dut.latency:
                assert [ctx.get(byte) for byte in dut.o] == expected[cycle - dut.latency]
            words = [list(rng.randbytes(2 * config.rows)) for _ in range(BANKS)]
            alignment = random_alignment(rng, config.rows)
            expected.append(dut.model(words, alignment))
            ctx.set(dut.words, words)
            ctx.set(dut.alignment, alignment)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
