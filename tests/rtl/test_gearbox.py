# SPDX-License-Identifier: Apache-2.0
"""Gearboxes against slices of bytes."""

import random
from typing import Any

import pytest
from amaranth.sim import SimulatorContext

from loomwork.rtl.gearbox import Narrower, Widener
from tests.rtl.unit_driver import assert_refused, simulate

SEED = 20250103


def transmit(dut: Any, inputs: list[dict[str, Any]], count: int, stall: float) -> tuple[list[int], int]:
    """Send `inputs` (values by field, "" for all of it), receive `count` words; also the cycles it took."""
    rng = random.Random(SEED)
    received: list[int] = []
    cycles = 0

    async def send(ctx: SimulatorContext):
        for item in inputs:
            while rng.random() < stall:
                await ctx.tick()
            for name, value in item.items():
                target = getattr(dut.i.payload, name) if name else dut.i.payload
                ctx.set(target if name == "final" else target.as_value(), value)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def receive(ctx: SimulatorContext):
        nonlocal cycles
        while len(received) < count:
            ctx.set(dut.o.ready, rng.random() >= stall)
            _, _, valid, ready, word = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload.as_value())
            cycles += 1
            if valid and ready:
                received.append(word)

    simulate(dut, receive, beside=send)
    return received, cycles


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(("i_bytes", "o_bytes"), [(4, 4), (2, 4), (2, 16), (1, 8)])
def test_widener(i_bytes: int, o_bytes: int, stall: float):
    data = random.Random(SEED).randbytes(40 * o_bytes)
    inputs = [{"": int.from_bytes(data[p : p + i_bytes], "little")} for p in range(0, len(data), i_bytes)]
    words, cycles = transmit(Widener(i_bytes, o_bytes), inputs, 40, stall)
    assert words == [int.from_bytes(data[p : p + o_bytes], "little") for p in range(0, len(data), o_bytes)]
    assert stall or cycles == len(inputs)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(("i_bytes", "o_bytes"), [(4, 4), (4, 2), (16, 4), (8, 1)])
def test_narrower(i_bytes: int, o_bytes: int, stall: float):
    rng = random.Random(SEED)
    inputs: list[dict[str, Any]] = []
    expected: list[int] = []
    for _ in range(60):
        data = rng.randbytes(i_bytes)
        final = rng.randrange(i_bytes // o_bytes)
        inputs.append({"data": int.from_bytes(data, "little"), "final": final})
        expected += [int.from_bytes(data[p * o_bytes : (p + 1) * o_bytes], "little") for p in range(final + 1)]
    words, cycles = transmit(Narrower(i_bytes, o_bytes), inputs, len(expected), stall)
    assert words == expected
    assert stall or cycles == len(expected)


@pytest.mark.parametrize(("i_bytes", "o_bytes"), [(4, 6), (4, 12)])
def test_other_ratios_are_refused(i_bytes: int, o_bytes: int):
    assert_refused(
        lambda: Widener(i_bytes, o_bytes), f"power of two times the other, not {o_bytes} and {i_bytes} bytes"
    )
    assert_refused(lambda: Narrower(o_bytes, i_bytes), "power of two times the other")
