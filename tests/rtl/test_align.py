# SPDX-License-Identifier: Apache-2.0
"""The byte aligner against its model, and the model against a plain description."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.config import BANKS, BASE, FORMAL, SMALL, TINY, Config
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


@pytest.mark.parametrize("config", [TINY, SMALL, replace(BASE, cols=8, requant_lanes=8)], ids=lambda c: c.name)
def test_every_span_of_a_column_has_an_output_of_its_own(config: Config):
    """Pixels and columns of a depthwise pass in turn; of a column each span is what it would be alone."""
    rng = random.Random(SEED)
    dut = Align(config)
    outputs = [dut.buses[number] for number in range(config.depthwise_groups - 1)]
    buses = [[0] * config.cols] * (config.depthwise_groups - 1)
    expected: list[tuple[list[int], list[list[int]]]] = []

    async def bench(ctx: SimulatorContext):
        nonlocal buses
        for cycle in range(200):
            if cycle >= dut.latency:
                found = [[ctx.get(bus[column]) for column in range(config.cols)] for bus in outputs]
                assert ([ctx.get(byte) for byte in dut.o], found) == expected[cycle - dut.latency]
            words = [list(rng.randbytes(2 * config.rows)) for _ in range(BANKS)]
            alignment = random_alignment(rng, config.rows)
            depthwise = rng.random() < 0.6
            if depthwise:
                for span in alignment["spans"]:
                    span["low"], span["high"] = rng.randint(0, 3), rng.choice([0, 3, config.cols, config.cols])
                for span in alignment["spans"][config.depthwise_groups :]:
                    span["high"] = 0
                alone = [dut.model(words, {**alignment, "spans": [span]}) for span in alignment["spans"]]
                buses = [bus[: config.cols] for bus in alone[1 : config.depthwise_groups]]
                o = alone[0]
            else:
                o = dut.model(words, alignment)
            expected.append((o, buses))
            ctx.set(dut.words, words)
            ctx.set(dut.alignment, alignment)
            ctx.set(dut.depthwise, depthwise)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
