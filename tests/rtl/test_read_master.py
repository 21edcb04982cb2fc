# SPDX-License-Identifier: Apache-2.0
"""The read master with three readers of different speed, against an AXI memory that interleaves them."""

import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from amaranth.sim import SimulatorContext

from loomwork.arch.config import BASE, FORMAL, Config
from loomwork.rtl.read_master import ReadMaster
from tests.rtl.axi_memory import SLVERR, AxiMemory, make_windows
from tests.rtl.unit_driver import assert_refused, simulate, wait_for

READERS = 3


@dataclass
class Reader:
    """Asks for random bursts and checks that their beats come in order. granted: cycles in which one was taken."""

    port: Any
    memory: AxiMemory
    rng: random.Random
    asking: float
    expected: deque[tuple[int, bool]] = field(default_factory=deque[tuple[int, bool]])
    received: int = 0
    errors: int = 0
    granted: list[int] = field(default_factory=list[int])

    def burst(self) -> tuple[int, int]:
        """First byte and beats of a random burst."""
        bus = self.memory.config.bus_bytes
        beats = self.rng.randint(1, 16)
        region = self.rng.choice(list(self.memory.regions.values()))
        return region.base + bus * self.rng.randrange((len(region.contents) // bus) - beats), beats

    async def ask(self, ctx: SimulatorContext) -> None:
        bus = self.memory.config.bus_bytes
        request = self.port.request
        cycle = 0
        address = beats = 0
        waiting = False
        while True:
            if not waiting and self.rng.random() < self.asking:
                address, beats = self.burst()
                waiting = True
            ctx.set(request.valid, waiting)
            ctx.set(request.payload, {"address": address, "length": beats - 1})
            _, _, valid, ready, arrives, data, error = await ctx.tick().sample(
                request.valid, request.ready, self.port.valid, self.port.data.as_value(), self.port.error
            )
            if valid and ready:
                self.granted.append(cycle)
                waiting = False
                for number in range(beats):
                    place = address + number * bus
                    region = next(r for r in self.memory.regions.values() if r.holds(place, bus))
                    word = int.from_bytes(region.contents[place - region.base :][:bus], "little")
                    self.expected.append((word, place in self.memory.faults))
            if arrives:
                assert self.expected.popleft() == (data, bool(error))
                self.received += 1
                self.errors += error
            cycle += 1


@dataclass
class Bench:
    config: Config
    seed: int
    stall: float = 0.3
    asking: tuple[float, ...] = (0.1, 0.9, 0.9)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.dut = ReadMaster(self.config, READERS)
        self.memory = AxiMemory(self.config, make_windows(rng, 1024), rng, 20, self.stall)
        self.readers = [
            Reader(port, self.memory, rng, asking) for port, asking in zip(self.dut.readers, self.asking, strict=True)
        ]

    def run(self, main: Any) -> None:
        async def serve(ctx: SimulatorContext):
            await self.memory.serve_reads(ctx, self.dut.axi)

        simulate(self.dut, main, serve, *(reader.ask for reader in self.readers))


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("config", [FORMAL, BASE], ids=lambda config: config.name)
def test_every_reader_gets_its_beats_in_order(config: Config, stall: float):
    bench = Bench(config, seed=1, stall=stall)
    bench.memory.faults = {region.base + 64: SLVERR for region in bench.memory.regions.values()}
    counted = 0

    async def main(ctx: SimulatorContext):
        nonlocal counted
        for _ in range(1500):
            counted += ctx.get(bench.dut.beat)
            await ctx.tick()

    bench.run(main)
    assert all(reader.received > 80 for reader in bench.readers)
    assert any(reader.errors for reader in bench.readers)
    assert abs(counted - bench.memory.read_beats) <= 2


def test_the_first_reader_goes_first_and_the_others_take_turns():
    bench = Bench(BASE, seed=2, stall=0.0, asking=(0.2, 1.0, 1.0))

    async def main(ctx: SimulatorContext):
        await ctx.tick().repeat(600)

    bench.run(main)
    first, *others = bench.readers
    owner = {cycle: number for number, reader in enumerate(bench.readers) for cycle in reader.granted}
    assert len(owner) >= 598, "a burst is taken every cycle"
    turns = [owner[cycle] for cycle in sorted(owner) if owner[cycle]]
    assert all(a != b for a, b in itertools.pairwise(turns))
    assert len(first.granted) > 80
    assert abs(len(others[0].granted) - len(others[1].granted)) <= 1


def test_halt_takes_nothing_more_and_completes_what_was_taken():
    bench = Bench(BASE, seed=3)

    async def main(ctx: SimulatorContext):
        await ctx.tick().repeat(300)
        ctx.set(bench.dut.halt, 1)
        await ctx.tick()
        taken = sum(len(reader.granted) for reader in bench.readers)
        assert not ctx.get(bench.dut.idle)
        for _ in range(3000):
            await ctx.tick()
            if ctx.get(bench.dut.idle):
                break
        else:
            raise AssertionError("the bus is never idle")
        await wait_for(ctx, lambda: not any(reader.expected for reader in bench.readers), 3)
        await ctx.tick().repeat(100)
        assert sum(len(reader.granted) for reader in bench.readers) == taken == len(bench.memory.reads)
        assert not bench.memory.outstanding
        ctx.set(bench.dut.halt, 0)
        await ctx.tick().repeat(100)
        assert len(bench.memory.reads) > taken

    bench.run(main)


@pytest.mark.parametrize("readers", [0, 5])
def test_more_readers_than_ids_are_refused(readers: int):
    assert_refused(
        lambda: ReadMaster(BASE, readers), f"readers must be from 1 to 4, the number of AXI IDs, not {readers}"
    )
