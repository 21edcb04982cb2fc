# SPDX-License-Identifier: Apache-2.0
"""The DRAIN unit against a model on NumPy arrays: every byte of the scratchpad, after every command."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from amaranth.back import verilog

from loomwork.arch.command import Command
from loomwork.arch.config import BASE, FORMAL, MID, SMALL, TINY, Config
from loomwork.arch.isa import Combine, Params, Pool, Source
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.drain import Drain
from loomwork.rtl.ports import WORD_ADDRESS_BITS
from tests.rtl.drain_bench import DrainBench, random_memory
from tests.rtl.drain_scenario import Scenario, drain, requant, table

DEEP = replace(TINY, accumulator_depth=64)
SECOND_STAGES = ("residual_add", "elementwise_multiply", "activation_table")
"""Fields of the configuration, each for one of them."""


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("patience", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(2))
def test_random_commands(lanes: int, patience: float, seed: int) -> None:
    scenario = Scenario.make(replace(DEEP, requant_lanes=lanes), seed * 100 + lanes * 10 + int(patience * 2))
    scenario.add_requant()
    for _ in range(12):
        if scenario.rng.random() < 0.5:
            scenario.add_requant()
        scenario.add_drain()
    scenario.run(patience)


@pytest.mark.parametrize(
    "config",
    [
        replace(FORMAL, scratchpad_kib=4),
        SMALL,
        replace(SMALL, name="late", deep_pipeline=True),
        replace(MID, name="narrow", cols=4, requant_lanes=2),
        MID,
    ],
    ids=lambda config: config.name,
)
def test_random_commands_of_other_shapes(config: Config) -> None:
    scenario = Scenario.make(config, config.rows + config.cols)
    scenario.add_requant()
    for _ in range(4):
        scenario.add_drain()
    scenario.run(0.8)


@pytest.mark.parametrize("built", [{}, *({name: True} for name in SECOND_STAGES)], ids=str)
def test_without_second_stages(built: dict[str, bool]) -> None:
    without = dict.fromkeys(SECOND_STAGES, False)
    scenario = Scenario.make(replace(DEEP, **{**without, **built}), 7)
    scenario.add_requant()
    for _ in range(10):
        scenario.add_drain()
    scenario.run(0.7)


@pytest.mark.parametrize("params", list(Params))
def test_tiles_of_one_layer_follow_each_other(params: Params) -> None:
    """Nothing between the DRAINs makes the unit wait, and blocks are as short as can be."""
    scenario = Scenario.make(DEEP, 3)
    scenario.add_requant()
    for _ in range(20):
        scenario.add_drain(source=Source.ACCUMULATOR, combine=Combine.NONE, pool=Pool.NONE, params=params)
    for _ in range(5):
        channels = scenario.rng.randint(9, 12)
        scenario.commands.append(drain(channels=channels, params=params, out_base=900))
        for _ in range(3):
            scenario.add_block()
            if params is not Params.UNIFORM:
                scenario.add_parameters(params)
    scenario.run()


@pytest.mark.parametrize("combine", list(Combine))
def test_a_command_sees_what_the_one_before_wrote(combine: Combine) -> None:
    """The bytes that a DRAIN wrote last are the first that the next one reads, as source or as operand."""
    scenario = Scenario.make(DEEP, 11)
    scenario.add_requant()
    scenario.add_tables()
    place = {"in_step": 4, "out_step": 4, "channels": 4, "in_pitch": 3, "out_pitch": 3}
    operands = scenario.requantize({"operand_base": 3, "operand_pitch": 3, "zero_a": 1, "zero_b": -1}, bits=7)
    shift = -6 if combine is Combine.MULTIPLY else -17
    scale = {"multiplier_a": 1 << 30, "shift_a": 0, "multiplier_b": 1 << 30, "shift_b": -1, "shift": shift}
    scenario.commands += [
        requant(zero_point=3),
        Command("COMBINE", {**operands, **scale}),
        drain(**{**place, "source": Source.SCRATCHPAD, "width": 3, "out_base": 3}),
        drain(**{**place, "source": Source.SCRATCHPAD, "width": 1, "in_base": 3, "in_offset": 8, "out_base": 6}),
        drain(**{**place, "in_pitch": 1, "width": 1, "out_base": 3, "combine": combine}),
        drain(**{**place, "source": Source.SCRATCHPAD, "in_base": 3, "out_base": 9, "combine": combine}),
        drain(**{**place, "in_pitch": 1, "out_base": 12, "combine": combine}),
    ]
    scenario.add_block()
    scenario.add_block()
    scenario.run()


def test_one_large_window() -> None:
    """Global pooling: one window of many pixels."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), 5)
    tensor = {"source": Source.SCRATCHPAD, "in_pitch": 16, "in_step": 4, "channels": 4}
    scenario.commands = [
        requant(multiplier=(1 << 31) // 49 + 1, shift=0, rounding=1),
        drain(**tensor, pool=Pool.SUM, pool_height=14, pool_width=14, out_base=300),
        drain(**tensor, pool=Pool.MAX, pool_height=14, pool_width=14, out_base=301),
    ]
    scenario.run()


def cycles_of_a_drain(source: Source, combine: Combine, lanes: int, height: int) -> int:
    """When a DRAIN of so many rows of 12 pixels is done, with nothing in its way."""
    scenario = Scenario.make(replace(DEEP, accumulator_depth=128, requant_lanes=lanes), 1)
    scenario.add_requant()
    scenario.add_drain(combine=combine, source=source, pool=Pool.NONE, params=Params.UNIFORM)
    command = scenario.commands.pop()
    shape = {
        "in_pitch": 12 if source == Source.ACCUMULATOR else 24, "in_step": 4, "out_step": 4, "channels": 4,
        "width": 12, "height": height, "out_base": 500, "out_pitch": 40, "pool_y_step": 1, "pool_x_step": 1,
    }  # fmt: skip
    scenario.commands.append(Command("DRAIN", {**command.operands, **shape}))
    del scenario.blocks[1:]
    scenario.made = [0] * len(scenario.blocks)
    bench = scenario.run()
    assert bench.waited_bank == 0
    return bench.finish[-1]


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize(
    ("source", "combine", "cycles_per_step"),
    [
        (Source.ACCUMULATOR, Combine.NONE, 1),
        (Source.ACCUMULATOR, Combine.ADD, 1),
        (Source.ACCUMULATOR, Combine.TABLE, 1),
        (Source.SCRATCHPAD, Combine.NONE, 1),
        (Source.SCRATCHPAD, Combine.TABLE, 1),
        (Source.SCRATCHPAD, Combine.ADD, 2),
    ],
)
def test_throughput(source: Source, combine: Combine, lanes: int, cycles_per_step: int) -> None:
    short, long = (cycles_of_a_drain(source, combine, lanes, height) for height in (1, 9))
    assert long - short == 96 * 4 // lanes * cycles_per_step


def test_settings_change_without_a_pause() -> None:
    """A REQUANT between two tiles costs the cycles of a command, not those of the way to the scratchpad."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), 1)
    for _ in range(6):
        scenario.add_requant()
        scenario.commands.append(
            drain(width=8, height=8, channels=4, in_pitch=8, out_step=8, out_pitch=16, pool_x_step=1)
        )
        scenario.add_block()
    gaps = np.diff(scenario.run().finish[1::2])
    assert gaps.max() <= 64 + 10, f"cycles from DRAIN to DRAIN: {gaps}"


@pytest.mark.parametrize("patience", [1.0, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_each_result_goes_with_its_own_settings(seed: int, patience: float) -> None:
    """Tiles so short that several, each with a REQUANT of its own, are on their way at once."""
    scenario = Scenario.make(DEEP, seed)
    for _ in range(40):
        if scenario.rng.random() < 0.7:
            scenario.add_requant()
        params = scenario.rng.choice([Params.UNIFORM, Params.BIAS])
        scenario.commands.append(drain(channels=4, params=params, out_base=scenario.rng.randint(0, 900)))
        scenario.add_block()
        if params is not Params.UNIFORM:
            scenario.add_parameters(params)
    scenario.run(patience)


@pytest.mark.parametrize("patience", [1.0, 0.6])
@pytest.mark.parametrize("seed", range(2))
def test_each_result_goes_through_its_own_table(seed: int, patience: float) -> None:
    """Tiles so short that several are on their way at once, with and without the table, which changes between them."""
    scenario = Scenario.make(DEEP, seed)
    scenario.commands.append(requant())
    for _ in range(30):
        combine = scenario.rng.choice([Combine.NONE, Combine.TABLE])
        if combine is Combine.TABLE or scenario.rng.random() < 0.3:
            scenario.add_tables()
        scenario.commands.append(drain(channels=4, combine=combine, out_base=scenario.rng.randint(0, 900)))
        scenario.add_block()
    scenario.run(patience)


@pytest.mark.parametrize("lanes", [1, 4])
def test_every_value_goes_through_the_table(lanes: int) -> None:
    scenario = Scenario.make(replace(DEEP, requant_lanes=lanes), 1)
    scenario.add_tables()
    scenario.commands.append(requant())
    for half in range(4):
        size = {"width": 4, "height": 4, "channels": 4, "in_pitch": 4, "out_step": 4, "out_pitch": 4}
        scenario.commands.append(drain(combine=Combine.TABLE, **size, out_base=4 * half))
        block = np.zeros((DEEP.accumulator_depth, DEEP.cols), np.int64)
        block[:16] = np.arange(64 * half - 128, 64 * half - 64).reshape(16, 4)
        scenario.blocks.append(block)
        scenario.made.append(0)
    bench = scenario.run()
    # Row `y` of half `h` lies in bank `y`, words `4 * h` to `4 * h + 3`.
    written = np.concatenate([bench.memory[:, 16 * half : 16 * half + 16].ravel() for half in range(4)])
    entries = [
        command[f"entry_{number}"]
        for command in sorted(scenario.commands[:16], key=lambda command: command["index"])
        for number in range(16)
    ]
    np.testing.assert_array_equal(written.view(np.int8), entries)


def test_a_table_may_be_set_while_others_drain() -> None:
    """Behind a DRAIN that does not use the table, its sixteen commands do not wait for what is on its way."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), 1)
    scenario.commands = [requant(), drain(channels=4)]
    scenario.add_block()
    scenario.add_tables()
    finish = scenario.run(writes_after=100).finish
    # Seven are taken besides the DRAIN, and reported behind it one per cycle.
    assert np.diff(finish[1:9]).tolist() == [1] * 7


def test_gap_between_tiles() -> None:
    """A tile of two blocks costs its pixels, one cycle per block to release it, and a few to begin."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), 1)
    scenario.commands.append(requant())
    for _ in range(4):
        scenario.commands.append(
            drain(width=8, height=8, channels=8, in_pitch=8, out_step=8, out_pitch=16, pool_x_step=1)
        )
        scenario.add_block()
        scenario.add_block()
    finish = scenario.run().finish
    gaps = np.diff(finish[1:])
    assert gaps.max() <= 2 * 64 + 2 + 6, f"cycles from DRAIN to DRAIN: {gaps}"


@pytest.mark.parametrize(
    ("windows", "most"),
    [
        ({"width": 8, "height": 8, "pool_x_step": 1}, 0),
        # The last row of windows begins with the array's last row: 16 steps, half of them behind it.
        ({"width": 4, "height": 4, "pool": Pool.MAX, "pool_height": 2, "pool_width": 2, "pool_y_step": 2}, 8),
    ],
    ids=["pixels", "maxima"],
)
def test_takes_a_block_while_the_array_makes_it(windows: dict[str, int], most: int) -> None:
    """One pixel per cycle: when the last one is there, only the way to the scratchpad is left, and `most` steps."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), 1)
    scenario.commands = [
        requant(),
        drain(**{"channels": 4, "in_pitch": 8, "out_step": 8, "out_pitch": 16, "pool_x_step": 2, **windows}),
    ]
    scenario.add_block(made=64)
    bench = scenario.run()
    assert bench.finish[-1] - bench.whole[0] <= most + 28
    assert bench.waited_accumulator <= 64


@pytest.mark.parametrize("made", [17, 40, 64])
def test_keeps_a_block_until_the_array_has_made_all_of_it(made: int) -> None:
    """Of each block 16 pixels are taken: the half may not be given back before the array has left it."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), made)
    scenario.commands = [requant(), drain(width=4, height=4, channels=12, in_pitch=4, out_step=12, out_pitch=12)]
    for _ in range(3):
        scenario.add_block(made=made)
    bench = scenario.run()
    assert bench.finish[-1] - bench.whole[-1] <= 28


@pytest.mark.parametrize("patience", [0.9, 0.5])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_blocks_in_one_pass_and_in_several(lanes: int, patience: float) -> None:
    """The array is before the drain, and the drain before the array, in turn: no pixel is read before it is there."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=lanes), lanes)
    for _ in range(25):
        if scenario.rng.random() < 0.3:
            scenario.add_requant()
        scenario.add_drain(source=Source.ACCUMULATOR)
    scenario.run(patience)


@pytest.mark.parametrize("writes", [{"write_patience": 0.05}, {"writes_after": 300}], ids=["rare", "late"])
@pytest.mark.parametrize("requants", [0.5, 1.0])
def test_reports_keep_their_order_when_writes_are_slow(requants: float, writes: Any) -> None:
    """Tiles of one result pile up to as many commands as a unit may have. Then results may be written one per cycle,
    faster than DRAINs and the REQUANTs between them are reported.
    """
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), 4)
    for _ in range(20):
        if scenario.rng.random() < requants:
            scenario.add_requant()
        scenario.commands.append(drain(channels=4, out_base=scenario.rng.randint(0, 900)))
        scenario.add_block()
    scenario.run(**writes)


