# SPDX-License-Identifier: Apache-2.0
"""The clamp of the drain against its formula, one value per cycle, each with settings of its own."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.rtl.drain.clamp import Clamp

EDGES = [-(1 << 31), -513, -512, -384, -129, -128, -1, 0, 1, 127, 128, 383, 511, 512, (1 << 31) - 1]
VALUES = 2000


def value(rng: random.Random) -> int:
    return rng.choice([rng.choice(EDGES), rng.randint(-300, 300), rng.randint(-(1 << 31), (1 << 31) - 1)])


@pytest.mark.parametrize("crossed", [False, True])
def test_it_adds_the_zero_point_and_clips(crossed: bool):
    rng = random.Random(crossed)
    dut, results = Clamp(), []
    values = [value(rng) for _ in range(VALUES)]
    zeros = [rng.randint(-128, 127) for _ in range(VALUES)]
    limits = [sorted((rng.randint(-128, 127), rng.randint(-128, 127)), reverse=crossed) for _ in range(VALUES)]

    async def testbench(ctx: SimulatorContext):
        for cycle in range(VALUES + Clamp.latency + 1):
            if cycle < VALUES:  # of the value in the next cycle
                ctx.set(dut.zero_point, zeros[cycle])
                ctx.set(dut.minimum, limits[cycle][0])
                ctx.set(dut.maximum, limits[cycle][1])
            if 1 <= cycle <= VALUES:
                ctx.set(dut.x, values[cycle - 1])
            if cycle >= Clamp.latency + 1:
                results.append(ctx.get(dut.result))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    # As np.clip has it, the upper limit holds when they are crossed.
    low, high = np.array(limits).T
    expected = np.minimum(np.maximum(np.array(values) + np.array(zeros), low), high)
    assert results == expected.tolist()
