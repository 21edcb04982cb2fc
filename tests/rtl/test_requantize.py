# SPDX-License-Identifier: Apache-2.0
import gc
import random
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.numerics import Rounding
from loomwork.rtl.requantize import Requantizer

Case = tuple[int, int, int, Rounding]
"""x, multiplier, shift, rounding."""


def exact(x: int, multiplier: int, shift: int, rounding: Rounding) -> int:
    """The definition in rational numbers: shares nothing with arch/numerics.py or the RTL."""
    x = (x << max(shift, 0)) % 2**32
    x -= 2**32 if x >= 2**31 else 0
    right = max(-shift, 0)
    if rounding is Rounding.ONNX:
        return round(Fraction(x * multiplier, 2 ** (31 + right)))  # Python rounds halves of a Fraction to even
    doubled = Fraction(floor(Fraction(x * multiplier, 2**31) + Fraction(1, 2)), 2**right)
    rounded = floor(abs(doubled) + Fraction(1, 2))
    return rounded if doubled >= 0 else -rounded


def run(dut: Requantizer, cases: list[Case]) -> list[int]:
    """One case per cycle, without a pause, each shift a cycle ahead; the results in order."""
    results: list[int] = []

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(dut.shift, cases[0][2])
        await ctx.tick()
        for cycle in range(len(cases) + dut.latency):
            if cycle < len(cases):
                x, multiplier, _, rounding = cases[cycle]
                ctx.set(dut.x, x)
                ctx.set(dut.multiplier, multiplier)
                ctx.set(dut.rounding, rounding)
            if cycle + 1 < len(cases):
                ctx.set(dut.shift, cases[cycle + 1][2])
            if cycle >= dut.latency:
                results.append(ctx.get(dut.result))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return results


def near_powers_of_two(rng: random.Random, bits: int) -> int:
    return min(max((1 << rng.randrange(bits)) + rng.randint(-2, 2), 0), (1 << bits) - 1)


def random_case(rng: random.Random, operand_bits: int, max_shift: int) -> Case:
    limit = 1 << (operand_bits - 1)
    x = rng.choice(
        [
            rng.randrange(-limit, limit),
            rng.choice([-limit, 1 - limit, -1, 0, 1, limit - 2, limit - 1]),
            rng.choice([-1, 1]) * near_powers_of_two(rng, operand_bits - 1),
        ]
    )
    multiplier = rng.choice(
        [rng.randrange(1 << 31), rng.choice([0, 1, 1 << 30, (1 << 31) - 1]), near_powers_of_two(rng, 31)]
    )
    return x, multiplier, rng.randint(-31, max_shift), rng.choice(list(Rounding))


def just_above_half() -> list[Case]:
    """One half and a single bit more, at every place that a bit can have below it."""
    return [(1 << s, (1 << 30) + (1 << bit), -s, rule) for s in range(31) for bit in range(30) for rule in Rounding]


def halves(rng: random.Random) -> Case:
    """Products that end in exactly one half, where the rules differ."""
    shift = rng.randint(-20, 0)
    odd = 2 * rng.randrange(-(1 << 8), 1 << 8) + 1
    return odd << -shift, 1 << 30, shift, rng.choice(list(Rounding))


@pytest.mark.parametrize(("operand_bits", "operand_shift", "max_shift"), [(32, 0, 7), (9, 20, 0), (16, 16, 0)])
def test_equals_model_and_definition(operand_bits: int, operand_shift: int, max_shift: int) -> None:
    rng = random.Random(operand_bits)
    cases = [random_case(rng, operand_bits, max_shift) for _ in range(3000)]
    if operand_bits == 32:
        cases += [halves(rng) for _ in range(1000)] + just_above_half()
        cases += [(x, m, s, r) for x in (-(1 << 31), (1 << 31) - 1) for m in (0, 1, (1 << 31) - 1)
                  for s in range(-31, 8) for r in Rounding]  # fmt: skip
    dut = Requantizer(operand_bits, operand_shift)
    results = run(dut, cases)
    assert len(results) == len(cases)
    for case, result in zip(cases, results, strict=True):
        x, multiplier, shift, rounding = case
        assert result == exact(x << operand_shift, multiplier, shift, rounding), f"{case} against the definition"
        assert result == dut.model(x, multiplier, shift, rounding), f"{case} against the model"


def test_the_rules_differ_where_they_should() -> None:
    # 2.5 and -2.5 as 5 / 2: away from zero, or to even.
    cases = [(x, 1 << 30, 0, rounding) for rounding in Rounding for x in (5, -5, 6)]
    assert run(Requantizer(), cases) == [3, -2, 3, 2, -2, 3]


def test_model_broadcasts() -> None:
    dut = Requantizer(9, 20)
    expected = dut.model(np.arange(-2, 3), 1 << 30, -19, Rounding.ONNX).tolist()
    assert expected == [-2, -1, 0, 1, 2]
    assert run(dut, [(x, 1 << 30, -19, Rounding.ONNX) for x in range(-2, 3)]) == expected


@pytest.mark.parametrize(
    ("operand_bits", "operand_shift", "text"),
    [
        (17, 0, "operand_bits must be 32 or from 1 to 16, not 17"),
        (0, 0, "operand_bits must be 32 or from 1 to 16, not 0"),
        (9, 24, "operand_shift must be from 0 to 23 for a value of 9 bits, not 24"),
        (32, 1, "operand_shift must be from 0 to 0 for a value of 32 bits, not 1"),
    ],
)
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_refuses_impossible_widths(operand_bits: int, operand_shift: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Requantizer(operand_bits, operand_shift)
    gc.collect()  # what is left of it complains now, where that is expected
