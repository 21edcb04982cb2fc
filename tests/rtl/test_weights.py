# SPDX-License-Identifier: Apache-2.0
"""The weight loader: what goes where in the stream, and when."""

import random
from collections import deque
from itertools import pairwise

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.config import FORMAL, TINY, Config
from loomwork.arch.isa import Params, params_words
from loomwork.rtl.weights import WeightLoader

SEED = 20250304


class Bench:
    """Runs a loader on `kinds` (one `Params` per tile); the stream counts 0, 1, 2, …

    loads: (cycle, row, word). params: (cycle, word, index, last). swaps, taken: cycles.
    """

    def __init__(self, config: Config, kinds: list[Params], stall: float = 0.0, *, swaps: bool = True):
        self.config, self.kinds, self.stall, self.may_swap = config, kinds, stall, swaps
        self.loads: list[tuple[int, int, int]] = []
        self.params: list[tuple[int, int, int, int]] = []
        self.swaps: list[int] = []
        self.taken: list[int] = []
        self.halt_at = 10**6

    def run(self, cycles: int) -> None:
        dut = WeightLoader(self.config)
        rng = random.Random(SEED)
        kinds = deque(self.kinds)

        async def bench(ctx: SimulatorContext):
            following = [rng.random() >= self.stall for _ in range(4)]
            for cycle in range(cycles):
                # No tile comes in the first cycle, for nobody could have announced it.
                goes = following if cycle else [False] * 4
                following = [rng.random() >= self.stall for _ in range(4)]
                ctx.set(dut.halt, int(cycle >= self.halt_at))
                ctx.set(dut.tiles.valid, int(bool(kinds) and goes[0]))
                ctx.set(dut.tiles.payload, kinds[0] if kinds else 0)
                ctx.set(dut.params.ready, int(goes[1]))
                ctx.set(dut.i.valid, int(goes[2]))
                ctx.set(dut.i.payload.as_value(), len(self.taken))
                swap = bool(ctx.get(dut.present)) and goes[3] and self.may_swap
                ctx.set(dut.swap, int(swap))
                if swap:
                    self.swaps.append(cycle)
                if load := ctx.get(dut.load):
                    assert load & load - 1 == 0
                    self.loads.append((cycle, load.bit_length() - 1, ctx.get(dut.word.as_value())))
                if ctx.get(dut.params.valid) and ctx.get(dut.params.ready):
                    payload = dut.params.payload
                    word = ctx.get(payload.word.as_value())
                    self.params.append((cycle, word, ctx.get(payload.index), ctx.get(payload.last)))
                if ctx.get(dut.tiles.ready) and ctx.get(dut.tiles.valid):
                    kinds.popleft()
                ctx.set(dut.tile_comes, int(bool(kinds) and following[0]))
                if ctx.get(dut.i.ready) and ctx.get(dut.i.valid):
                    self.taken.append(cycle)
                await ctx.tick()

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()


@pytest.mark.parametrize("config", [FORMAL, TINY], ids=lambda c: c.name)
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_deals_out_every_word(config: Config, stall: float):
    kinds = [Params.UNIFORM, Params.BIAS, Params.UNIFORM, Params.PER_CHANNEL, Params.BIAS, Params.PER_CHANNEL]
    bench = Bench(config, kinds, stall)
    bench.run(400)
    loads, params, word = [], [], 0
    for kind in kinds:
        loads += [(row, word + row) for row in range(config.rows)]
        word += config.rows
        count = params_words(kind)
        params += [(word + index, index, int(index == count - 1)) for index in range(count)]
        word += count
    # Rows of a tile that was never announced may be loaded, but for the last.
    found = [(row, word) for _, row, word in bench.loads]
    assert found[: len(loads)] == loads
    assert len(found) == len(loads) + config.rows - 1
    assert [rest for _, *rest in map(list, bench.params)] == [list(entry) for entry in params]
    assert len(bench.swaps) == len(kinds)
    # A row is loaded only after the previous tile has become active.
    for tile, swap in enumerate(bench.swaps[:-1]):
        assert bench.loads[(tile + 1) * config.rows][0] > swap
        assert bench.loads[(tile + 1) * config.rows - 1][0] <= swap


def test_a_tile_takes_as_many_cycles_as_words():
    bench = Bench(TINY, [Params.UNIFORM] * 5 + [Params.PER_CHANNEL] + [Params.UNIFORM] * 2)
    bench.run(60)
    words = [TINY.rows] * 5 + [TINY.rows + params_words(Params.PER_CHANNEL), TINY.rows]
    assert [later - earlier for earlier, later in pairwise(bench.swaps)] == words


def test_parameters_do_not_wait_for_the_swap():
    bench = Bench(TINY, [Params.BIAS, Params.UNIFORM], swaps=False)
    bench.run(60)
    assert len(bench.loads) == TINY.rows
    assert len(bench.params) == params_words(Params.BIAS)


@pytest.mark.parametrize("cycle", [0, 3, 6])
def test_halt_freezes(cycle: int):
    bench = Bench(TINY, [Params.BIAS] * 4)
    bench.halt_at = cycle
    bench.run(50)
    for event, *_ in [*bench.loads, *bench.params]:
        assert event <= cycle
    assert all(event <= cycle for event in bench.taken)
