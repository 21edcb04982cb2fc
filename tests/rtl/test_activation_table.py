# SPDX-License-Identifier: Apache-2.0
"""The activation table against its model: every value in every lane, and entries that change meanwhile."""

import random
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator, SimulatorContext

from loomwork.fpga.yosys import TOP, find_yosys, synthesize
from loomwork.rtl.drain.activation_table import ActivationTable


def write(ctx: SimulatorContext, dut: ActivationTable, index: int, entries: list[int]) -> None:
    ctx.set(dut.command.index, index)
    for number, entry in enumerate(entries):
        ctx.set(dut.command[f"entry_{number}"], entry)
    ctx.set(dut.write, 1)


@pytest.mark.parametrize("lanes", [1, 3, 10])
def test_every_value_in_every_lane(lanes: int) -> None:
    rng = random.Random(lanes)
    table = [rng.randint(-128, 127) for _ in range(256)]
    dut = ActivationTable(lanes)

    async def bench(ctx: SimulatorContext) -> None:
        for index in rng.sample(range(16), 16):
            write(ctx, dut, index, table[16 * index : 16 * index + 16])
            await ctx.tick()
        ctx.set(dut.write, 0)
        values = [[(value + 77 * lane) % 256 - 128 for lane in range(lanes)] for value in range(256)]
        for at in range(256 + dut.latency):
            if at >= dut.latency:
                found = [ctx.get(dut.result[lane]) for lane in range(lanes)]
                assert found == [table[value + 128] for value in values[at - dut.latency]]
                assert found == dut.model(table, values[at - dut.latency]).tolist()
            for lane in range(lanes):
                ctx.set(dut.x[lane], values[min(at, 255)][lane])
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


def test_an_entry_changes_behind_the_cycle_of_its_write() -> None:
    dut = ActivationTable(1)

    async def bench(ctx: SimulatorContext) -> None:
        seen: list[int] = []
        ctx.set(dut.x[0], -128)
        for write_number in (5, -6, 7):
            write(ctx, dut, 0, [write_number] * 16)
            await ctx.tick()
            seen.append(ctx.get(dut.result[0]))
        ctx.set(dut.command.index, 1)
        for _ in range(2):
            await ctx.tick()
            seen.append(ctx.get(dut.result[0]))
        assert seen[1:] == [5, -6, 7, 7]

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("lanes", [8, 16])
def test_synthesis_takes_distributed_ram_for_every_lane(lanes: int, tmp_path: Path) -> None:
    found = synthesize(find_yosys(), rtlil.convert(ActivationTable(lanes), name=TOP), tmp_path)
    assert found["TRELLIS_DPR16X4"] == lanes * 16 * 8 // 4  # cells of 16 words of 4 bits, words of 16 bytes
    assert found["TRELLIS_FF"] == lanes * 8
    assert found["LUT4"] < lanes * 200  # the choice of one byte of 16
