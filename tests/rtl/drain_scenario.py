# SPDX-License-Identifier: Apache-2.0
"""Commands for a DRAIN unit, by hand or at random, with the blocks and parameters that they take."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.command import Command
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import Combine, Params, Pool, Source
from loomwork.arch.numerics import ADD_LEFT_SHIFT
from loomwork.rtl.ports import COMMANDS_IN_UNIT
from tests.rtl.drain_bench import DrainBench, random_memory
from tests.rtl.drain_model import BlockParameters, DrainModel


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


def table(index: int, entries: Sequence[int]) -> Command:
    """A TABLE of these 16 entries."""
    return Command("TABLE", {"index": index, **{f"entry_{number}": int(entry) for number, entry in enumerate(entries)}})


INT8_BITS = 7
"""Bits of an int8 besides its sign."""
OPERAND_STAGES = (Combine.ADD, Combine.MULTIPLY)
"""Second stages that read a second tensor."""


@dataclass
class Scenario:
    """Random commands, and the blocks and parameters that they take.

    made: how many pixels of each block the array makes one by one (see `DrainBench`).
    bits: magnitude of the sums that the present REQUANT is meant for. has_table: TABLEs have set all entries.
    """

    config: Config
    rng: random.Random
    commands: list[Command]
    blocks: list[NDArray[np.int64]]
    parameters: list[tuple[BlockParameters, Params]]
    made: list[int]
    bits: int = INT8_BITS
    has_table: bool = False

    @classmethod
    def make(cls, config: Config, seed: int) -> "Scenario":
        """Without any command yet."""
        return cls(config, random.Random(seed), [], [], [], [])

    def sum32(self) -> int:
        """A sum of about `bits` bits, seldom any int32."""
        bits = 31 if self.rng.random() < 0.03 else self.bits
        return self.rng.randrange(-(1 << bits), 1 << bits)

    def scale(self, bits: int, max_shift: int = 7) -> tuple[int, int]:
        """A multiplier and a shift that make an int8 of a number of so many bits, seldom any."""
        rng = self.rng
        if rng.random() < 0.1:
            return rng.choice([0, rng.randrange(1 << 31), (1 << 31) - 1]), rng.randint(-31, max_shift)
        return rng.randrange(1 << 30, 1 << 31), min(7 - bits + rng.randint(-1, 1), max_shift)

    def requantize(self, operands: dict[str, int], bits: int) -> dict[str, int]:
        """Add to `operands` what makes an int8 of numbers of so many bits."""
        rng = self.rng
        operands["multiplier"], operands["shift"] = self.scale(bits)
        minimum, maximum = sorted((rng.randint(-128, 127), rng.randint(-128, 127)))
        is_full = rng.random() < 0.8
        return operands | {
            "zero_point": rng.randint(-128, 127) if rng.random() < 0.2 else rng.randint(-30, 30),
            "minimum": -128 if is_full else minimum,
            "maximum": 127 if is_full else maximum,
            "rounding": rng.randint(0, 1),
        }

    def add_requant(self, bits: int | None = None) -> None:
        """A REQUANT for values of so many bits, by default any."""
        self.bits = self.rng.randint(4, 30) if bits is None else bits
        self.commands.append(Command("REQUANT", self.requantize({"bias": self.sum32()}, self.bits)))

    def add_drain(self, **fixed: int) -> None:
        """A DRAIN, and before it what it needs: a COMBINE, TABLEs."""
        rng, config = self.rng, self.config
        source = fixed.get("source", rng.choice(list(Source)))
        combine = fixed.get("combine", rng.choice(self.second_stages()))
        pool = fixed.get("pool", rng.choice([Pool.NONE, Pool.MAX] if combine in OPERAND_STAGES else list(Pool)))
        params = fixed.get("params", rng.choice(list(Params)) if source == Source.ACCUMULATOR else Params.UNIFORM)
        if source == Source.SCRATCHPAD and self.bits != INT8_BITS:
            self.add_requant(INT8_BITS)
        windows, in_height, in_width = self.windows(pool != Pool.NONE)
        channels = rng.randint(1, 2 * config.cols + 2)
        first = {
            f"{side}_{name}": value
            for side in ("in", "out")
            for name, value in (
                ("row", rng.randint(0, 6)),
                ("offset", rng.randint(0, 9)),
                ("step", channels + rng.randint(0, 5)),
            )
        }

        # Input, operand and output, one behind the other; what lies between them must stay as it is.
        in_rows, in_bytes = first["in_row"] + in_height, first["in_offset"] + in_width * first["in_step"]
        out_bytes = first["out_offset"] + windows["width"] * first["out_step"]
        self._end = rng.randint(0, 5)
        in_base, in_pitch = self.place(in_rows, in_bytes)
        operand_base, operand_pitch = self.place(in_rows, in_bytes)
        out_base, out_pitch = self.place(first["out_row"] + windows["height"], out_bytes)
        assert self._end <= config.bank_words, "the scratchpad is too small for random tensors"
        if source == Source.ACCUMULATOR:
            in_pitch = in_width + rng.randint(0, 2) * (in_height * (in_width + 2) <= config.accumulator_depth)

        if combine in OPERAND_STAGES:
            bits = INT8_BITS + ADD_LEFT_SHIFT if combine == Combine.ADD else 2 * INT8_BITS
            self.add_combine(operand_base, operand_pitch, bits)
        if combine == Combine.TABLE:
            self.add_tables()
        places = {"in_base": in_base, "in_pitch": in_pitch, "out_base": out_base, "out_pitch": out_pitch}
        modes = {"source": source, "combine": combine, "pool": pool, "params": params}
        self.commands.append(Command("DRAIN", {**windows, **first, **places, **modes, "channels": channels}))
        for _ in range(0, channels, config.cols):
            if source == Source.ACCUMULATOR:
                taken = (in_height - 1) * in_pitch + in_width
                self.add_block(rng.choice([0, taken, rng.randint(taken, config.accumulator_depth)]))
            if params != Params.UNIFORM:
                self.add_parameters(Params(params))

    def second_stages(self) -> list[Combine]:
        """What the configuration has."""
        absent = {
            Combine.ADD: not self.config.residual_add,
            Combine.MULTIPLY: not self.config.elementwise_multiply,
            Combine.TABLE: not self.config.activation_table,
        }
        return [mode for mode in Combine if not absent.get(mode, False)]

    def add_tables(self) -> None:
        """TABLEs in any order: all for the first time, later some, now and then none."""
        indices = self.rng.sample(range(16), 16 if not self.has_table else self.rng.choice([0, 1, 5, 16]))
        self.commands += [table(index, [self.rng.randint(-128, 127) for _ in range(16)]) for index in indices]
        self.has_table = True

    def windows(self, is_pooled: bool) -> tuple[dict[str, int], int, int]:
        """Operands for outputs and their windows, and height and width of the input, which fits the accumulators."""
        rng = self.rng
        while True:
            height, width = rng.randint(1, 4), rng.randint(1, 5)
            pool_height, pool_width = (rng.randint(1, 3), rng.randint(1, 3)) if is_pooled else (1, 1)
            y_step, x_step = rng.randint(1, 3), rng.randint(1, 3)
            if is_pooled and rng.random() < 0.15:
                height, width, pool_height, pool_width = 1, 1, rng.randint(4, 6), rng.randint(4, 6)
            in_height, in_width = (height - 1) * y_step + pool_height, (width - 1) * x_step + pool_width
            if in_height * in_width <= self.config.accumulator_depth:
                break
        operands = {
            "height": height, "width": width, "pool_height": pool_height, "pool_width": pool_width,
            "pool_y_step": y_step, "pool_x_step": x_step,
        }  # fmt: skip
        return operands, in_height, in_width

    def place(self, rows: int, row_bytes: int) -> tuple[int, int]:
        """Base and pitch of a tensor behind the last one."""
        base, pitch = self._end, -(-row_bytes // self.config.rows) + self.rng.randint(0, 2)
        self._end += -(-rows // BANKS) * pitch + self.rng.randint(0, 5)
        return base, pitch

    def add_combine(self, operand_base: int, operand_pitch: int, bits: int) -> None:
        """A COMBINE with the operand tensor there, for sums or products of so many bits."""
        rng = self.rng
        multiplier_a, shift_a = self.scale(INT8_BITS, max_shift=0)
        multiplier_b, shift_b = self.scale(INT8_BITS, max_shift=0)
        operands = {
            "operand_base": operand_base, "operand_pitch": operand_pitch,
            "multiplier_a": multiplier_a, "shift_a": shift_a, "zero_a": rng.randint(-30, 30),
            "multiplier_b": multiplier_b, "shift_b": shift_b, "zero_b": rng.randint(-30, 30),
        }  # fmt: skip
        operands = self.requantize(operands, bits)
        self.commands.append(Command("COMBINE", operands))

    def add_block(self, made: int = 0) -> None:
        """Sums for a whole accumulator half. made: see `DrainBench`; at least as many as are taken."""
        self.made.append(made)
        shape = (self.config.accumulator_depth, self.config.cols)
        self.blocks.append(np.array([[self.sum32() for _ in range(shape[1])] for _ in range(shape[0])], np.int64))

    def add_parameters(self, params: Params) -> None:
        scales = [self.scale(self.bits) for _ in range(self.config.cols)]
        block = BlockParameters(
            bias=np.array([self.sum32() for _ in scales], np.int64),
            multiplier=np.array([multiplier for multiplier, _ in scales], np.int64),
            shift=np.array([shift for _, shift in scales], np.int64),
        )
        self.parameters.append((block, params))

    def run(self, patience: float = 1.0, write_patience: float = 1.0, writes_after: int = 0) -> DrainBench:
        """On the unit, comparing the whole scratchpad with the model's whenever a command is done.

        Commands behind it that may begin before it is done may have written already.
        """
        before = random_memory(self.config, self.rng)
        model = DrainModel(self.config, before.copy(), iter(self.blocks), iter([block for block, _ in self.parameters]))
        states = [before.copy()]

        def compare(finished: int) -> None:
            is_wrong = np.ones(before.shape, bool)
            for count in range(finished, finished + self._ahead(finished) + 1):
                if len(states) == count:
                    model.execute(self.commands[count - 1])
                    states.append(model.memory.copy())
                is_wrong &= bench.memory != states[count]
                if not is_wrong.any():
                    return
            wrong, command = np.argwhere(is_wrong), self.commands[finished - 1]
            raise AssertionError(f"command {finished - 1} ({command}): {len(wrong)} bytes differ, first {wrong[0]}")

        bench = DrainBench(
            self.config,
            before,
            self.rng,
            self.blocks,
            self.parameters,
            patience=patience,
            write_patience=write_patience,
            writes_after=writes_after,
            made=self.made,
            on_done=compare,
        )
        bench.run(self.commands)
        return bench

    def _ahead(self, finished: int) -> int:
        """How many commands behind the first `finished` need not wait for these (docs/microarchitecture.md, Drain)."""
        modes = [command["combine"] for command in self.commands[:finished] if command.mnemonic == "DRAIN"]
        mode = modes[-1] if modes else Combine.NONE
        following = self.commands[finished : finished + COMMANDS_IN_UNIT]
        for count, command in enumerate(following):
            is_drain = command.mnemonic == "DRAIN"
            reads = is_drain and (command["source"] == Source.SCRATCHPAD or command["combine"] in OPERAND_STAGES)
            waits = command.mnemonic == "COMBINE" or (command.mnemonic == "TABLE" and mode == Combine.TABLE)
            if waits or reads or (is_drain and command["combine"] != mode):
                return count
        return len(following)
