import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth.back import verilog
from numpy.typing import NDArray

from loomwork.arch.config import BASE, FORMAL, MID, SMALL, TINY, Config
from loomwork.arch.isa import Combine, Command, Params, Pool, Source
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.drain import Drain
from tests.rtl.drain_bench import DrainBench, random_memory
from tests.rtl.drain_model import BlockParameters, DrainModel

DEEP = replace(TINY, accumulator_depth=64)


def requant(**operands: int) -> Command:
    """A REQUANT that keeps values as they are, but for `operands`."""
    keep = {
        "bias": 0, "multiplier": 1 << 30, "shift": 1, "zero_point": 0, "minimum": -128, "maximum": 127, "rounding": 0,
    }  # fmt: skip
    return Command("REQUANT", {**keep, **operands})


def drain(**operands: int) -> Command:
    """A DRAIN of one pixel of one channel from the accumulators, but for `operands`."""
    one = {
        "source": Source.ACCUMULATOR, "in_base": 0, "in_pitch": 1, "in_row": 0, "in_offset": 0, "in_step": 0,
        "out_base": 0, "out_pitch": 1, "out_row": 0, "out_offset": 0, "out_step": 0, "width": 1, "height": 1,
        "channels": 1, "pool": Pool.NONE, "pool_height": 1, "pool_width": 1, "pool_y_step": 1, "pool_x_step": 1,
        "combine": Combine.NONE, "params": Params.UNIFORM,
    }  # fmt: skip
    return Command("DRAIN", {**one, **operands})


