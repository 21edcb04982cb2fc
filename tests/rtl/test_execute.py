# SPDX-License-Identifier: Apache-2.0
"""EXECUTE against an integer convolution: every sum, every parameter, and the cycles they take."""

import random
from collections import deque
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from loomwork.arch.command import Command, encode
from loomwork.arch.config import FORMAL, NANO, SMALL, TINY, Config
from loomwork.arch.isa import Params, params_words
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.window import Window
from tests.rtl.execute_bench import OBLONG, SEED, Bench, make_jobs, random_depthwise, random_operands, random_padded

TALL = replace(OBLONG, name="tall", rows=16, cols=8, bus_bytes=8)
"""Four kernel rows in a pass."""


def run(config: Config, operands: list[dict[str, int]], seed: int = SEED, stall: float = 0.0) -> Bench:
    """Run commands, check all results, and return what happened."""
    bench = Bench(config, make_jobs(config, seed, operands), seed, stall)
    bench.run()
    bench.check()
    return bench


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, OBLONG], ids=lambda c: c.name)
@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_random_commands(config: Config, stall: float, seed: int):
    rng = random.Random(f"{seed} {stall} {config.name}")
    bench = run(config, [random_operands(rng, config) for _ in range(3)], seed, stall)
    assert bench.done[-1] > bench.last_read


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, OBLONG, TALL], ids=lambda c: c.name)
@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_random_commands_of_both_kinds(config: Config, stall: float, seed: int):
    """Passes begin whenever weights and accumulators let them; what they read before must still be in step."""
    rng = random.Random(f"{seed} {stall} {config.name}")
    makers = [random_depthwise, random_operands, random_padded, rng.choice([random_padded, random_depthwise])]
    run(config, [make(rng, config) for make in makers], seed, stall)