def test_counts_cycles_without_a_block() -> None:
    block = np.zeros((DEEP.accumulator_depth, DEEP.cols), np.int64)
    bench = DrainBench(DEEP, random_memory(DEEP, random.Random(1)), random.Random(2), [block], blocks_after=200)
    bench.run([requant(), drain()])
    assert 180 <= bench.waited_accumulator <= 200
    assert bench.waited_bank == 0


def test_counts_cycles_without_a_bank() -> None:
    bench = DrainBench(DEEP, random_memory(DEEP, random.Random(1)), random.Random(2), patience=0.25)
    bench.run([requant(), drain(source=Source.SCRATCHPAD, width=100, in_step=1, out_step=1, out_pitch=64, out_base=64)])
    assert 200 <= bench.waited_bank <= 600  # one of four requests is taken
    assert bench.waited_accumulator == 0


@pytest.mark.parametrize(
    ("config", "command", "error"),
    [
        (replace(DEEP, residual_add=False), drain(combine=Combine.ADD), ErrorCode.ILLEGAL_OPERAND),
        (replace(DEEP, elementwise_multiply=False), drain(combine=Combine.MULTIPLY), ErrorCode.ILLEGAL_OPERAND),
        (replace(DEEP, activation_table=False), drain(combine=Combine.TABLE), ErrorCode.ILLEGAL_OPERAND),
        (replace(DEEP, activation_table=False), table(0, range(16)), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(combine=Combine.ADD, pool=Pool.SUM), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(combine=Combine.MULTIPLY, pool=Pool.SUM), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(pool_height=2), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(pool_width=2), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(source=Source.SCRATCHPAD, params=Params.BIAS), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(width=9, height=8, in_pitch=8), ErrorCode.SCRATCHPAD),
        (replace(DEEP, deep_pipeline=True), drain(pool_height=2), ErrorCode.ILLEGAL_OPERAND),
        (replace(DEEP, deep_pipeline=True), drain(width=9, height=8, in_pitch=8), ErrorCode.SCRATCHPAD),
        (DEEP, drain(in_pitch=65, height=2), ErrorCode.SCRATCHPAD),
        (DEEP, drain(in_pitch=4095, height=1023, pool_y_step=15), ErrorCode.SCRATCHPAD),
    ],
)
def test_errors_come_when_earlier_commands_are_done(config: Config, command: Command, error: ErrorCode) -> None:
    scenario = Scenario.make(config, 1)
    scenario.commands = [
        requant(),
        drain(width=8, height=8, in_pitch=8, out_step=1, out_pitch=16, out_base=100),
        command,
    ]
    scenario.add_block()
    scenario.add_block()
    bench = scenario.run()
    assert bench.error == error
    assert len(bench.finish) == 2
    assert bench.finish[-1] < bench.cycles - 1  # the cycle of the error