@dataclass
class Scenario:
    """Random commands, and the blocks and parameters that they take."""

    config: Config
    rng: random.Random
    commands: list[Command]
    blocks: list[NDArray[np.int64]]
    parameters: list[tuple[BlockParameters, Params]]

    @classmethod
    def make(cls, config: Config, seed: int) -> "Scenario":
        return cls(config, random.Random(seed), [], [], [])

    def int32(self) -> int:
        rng = self.rng
        return rng.choice(
            [rng.randint(-300, 300), rng.randint(-(1 << 17), 1 << 17), rng.randrange(-(1 << 31), 1 << 31)]
        )

    def scale(self, max_shift: int) -> tuple[int, int]:
        """A multiplier and a shift; mostly such that something is left after clamping."""
        rng = self.rng
        multiplier = rng.choice([rng.randrange(1 << 30, 1 << 31), rng.randrange(1 << 31), 0, (1 << 31) - 1])
        return multiplier, rng.choice([rng.randint(-12, min(max_shift, 2)), rng.randint(-31, max_shift)])

    def requantize(self, operands: dict[str, int]) -> dict[str, int]:
        rng = self.rng
        operands["multiplier"], operands["shift"] = self.scale(7)
        minimum, maximum = sorted((rng.randint(-128, 127), rng.randint(-128, 127)))
        full = rng.random() < 0.7
        return operands | {
            "zero_point": rng.randint(-128, 127),
            "minimum": -128 if full else minimum,
            "maximum": 127 if full else maximum,
            "rounding": rng.randint(0, 1),
        }

    def add_requant(self) -> None:
        self.commands.append(Command("REQUANT", self.requantize({"bias": self.int32()})))

    def add_drain(self, **fixed: int) -> None:
        """A DRAIN, and a COMBINE before it when it needs one."""
        rng, config = self.rng, self.config
        source = fixed.get("source", rng.choice(list(Source)))
        combine = fixed.get("combine", rng.choice(list(Combine) if config.residual_add else [Combine.NONE]))
        pool = fixed.get("pool", rng.choice(list(Pool)))
        params = fixed.get("params", rng.choice(list(Params)) if source == Source.ACCUMULATOR else Params.UNIFORM)
        pooled = pool != Pool.NONE
        while True:
            height, width = rng.randint(1, 4), rng.randint(1, 5)
            pool_height, pool_width = (rng.randint(1, 3), rng.randint(1, 3)) if pooled else (1, 1)
            y_step, x_step = rng.randint(1, 3), rng.randint(1, 3)
            if rng.random() < 0.15 and pooled:
                height, width, pool_height, pool_width = 1, 1, rng.randint(4, 6), rng.randint(4, 6)
            in_height, in_width = (height - 1) * y_step + pool_height, (width - 1) * x_step + pool_width
            in_pitch = in_width + rng.randint(0, 2)
            if in_height * in_pitch <= config.accumulator_depth:
                break
        channels = rng.randint(1, 2 * config.cols + 2)
        in_row, in_offset, in_step = rng.randint(0, 6), rng.randint(0, 9), channels + rng.randint(0, 5)
        out_row, out_offset, out_step = rng.randint(0, 6), rng.randint(0, 9), channels + rng.randint(0, 5)

        # Three tensors, one behind the other; the scratchpad between them must stay as it is.
        def words(last_byte: int) -> int:
            return -(-last_byte // config.rows) + rng.randint(0, 2)

        in_words = words(in_offset + in_width * in_step + config.cols)
        operand_words = words(in_offset + in_width * in_step + config.cols)
        out_words = words(out_offset + width * out_step + config.cols)
        places: list[int] = []
        at = rng.randint(0, 5)
        for pitch, rows in (
            (in_words, in_row + in_height),
            (operand_words, in_row + in_height),
            (out_words, out_row + height),
        ):
            places.append(at)
            at += (-(-rows // 4)) * pitch + rng.randint(0, 5)
        assert at <= config.bank_words
        if combine != Combine.NONE:
            multiplier_a, shift_a = self.scale(0)
            multiplier_b, shift_b = self.scale(0)
            operands = {
                "operand_base": places[1], "operand_pitch": operand_words,
                "multiplier_a": multiplier_a, "shift_a": shift_a, "zero_a": rng.randint(-128, 127),
                "multiplier_b": multiplier_b, "shift_b": shift_b, "zero_b": rng.randint(-128, 127),
            }  # fmt: skip
            self.commands.append(Command("COMBINE", self.requantize(operands)))
            if combine == Combine.ADD and rng.random() < 0.7:  # as TFLite has it: leaves 20 bits to take off
                self.commands[-1] = Command("COMBINE", {**self.commands[-1].operands, "shift": rng.randint(-20, -16)})
        self.commands.append(
            drain(
                source=source, in_base=places[0], in_pitch=in_words if source == Source.SCRATCHPAD else in_pitch,
                in_row=in_row, in_offset=in_offset, in_step=in_step, out_base=places[2], out_pitch=out_words,
                out_row=out_row, out_offset=out_offset, out_step=out_step, width=width, height=height,
                channels=channels, pool=pool, pool_height=pool_height, pool_width=pool_width, pool_y_step=y_step,
                pool_x_step=x_step, combine=combine, params=params,
            )
        )  # fmt: skip
        for _ in range(0, channels, config.cols):
            if source == Source.ACCUMULATOR:
                self.add_block()
            if params != Params.UNIFORM:
                self.add_parameters(Params(params))

    def add_block(self) -> None:
        shape = (self.config.accumulator_depth, self.config.cols)
        self.blocks.append(np.array([[self.int32() for _ in range(shape[1])] for _ in range(shape[0])], np.int64))

    def add_parameters(self, params: Params) -> None:
        scales = [self.scale(7) for _ in range(self.config.cols)]
        block = BlockParameters(
            bias=np.array([self.int32() for _ in scales], np.int64),
            multiplier=np.array([multiplier for multiplier, _ in scales], np.int64),
            shift=np.array([shift for _, shift in scales], np.int64),
        )
        self.parameters.append((block, params))

    def run(self, patience: float = 1.0) -> DrainBench:
        """On the unit, comparing the whole scratchpad with the model's whenever a command is done."""
        before = random_memory(self.config, self.rng)
        model = DrainModel(self.config, before.copy(), iter(self.blocks), iter([block for block, _ in self.parameters]))

        def compare(finished: int) -> None:
            command = self.commands[finished - 1]
            model.execute(command)
            wrong = np.argwhere(bench.memory != model.memory)
            assert not len(wrong), f"command {finished - 1} ({command}): {len(wrong)} bytes differ, first {wrong[0]}"

        bench = DrainBench(
            self.config, before, self.rng, self.blocks, self.parameters, patience=patience, on_done=compare
        )
        bench.run(self.commands)
        return bench


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


@pytest.mark.parametrize("config", [FORMAL, SMALL, replace(MID, cols=4, requant_lanes=2), MID], ids=lambda c: c.name)
def test_random_commands_of_other_shapes(config: Config) -> None:
    scenario = Scenario.make(config, config.rows + config.cols)
    scenario.add_requant()
    for _ in range(4):
        scenario.add_drain()
    scenario.run(0.8)


def test_without_second_stage() -> None:
    scenario = Scenario.make(replace(DEEP, residual_add=False), 7)
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
    place = {"in_step": 4, "out_step": 4, "channels": 4, "in_pitch": 3, "out_pitch": 3}
    operands = scenario.requantize({"operand_base": 3, "operand_pitch": 3, "zero_a": 1, "zero_b": -1})
    scale = {"multiplier_a": 1 << 30, "shift_a": 0, "multiplier_b": 1 << 30, "shift_b": -1, "shift": -17}
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


def test_sum_wraps_and_average_of_many() -> None:
    """A global average over more values than any 16-bit counter of steps could lose track of quietly."""
    scenario = Scenario.make(replace(DEEP, requant_lanes=4), 5)
    scenario.commands = [
        requant(multiplier=(1 << 31) // 49 + 1, shift=0, rounding=1),
        drain(source=Source.SCRATCHPAD, in_pitch=16, in_step=4, channels=4, pool=Pool.SUM, pool_height=14, pool_width=14,
              out_base=300),
        drain(source=Source.SCRATCHPAD, in_pitch=16, in_step=4, channels=4, pool=Pool.MAX, pool_height=14, pool_width=14,
              out_base=301),
    ]  # fmt: skip
    scenario.run()


def steps_per_cycle(source: Source, combine: Combine, lanes: int) -> float:
    """From the difference between a long and a short command: what a step takes when nothing is in the way."""
    finish: list[int] = []
    for height in (1, 5):
        scenario = Scenario.make(replace(DEEP, requant_lanes=lanes), 1)
        scenario.add_requant()
        scenario.add_drain(combine=combine, source=source, pool=Pool.NONE, params=Params.UNIFORM)
        scenario.blocks.clear()
        last = scenario.commands.pop()
        pitch = 12 if source == Source.ACCUMULATOR else 24
        shape = {
            "in_pitch": pitch, "width": 12, "height": height, "channels": 8, "in_step": 8, "out_step": 8,
            "out_base": 500, "out_pitch": 40, "pool_y_step": 1, "pool_x_step": 1,
        }  # fmt: skip
        scenario.commands.append(Command("DRAIN", {**last.operands, **shape}))
        if source == Source.ACCUMULATOR:
            scenario.add_block()
            scenario.add_block()
        bench = scenario.run()
        finish.append(bench.finish[-1])
        assert bench.waited_bank == 0
    return (4 * 12 * 8 // lanes) / (finish[1] - finish[0])


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize(
    ("source", "combine", "expected"),
    [
        (Source.ACCUMULATOR, Combine.NONE, 1.0),
        (Source.ACCUMULATOR, Combine.ADD, 1.0),
        (Source.ACCUMULATOR, Combine.RESCALE, 1.0),
        (Source.SCRATCHPAD, Combine.NONE, 1.0),
        (Source.SCRATCHPAD, Combine.ADD, 0.5),
    ],
)
def test_throughput(source: Source, combine: Combine, lanes: int, expected: float) -> None:
    assert steps_per_cycle(source, combine, lanes) == expected


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
        (replace(DEEP, residual_add=False), drain(combine=Combine.RESCALE), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(source=Source.SCRATCHPAD, params=Params.BIAS), ErrorCode.ILLEGAL_OPERAND),
        (DEEP, drain(width=9, height=8, in_pitch=8), ErrorCode.SCRATCHPAD),
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


def test_addresses_beyond_the_scratchpad_do_not_wrap() -> None:
    """The scratchpad finds the error, as long as the address stays out of range."""
    far = {"in_step": 0, "width": 1, "height": 1}
    cases = [
        drain(source=Source.SCRATCHPAD, in_row=4095, in_pitch=4095, in_base=65535, **far),
        drain(source=Source.SCRATCHPAD, in_offset=65535, in_base=65535, **far),
        drain(source=Source.SCRATCHPAD, pool=Pool.SUM, in_step=8191, pool_width=255, pool_height=255, in_base=65535),
    ]
    for command in cases:
        scenario = Scenario.make(DEEP, 1)
        scenario.commands = [requant(), command]
        with pytest.raises(AssertionError, match="read beyond the last word"):
            scenario.run()


def test_halt_stops_reads_and_writes() -> None:
    memory = random_memory(DEEP, random.Random(1))
    before = memory.copy()
    bench = DrainBench(DEEP, memory, random.Random(2), halt_after=60)
    command = drain(source=Source.SCRATCHPAD, width=100, in_step=1, out_step=1, in_pitch=64, out_pitch=64, out_base=512)
    with pytest.raises(AssertionError, match="0 of 1 commands done after 400 cycles"):
        bench.run([command], limit=400)
    assert bench.last_access == 59, "busy to the last cycle, and then no more"
    assert (memory != before).any()


def test_converts_to_verilog() -> None:
    text = verilog.convert(Drain(BASE), emit_src=False)
    assert "module top" in text
