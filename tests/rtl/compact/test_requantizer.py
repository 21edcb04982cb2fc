# SPDX-License-Identifier: Apache-2.0
"""The compact core's requantizer against formulas in whole numbers."""

import random
from fractions import Fraction

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.numerics import Rounding
from loomwork.rtl.compact.requantizer import Requantizer

CASES = 1500


def wrap(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def rescaled(value: int, multiplier: int, shift: int, rounding: Rounding) -> int:
    """As TFLite (gemmlowp) and ONNX define it."""
    product = wrap(value << max(shift, 0)) * multiplier
    right = max(-shift, 0)
    if rounding is Rounding.ONNX:
        return round(Fraction(product, 2 ** (31 + right)))
    once = (product + 2**30) >> 31
    whole, rest = divmod(abs(once), 2**right)
    return (whole + (2 * rest >= 2**right and right > 0)) * (1 if once >= 0 else -1)


def settings(rng: random.Random) -> dict[str, int]:
    return {
        "value": rng.choice([rng.randrange(-(2**31), 2**31), rng.randrange(-300, 300), -(2**31), 2**31 - 1]),
        "bias": rng.choice([0, rng.randrange(-(2**31), 2**31), rng.randrange(-1000, 1000)]),
        "multiplier": rng.choice([rng.randrange(2**30, 2**31), rng.randrange(2**31), 2**30, 2**31 - 1, 0]),
        "shift": rng.choice([0, -1, -7, rng.randrange(-31, 8)]),
        "rounding": rng.randrange(2),
        "zero_point": rng.randrange(-128, 128),
        "minimum": rng.randrange(-128, 128),
        "maximum": rng.randrange(-128, 128),
    }


@pytest.mark.parametrize("reloads", [True, False], ids=["each_with_its_multiplier", "all_with_one_multiplier"])
def test_it_rounds_as_tflite_and_as_onnx_do(reloads: bool):
    dut = Requantizer()
    rng = random.Random(7)
    seen: set[tuple[int, bool]] = set()

    async def bench(ctx: SimulatorContext) -> None:
        multiplier = 0
        for case in range(CASES):
            values = settings(rng)
            if reloads or case == 0:
                multiplier = values["multiplier"]
                ctx.set(dut.multiplier, multiplier)
                ctx.set(dut.load, 1)
                await ctx.tick()
                ctx.set(dut.load, 0)
            for name in ("value", "bias", "shift", "rounding", "zero_point", "minimum", "maximum"):
                ctx.set(getattr(dut, name), values[name])
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            while ctx.get(dut.busy):
                await ctx.tick()
            rounding = Rounding(values["rounding"])
            expected = rescaled(wrap(values["value"] + values["bias"]), multiplier, values["shift"], rounding)
            assert ctx.get(dut.scaled) == expected, values
            clamped = min(max(expected + values["zero_point"], values["minimum"]), values["maximum"])
            assert ctx.get(dut.finished) == clamped, values
            seen.add((values["rounding"], clamped == expected + values["zero_point"]))

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(seen) == 4
