# SPDX-License-Identifier: Apache-2.0
"""SKIP in EXECUTE: passes that are left out, against an integer convolution with zeros in their place."""

import random
from collections import deque
from dataclasses import replace

import pytest

from loomwork.arch.command import Command, encode
from loomwork.arch.config import PRESETS, Config
from loomwork.arch.isa import MASK_PASSES, Params
from loomwork.arch.registers import ErrorCode
from loomwork.arch.skip import skip_operands
from tests.rtl import execute_bench
from tests.rtl.execute_bench import (
    SEED,
    Bench,
    make_jobs,
    pass_count_of,
    random_depthwise,
    random_operands,
)

FORMAL, NANO, TINY, SMALL = (
    replace(PRESETS[name], block_sparsity=True) for name in ("formal", "nano", "tiny", "small")
)
OBLONG = replace(execute_bench.OBLONG, block_sparsity=True)


def run(
    config: Config, jobs: list[tuple[dict[str, int], tuple[bool, ...]]], seed: int = SEED, stall: float = 0.0
) -> Bench:
    """Run commands, each with the passes to be executed (none: without a SKIP), and check all results."""
    bench = Bench(config, make_jobs(config, seed, [job[0] for job in jobs], [job[1] for job in jobs]), seed, stall)
    bench.run()
    bench.check()
    return bench


def random_passes(rng: random.Random, config: Config, operands: dict[str, int]) -> tuple[bool, ...]:
    count = pass_count_of(config, operands)
    share = rng.choice([0.2, 0.5, 0.8])
    executed = [rng.random() < share for _ in range(count)]
    executed[rng.randrange(count)] = True
    return tuple(executed)


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, OBLONG], ids=lambda c: c.name)
@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_random_commands_with_and_without_a_mask(config: Config, stall: float, seed: int):
    rng = random.Random(f"{seed} {stall} {config.name}")
    jobs: list[tuple[dict[str, int], tuple[bool, ...]]] = []
    for make in (random_operands, random_operands, random_depthwise, random_operands):
        operands = make(rng, config)
        jobs.append((operands, random_passes(rng, config, operands) if rng.random() < 0.8 else ()))
    run(config, jobs, seed, stall)


EIGHT = {"height": 9, "row_bytes": 40, "length": 16, "kernel_rows": 2}
"""8 passes on 4 rows, in the order of 2 kernel rows."""


@pytest.mark.parametrize("params", [Params.UNIFORM, Params.PER_CHANNEL], ids=lambda p: p.name)
@pytest.mark.parametrize("executed", ["10000000", "00000001", "00010000", "01101001", "11110000", "11111111"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_array_is_busy_with_the_passes_that_are_left(executed: str, blocks: int, params: Params):
    """16 pixels each, one behind the other, in all blocks."""
    operands = {**EIGHT, "blocks": blocks, "params": params}
    bench = run(NANO, [(operands, tuple(bit == "1" for bit in executed)), ({}, ())])
    passes = executed.count("1")
    ours = bench.active[:-16]
    assert len(ours) == passes * 16 * blocks
    assert ours[-1] - ours[0] + 1 == len(ours)


def test_the_mask_holds_for_one_command():
    executed = (False, True, False, False, False, False, False, False)
    bench = run(TINY, [(EIGHT, executed), (EIGHT, ()), (EIGHT, executed)])
    assert len(bench.active) == (1 + 8 + 1) * 16


def test_an_only_pass_that_is_left_may_be_read_while_it_lasts():
    """It is the first and the last pass of its block at the same time."""
    executed = (False, False, False, True, False, False, False, False)
    bench = run(TINY, [({**EIGHT, "tile_width": 8, "blocks": 2}, executed)])
    assert bench.early > 0
    assert run(TINY, [({**EIGHT, "tile_width": 8, "blocks": 2}, (True,) * 8)]).early == 0


def test_passes_behind_the_mask_are_run():
    """Taps that all read the same: more passes than bits, of which none is behind the last one that is run."""
    count = MASK_PASSES + 3
    operands = {"row_bytes": 8, "tile_width": 1, "tile_height": 1, "length": 4 * 29, "tap_count": 7}
    assert pass_count_of(TINY, operands) == 7 * 29 > count
    executed = [False] * MASK_PASSES + [True] * 3 + [False] * (7 * 29 - count)
    executed[5] = executed[MASK_PASSES - 2] = True
    bench = run(TINY, [(operands, tuple(executed))])
    assert len(bench.active) == 5


def test_the_last_pass_is_run_whatever_its_bit_says():
    """`last` and its bit contradict each other: it is as if the bit were 0."""
    jobs = make_jobs(TINY, SEED, [EIGHT], [(False, True, False, True, False, False, False, False)])
    bench = Bench(TINY, jobs)
    skip = skip_operands(jobs[0].executed)
    bench.commands[0] = int.from_bytes(encode(Command("SKIP", {**skip, "mask_0": skip["mask_0"] | 0b1000})), "little")
    bench.run()
    bench.check()


def test_a_skip_is_done_when_all_before_it_are():
    """Commands of one pixel, of which several are on their way at the same time: a SKIP is never counted too early."""
    one = {"tile_width": 1, "tile_height": 1}
    bench = Bench(TINY, make_jobs(TINY, SEED, [one] * 6, [(), (True,), (), (True,), (True,), ()]))
    bench.run()
    bench.check()
    alone = [Bench(TINY, make_jobs(TINY, SEED, [one] * count)) for count in (1, 6)]
    for other in alone:
        other.run()
    assert len(bench.done) == 9
    # The first convolution is the first to be done; each SKIP behind it costs at most a few cycles.
    assert bench.done[0] == alone[0].done[0]
    assert bench.done[-1] <= alone[1].done[-1] + 3 * 3


def test_without_weights_only_what_has_been_read_is_done():
    """The SKIP behind a convolution that cannot go on is taken, and not counted."""
    jobs = make_jobs(TINY, SEED, [{"blocks": 3, "tile_width": 8}, {}], [(), (True,)])
    bench = Bench(TINY, jobs)
    words, bench.words = bench.words, deque()
    bench.run(150)
    assert bench.words == deque()
    assert not bench.done
    assert words


def test_a_skip_in_front_of_nothing_is_done():
    bench = Bench(TINY, [])
    bench.commands = deque([int.from_bytes(encode(Command("SKIP", skip_operands([True]))), "little")] * 3)
    bench.command_count = 4  # so that it goes on, and finds no more than there are
    bench.run(60)
    assert len(bench.done) == 3


def test_skip_without_its_hardware_is_refused():
    lean = replace(TINY, name="lean", block_sparsity=False)
    jobs = make_jobs(lean, SEED, [{}, {}], [(), (True,)])
    bench = Bench(lean, jobs)
    bench.run(300)
    assert [code for _, code in bench.errors] == [ErrorCode.ILLEGAL_OPERAND]
    assert len(bench.done) == 1
    assert bench.errors[0][0] > bench.done[0]
    assert len(bench.active) == jobs[0].pixels


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_random_commands_without_the_hardware(stall: float):
    lean = replace(SMALL, name="lean", block_sparsity=False)
    rng = random.Random(f"{SEED} {stall}")
    run(lean, [(random_operands(rng, lean), ()) for _ in range(3)], SEED, stall)