BEYOND = 1 << WORD_ADDRESS_BITS
"""A word address that would wrap to 0: `base` + 192 * `pitch` + the word of byte `offset`."""
FAR = {"base": 65535, "row": 768, "pitch": 1024, "offset": 4}


def test_source_addresses_do_not_wrap() -> None:
    """The scratchpad finds the error, as long as the address stays out of range."""
    assert FAR["base"] + FAR["row"] // 4 * FAR["pitch"] + FAR["offset"] // DEEP.rows == BEYOND
    far = {f"in_{name}": value for name, value in FAR.items()}
    scenario = Scenario.make(DEEP, 1)
    scenario.commands = [requant(), drain(source=Source.SCRATCHPAD, **far)]
    with pytest.raises(AssertionError, match="read beyond the last word"):
        scenario.run()


def test_operand_addresses_do_not_wrap() -> None:
    scenario = Scenario.make(DEEP, 1)
    scenario.add_combine(FAR["base"], FAR["pitch"], bits=27)
    scenario.commands.append(drain(combine=Combine.ADD, in_row=FAR["row"], in_offset=FAR["offset"]))
    scenario.add_block()
    with pytest.raises(AssertionError, match="read beyond the last word"):
        scenario.run()


def test_destination_addresses_do_not_wrap() -> None:
    scenario = Scenario.make(DEEP, 1)
    scenario.commands = [requant(), drain(**{f"out_{name}": value for name, value in FAR.items()})]
    scenario.add_block()
    with pytest.raises(AssertionError, match="write beyond the last word"):
        scenario.run()


