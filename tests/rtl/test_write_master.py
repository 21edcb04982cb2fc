# SPDX-License-Identifier: Apache-2.0
"""The write master, with a writer that has all data at hand, against an AXI memory that checks the bus."""

import random
from typing import Any

import pytest
from amaranth.sim import SimulatorContext

from loomwork.arch.config import BASE, FORMAL, Config
from loomwork.arch.isa import Window
from loomwork.rtl.write_master import WriteMaster
from tests.rtl.axi_memory import SLVERR, AxiMemory, make_windows
from tests.rtl.unit_driver import set_together, simulate

SIZE = 4096


class Writer:
    """Writes one window from end to end in bursts of given lengths, and counts what comes back.

    halts: values of `halt` by cycle. taken: cycles in which bursts were taken.
    """

    def __init__(self, config: Config, lengths: list[int], latency: int, stall: float) -> None:
        rng = random.Random(20250107)
        self.config = config
        self.lengths = lengths
        self.dut = WriteMaster(config)
        self.memory = AxiMemory(config, make_windows(rng, SIZE), rng, latency, stall)
        self.data = rng.randbytes(sum(lengths) * config.bus_bytes)
        self.done = self.errors = self.beats = self.cycles = 0
        self.halts: dict[int, int] = {}
        self.taken: list[int] = []
        self.region = self.memory.regions[Window.OUTPUTS]

    async def write(self, ctx: SimulatorContext) -> None:
        """Until all responses have come."""
        dut, bus = self.dut, self.config.bus_bytes
        request, beats = dut.writer.request, dut.writer.data
        burst = promised = sent = 0
        while self.done < len(self.lengths):
            if self.cycles in self.halts:
                ctx.set(dut.halt, self.halts[self.cycles])
            asking = burst < len(self.lengths)
            values: list[tuple[Any, int]] = [(request.valid, asking), (beats.valid, sent * bus < len(self.data))]
            if asking:
                values.append((request.payload.address, self.region.base + promised * bus))
                values.append((request.payload.length, self.lengths[burst] - 1))
            values.append((beats.payload, int.from_bytes(self.data[sent * bus : (sent + 1) * bus], "little")))
            set_together(ctx, values)
            assert ctx.get(dut.idle) == (self.done == burst)
            sample = await ctx.tick().sample(
                *(request.valid, request.ready, beats.valid, beats.ready),
                *(dut.writer.done, dut.writer.error, dut.beat),
            )
            valid, ready, data_valid, data_ready, done, error, beat = sample[2:]
            if valid and ready:
                self.taken.append(self.cycles)
                promised += self.lengths[burst]
                burst += 1
            sent += data_valid and data_ready
            assert sent <= promised, "data were taken for a burst that was not"
            self.done += done
            self.errors += error
            self.beats += beat
            self.cycles += 1

    def run(self) -> None:
        async def serve(ctx: SimulatorContext):
            await self.memory.serve_writes(ctx, self.dut.axi)

        simulate(self.dut, self.write, serve)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("config", [FORMAL, BASE], ids=lambda config: config.name)
def test_writes_bursts_in_order(config: Config, stall: float):
    # No burst crosses 4 KiB: the window is one page.
    writer = Writer(config, [1, 1, 1, 16, 2, 7, 16, 16, 1, 3, 32, 1], latency=12, stall=stall)
    writer.memory.faults = {writer.region.base + 2 * config.bus_bytes: SLVERR}
    writer.run()
    assert writer.region.contents[: len(writer.data)] == writer.data
    assert writer.errors == 1
    assert writer.beats == writer.memory.write_beats == sum(writer.lengths)


def test_one_beat_per_cycle_even_in_bursts_of_one():
    writer = Writer(BASE, [1] * 200, latency=40, stall=0.0)
    writer.run()
    assert writer.cycles <= 200 + 40 + 8


def test_halt_takes_nothing_more_and_completes_what_was_taken():
    writer = Writer(BASE, [16] * 10, latency=5, stall=0.2)
    writer.halts = {50: 1, 250: 0}
    beats: list[int] = []

    async def count(ctx: SimulatorContext):
        await ctx.tick().repeat(240)
        assert ctx.get(writer.dut.idle)
        beats.append(writer.memory.write_beats)

    async def serve(ctx: SimulatorContext):
        await writer.memory.serve_writes(ctx, writer.dut.axi)

    simulate(writer.dut, writer.write, serve, beside=count)
    before = [cycle for cycle in writer.taken if cycle < 50]
    assert 0 < len(before) < 10
    assert all(cycle >= 250 for cycle in writer.taken[len(before) :])
    assert beats == [16 * len(before)]
    assert writer.region.contents[: len(writer.data)] == writer.data
