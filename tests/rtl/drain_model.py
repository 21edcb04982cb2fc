# SPDX-License-Identifier: Apache-2.0
"""What the commands of the drain do, written from the command set and docs/microarchitecture.md, on NumPy arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.command import Command
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import BY_MNEMONIC, Combine, Params, Pool, Source
from loomwork.arch.numerics import ADD_LEFT_SHIFT, Rounding, requantize, to_int8, wrap_int32


@dataclass(frozen=True)
class BlockParameters:
    """Requantization parameters of one block: `[cols]` each."""

    bias: NDArray[np.int64]
    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]

    def words(self, params: Params) -> list[list[int]]:
        """As they come in the stream: words of `cols` bytes."""
        stream = self.bias.astype("<i4").tobytes()
        if params is Params.PER_CHANNEL:
            stream += self.multiplier.astype("<i4").tobytes() + self.shift.astype("i1").tobytes()
        cols = len(self.bias)
        return [list(stream[at : at + cols]) for at in range(0, len(stream), cols)]


def unset(mnemonic: str) -> Command:
    """Settings after reset."""
    return Command(mnemonic, {item.name: 0 for item in BY_MNEMONIC[mnemonic].operands})


@dataclass
class DrainModel:
    """State of scratchpad and settings. table: entries by the value that they stand for.

    memory: `[BANKS, bytes of a bank] uint8`. blocks: accumulators `[pixels, cols] int32` of the blocks to come.
    parameters: those of the blocks to come.
    """

    config: Config
    memory: NDArray[np.uint8]
    blocks: Iterator[NDArray[np.int64]]
    parameters: Iterator[BlockParameters]
    requant: Command = field(default_factory=lambda: unset("REQUANT"))
    combine: Command = field(default_factory=lambda: unset("COMBINE"))
    table: dict[int, int] = field(default_factory=dict[int, int])

    def execute(self, command: Command) -> None:
        """Carry out one command."""
        if command.mnemonic == "REQUANT":
            self.requant = command
        elif command.mnemonic == "COMBINE":
            self.combine = command
        elif command.mnemonic == "TABLE":
            for number in range(16):
                self.table[16 * command["index"] + number - 128] = command[f"entry_{number}"]
        else:
            self._drain(command)

    def _bytes(self, base: int, pitch: int, row: int, first: int, count: int) -> NDArray[np.uint8]:
        start = (base + row // BANKS * pitch) * self.config.rows + first
        return self.memory[row % BANKS, start : start + count]

    def _drain(self, drain: Command) -> None:
        cols = self.config.cols
        window = list(product(range(drain["pool_height"]), range(drain["pool_width"])))
        for first in range(0, drain["channels"], cols):
            count = min(cols, drain["channels"] - first)
            block = next(self.blocks) if drain["source"] == Source.ACCUMULATOR else None
            parameters = next(self.parameters) if drain["params"] != Params.UNIFORM else None
            for oy in range(drain["height"]):
                for ox in range(drain["width"]):
                    values: list[NDArray[np.int64]] = []
                    operands: list[NDArray[np.int64]] = []
                    for py, px in window:
                        y, x = oy * drain["pool_y_step"] + py, ox * drain["pool_x_step"] + px
                        byte = drain["in_offset"] + x * drain["in_step"] + first
                        row = drain["in_row"] + y
                        if block is not None:
                            values.append(block[y * drain["in_pitch"] + x, :count])
                        else:
                            data = self._bytes(drain["in_base"], drain["in_pitch"], row, byte, count)
                            values.append(data.view(np.int8).astype(np.int64))
                        if drain["combine"] in (Combine.ADD, Combine.MULTIPLY):
                            base, pitch = self.combine["operand_base"], self.combine["operand_pitch"]
                            operands.append(self._bytes(base, pitch, row, byte, count).view(np.int8).astype(np.int64))
                    if drain["pool"] == Pool.SUM:
                        values = [wrap_int32(np.sum(values, axis=0))]
                    finished = [
                        self._finish(drain, value, operands[index] if operands else None, parameters)
                        for index, value in enumerate(values)
                    ]
                    out = drain["out_offset"] + ox * drain["out_step"] + first
                    target = self._bytes(drain["out_base"], drain["out_pitch"], drain["out_row"] + oy, out, count)
                    target[:] = np.max(finished, axis=0).view(np.uint8)

    def _finish(
        self,
        drain: Command,
        value: NDArray[np.int64],
        operand: NDArray[np.int64] | None,
        parameters: BlockParameters | None,
    ) -> NDArray[np.int8]:
        """Stages 2 and 3, for one pixel."""
        result = self._requantize(drain, value, parameters)
        if drain["combine"] == Combine.TABLE:
            return np.array([self.table[int(entry)] for entry in result], np.int8)
        return result if operand is None else self._combine(drain, result, operand)

    def _requantize(
        self, drain: Command, value: NDArray[np.int64], parameters: BlockParameters | None
    ) -> NDArray[np.int8]:
        requant, channels = self.requant, slice(0, len(value))
        bias, multiplier, shift = requant["bias"], requant["multiplier"], requant["shift"]
        if parameters is not None:
            bias = parameters.bias[channels]
            if drain["params"] == Params.PER_CHANNEL:
                multiplier, shift = parameters.multiplier[channels], parameters.shift[channels]
        value = requantize(wrap_int32(value + bias), multiplier, shift, Rounding(requant["rounding"]))
        return to_int8(value, requant["zero_point"], requant["minimum"], requant["maximum"])

    def _combine(self, drain: Command, result: NDArray[np.int8], operand: NDArray[np.int64]) -> NDArray[np.int8]:
        combine = self.combine
        rounding = Rounding(combine["rounding"])
        a, b = result.astype(np.int64) - combine["zero_a"], operand - combine["zero_b"]
        if drain["combine"] == Combine.MULTIPLY:
            value = a * b
        else:
            value = requantize(a << ADD_LEFT_SHIFT, combine["multiplier_a"], combine["shift_a"], rounding)
            rescaled = requantize(b << ADD_LEFT_SHIFT, combine["multiplier_b"], combine["shift_b"], rounding)
            value = wrap_int32(value + rescaled)
        value = requantize(value, combine["multiplier"], combine["shift"], rounding)
        return to_int8(value, combine["zero_point"], combine["minimum"], combine["maximum"])