@pytest.mark.parametrize("source", list(Source))
def test_slow_writes(source: Source) -> None:
    """Many more results are ready than can be written: what is launched must find a place."""
    scenario = Scenario.make(replace(DEEP, accumulator_depth=256, requant_lanes=4), 8)
    scenario.add_requant()
    size = {"width": 16, "height": 16, "in_pitch": 16, "out_pitch": 16, "channels": 4, "in_step": 4, "out_step": 4}
    scenario.commands.append(drain(source=source, out_base=512, **size))
    if source == Source.ACCUMULATOR:
        scenario.add_block()
    scenario.run(write_patience=0.2)


@pytest.mark.parametrize("combine", [Combine.NONE, Combine.ADD])
def test_settings_are_zero_before_they_are_set(combine: Combine) -> None:
    """Clamped between 0 and 0, every result is 0."""
    scenario = Scenario.make(DEEP, 1)
    size = {"width": 4, "height": 4, "channels": 4, "in_pitch": 4, "in_step": 4, "out_step": 4, "out_pitch": 4}
    scenario.commands = [drain(combine=combine, **size, out_base=64)]
    scenario.add_block()
    bench = scenario.run()
    written = bench.memory[:, 64 * DEEP.rows :][:, : 4 * 4]
    assert not written.any()


def test_halt_stops_reads_and_writes() -> None:
    memory = random_memory(DEEP, random.Random(1))
    before = memory.copy()
    bench = DrainBench(DEEP, memory, random.Random(2), halt_after=60)
    command = drain(source=Source.SCRATCHPAD, width=100, in_step=1, out_step=1, in_pitch=64, out_pitch=64, out_base=512)
    with pytest.raises(AssertionError, match="0 of 1 commands done after 400 cycles"):
        bench.run([command], limit=400)
    assert bench.last_access == 60, "busy to the cycle of the halt, and then no more"
    assert (memory != before).any()


def test_converts_to_verilog() -> None:
    text = verilog.convert(Drain(BASE), emit_src=False)
    assert "module top" in text