@pytest.mark.parametrize("config", [TINY, SMALL, TALL], ids=lambda c: c.name)
@pytest.mark.parametrize("x_stride", [1, 5])
def test_columns_of_a_depthwise_pass_follow_each_other_after_any_wait(config: Config, x_stride: int):
    """Weights that come so rarely that the feed fills up before every pass, whose rows are longer than the feed."""
    image = {"height": 9, "row_bytes": 200, "x_step": config.cols}
    kernel = {"kernel_rows": 5, "taps": 3, "x_stride": x_stride, "shared": 0}
    tile = {"tile_width": 5, "tile_height": 3, "blocks": 2}
    bench = run(config, [image | kernel | tile] * 2, SEED, 1 - config.rows / 200)
    passes = 2 * 2 * -(-5 // config.depthwise_groups)
    columns = 3 * (4 * x_stride + 3)
    assert len(bench.active) == passes * columns
    runs = np.array(bench.active).reshape(passes, columns)
    assert (np.diff(runs) == 1).all()
    assert bench.waits["wait_weights"] > 20 * passes


def test_rows_with_padding_in_common_take_no_cycle_for_it_twice():
    image = {"row_bytes": 5 * SMALL.cols, "x_step": SMALL.cols, "x_start": -SMALL.cols, "height": 4, "kernel_rows": 2}
    tile = {"tile_width": 5, "tile_height": 3, "taps": 3, "x_stride": 1}
    cycles = [len(run(SMALL, [{**image, **tile, "shared": shared}]).active) for shared in (0, 1)]
    assert cycles == [3 * 7, 3 * 6 + 1]


@pytest.mark.parametrize("x_stride", [1, 2])
def test_a_depthwise_pass_takes_a_cycle_for_each_column(x_stride: int):
    """Also from one pass, block and command to the next, and between both kinds."""
    depthwise = {"taps": 3, "x_stride": x_stride, "shared": 0, "kernel_rows": 3, "row_bytes": 64, "x_step": SMALL.cols}
    tile = {"tile_width": 7, "tile_height": 4, "blocks": 2}
    dense = {"row_bytes": 64, "length": 64, "kernel_rows": 1, **tile}
    bench = run(SMALL, [dense | {"blocks": 1}, {**depthwise, **tile}])
    columns = 4 * (6 * x_stride + 3)
    assert len(bench.active) == 8 * 28 + 2 * 2 * columns
    gaps = {later - earlier for earlier, later in pairwise(bench.active)}
    assert gaps == {1}
    assert bench.waits == {"wait_weights": 0, "wait_accumulator": 0}


def test_depthwise_without_its_hardware_is_refused():
    lean = replace(TINY, name="lean", depthwise=False)
    refuses(lean, {"taps": 1, "x_stride": 1, "shared": 0})
    refuses(SMALL, {"taps": SMALL.depthwise_taps + 1, "x_stride": 1, "shared": 0})
    refuses(SMALL, {"taps": 3, "x_stride": 1, "shared": 3})
    refuses(TINY, {"taps": 16, "x_stride": 1, "shared": 0, "tile_width": TINY.accumulator_depth // 4 + 1})


def refuses(config: Config, operands: dict[str, int]) -> None:
    """ILLEGAL_OPERAND once everything before is done, and nothing after."""
    legal, after = make_jobs(config, SEED, [{}, {}])
    bench = Bench(config, [legal, after])
    illegal = {**{name: value for name, value in legal.operands.items() if name != "length"}, **operands}
    bench.commands.insert(1, int.from_bytes(encode(Command("DEPTHWISE", illegal)), "little"))
    bench.run(300)
    assert [code for _, code in bench.errors] == [ErrorCode.ILLEGAL_OPERAND]
    assert len(bench.done) == 1
    assert bench.errors[0][0] > bench.done[0]
    assert len(bench.active) == legal.pixels


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_random_commands_without_depthwise(stall: float):
    lean = replace(SMALL, name="lean", depthwise=False)
    rng = random.Random(f"{SEED} {stall}")
    run(lean, [random_operands(rng, lean) for _ in range(4)], SEED, stall)


def test_psums_of_the_most_negative_operands():
    jobs = make_jobs(TINY, SEED, [{"kernel_rows": 4, "height": 8, "tap_count": 3, "tap_step": 1}])
    jobs[0].weights[:] = jobs[0].image[:] = -128
    bench = Bench(TINY, jobs)
    bench.run()
    bench.check()
    assert bench.blocks[0][0] == [4 * 4 * 3 * 128 * 128] * TINY.cols


@pytest.mark.parametrize("params", Params, ids=lambda p: p.name)
def test_passes_follow_each_other_without_a_gap(params: Params):
    """9 passes of 64 pixels, 2 blocks: one pixel per cycle from the first to the last."""
    convolution = {"height": 10, "row_bytes": 40, "length": 12, "kernel_rows": 3, "blocks": 2, "params": params}
    bench = run(NANO, [{**convolution, "tile_width": 8, "tile_height": 8}])
    assert len(bench.active) == 9 * 64 * 2
    assert bench.active[-1] - bench.active[0] + 1 == 9 * 64 * 2
    assert bench.waits == {"wait_weights": 0, "wait_accumulator": 0}


@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda c: c.name)
def test_passes_as_long_as_their_weights_follow_each_other_without_a_gap(config: Config):
    """`rows` pixels per pass, across passes, taps and blocks; a few cycles between commands are allowed."""
    convolution = {"row_bytes": 100, "length": 2 * config.rows, "kernel_rows": 3, "row_step": 2, "height": 12}
    tile = {"tile_width": config.rows // 2, "tile_height": 2, "tap_count": 2, "tap_step": 3, "blocks": 2}
    bench = run(config, [{**convolution, **tile}] * 2)
    steps = [later - earlier for earlier, later in pairwise(bench.active)]
    between = steps.pop(len(steps) // 2)
    assert set(steps) == {1}
    assert between <= 5


@pytest.mark.parametrize("config", [TINY, SMALL, OBLONG], ids=lambda c: c.name)
def test_passes_of_one_pixel_take_the_time_of_their_weights(config: Config):
    bench = run(config, [{"length": 100, "row_bytes": 100, "height": 1, "tile_width": 1, "tile_height": 1}])
    assert {later - earlier for earlier, later in pairwise(bench.active)} == {config.rows}
    assert bench.waits["wait_weights"] == bench.active[-1] - bench.active[0] - (len(bench.active) - 1)


def test_parameters_cost_only_their_own_words():
    """Of a bus-bound command: the distance from the first pixel to the last is all words between their weights."""
    blocks, words = 3, params_words(Params.PER_CHANNEL)
    one_pixel = {"tile_width": 1, "tile_height": 1, "length": 16, "blocks": blocks, "params": Params.PER_CHANNEL}
    bench = run(TINY, [one_pixel])
    passes = 4 * blocks
    assert bench.active[-1] - bench.active[0] == (passes - 1) * TINY.rows + (blocks - 1) * words


def test_waits_for_a_free_accumulator_half():
    """The drain begins late: two blocks are computed, the third waits."""
    bench = Bench(TINY, make_jobs(TINY, SEED, [{"blocks": 3}]))
    bench.drain_from = 200
    bench.run()
    bench.check()
    assert sum(cycle < 200 for cycle in bench.active) == 2 * 16
    assert bench.waits["wait_accumulator"] > 100


@pytest.mark.parametrize(
    "kernel", [{}, {"taps": 3, "x_stride": 2, "shared": 0, "kernel_rows": 3}], ids=["dense", "depthwise"]
)
@pytest.mark.parametrize("tap_count", [1, 2])
def test_the_drain_reads_pixels_of_an_only_pass_while_it_lasts(kernel: dict[str, int], tap_count: int):
    """All but those that come out with the last one, and of blocks of several passes none."""
    config = TALL
    operands = {**kernel, "row_bytes": 64, "x_step": config.cols, "blocks": 2, "tap_count": tap_count}
    bench = run(config, [operands])
    assert bench.early >= 2 * 12 if tap_count == 1 else bench.early == 0


def test_waits_for_weights():
    bench = Bench(TINY, make_jobs(TINY, SEED, [{"blocks": 2}]))
    words, bench.words = bench.words, deque()
    bench.run(100)
    assert not bench.active
    assert bench.waits["wait_weights"] > 50
    bench.words = words


def test_a_tile_larger_than_the_accumulators_is_an_error_and_the_end():
    too_large = {"tile_width": TINY.accumulator_depth // 4 + 1}
    jobs = make_jobs(TINY, SEED, [{}, too_large, {}])
    bench = Bench(TINY, jobs)
    bench.run(300)
    assert [code for _, code in bench.errors] == [ErrorCode.SCRATCHPAD]
    assert len(bench.done) == 1
    assert bench.errors[0][0] > bench.done[0], "the error must concern the oldest unfinished command"
    assert len(bench.active) == jobs[0].pixels
    assert bench.taken == 2


def test_a_tile_as_large_as_the_accumulators():
    run(TINY, [{"tile_width": TINY.accumulator_depth // 4, "row_bytes": 40}])


@pytest.mark.parametrize("cycle", [12, 25, 33, 60])
def test_halt_stops_reads_weights_and_pixels(cycle: int):
    bench = Bench(TINY, make_jobs(TINY, SEED, [{"blocks": 4, "params": Params.BIAS}] * 2))
    bench.halt_at = cycle
    bench.run(cycle + 1)
    assert all(entered < cycle for entered in bench.active)
    words, active, params = len(bench.words), len(bench.active), len(bench.params)
    assert bench.words
    bench = Bench(TINY, bench.jobs)
    bench.halt_at = cycle
    bench.run(200)
    assert (len(bench.words), len(bench.active), len(bench.params)) == (words, active, params)
    assert bench.last_read <= cycle + Window.latency  # of a position that was begun in the cycle of `halt`


@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_after_a_reset_at_any_time_everything_works(seed: int):
    rng = random.Random(seed)
    bench = Bench(TINY, make_jobs(TINY, seed, [random_operands(rng, TINY) for _ in range(2)]), seed, 0.2)
    bench.reset_at = rng.randint(10, 45)
    bench.run()
    assert bench.cycle > bench.reset_at
    bench.check()
