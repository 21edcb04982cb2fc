# SPDX-License-Identifier: Apache-2.0
"""The command set read literally: one value at a time, in Python integers."""

from collections.abc import Iterator
from itertools import count, product

from loomwork.arch.command import Command
from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Params, Pool, Source, Window
from loomwork.arch.reduction import passes

Address = tuple[int, int]
"""Bank, and byte in it."""


class ScalarEngine:
    """Executes commands on `windows`, which it changes. Memory that nothing wrote reads as 0."""

    def __init__(self, config: Config, windows: dict[Window, bytearray]) -> None:
        self.config = config
        self.windows = windows
        self.memory: dict[Address, int] = {}
        self.stream: list[bytes] = []
        self.blocks: list[tuple[dict[tuple[int, int], int], list[bytes]]] = []
        self.settings: dict[str, Command] = {}
        self.table: dict[int, int] = {}

    def run(self, commands: list[Command]) -> None:
        for command in commands:
            match command.mnemonic:
                case "LOAD":
                    for outside, inside in self._transfer(command):
                        self.memory[inside] = self.windows[Window(command["window"])][outside]
                case "STORE":
                    for outside, inside in self._transfer(command):
                        self.windows[Window(command["window"])][outside] = self.memory.get(inside, 0)
                case "STREAM":
                    data = self.windows[Window(command["window"])]
                    for word in range(command["words"]):
                        start = command["offset"] + word * self.config.cols
                        self.stream.append(bytes(data[start : start + self.config.cols]))
                case "CONVOLVE":
                    for block in range(command["blocks"]):
                        self._convolve(command, block)
                    self.settings.pop("SKIP", None)
                case "DEPTHWISE":
                    for block in range(command["blocks"]):
                        self._depthwise(command, block)
                    self.settings.pop("SKIP", None)
                case "DRAIN":
                    self._drain(command)
                case "TABLE":
                    for number in range(16):
                        self.table[16 * command["index"] + number - 128] = command[f"entry_{number}"]
                case _:
                    self.settings[command.mnemonic] = command

    def _address(self, base: int, pitch: int, row: int, byte: int) -> Address:
        return row % 4, (base + row // 4 * pitch) * self.config.rows + byte

    def _value(self, base: int, pitch: int, row: int, byte: int) -> int:
        return _signed(self.memory.get(self._address(base, pitch, row, byte), 0))

    @staticmethod
    def _in_ring(c: Command, row: int) -> int:
        """The row whose place holds `row` of the input of a CONVOLVE or DEPTHWISE."""
        return row - 4 * c["ring"] if c["ring"] and row // 4 >= c["ring"] else row

    def _transfer(self, c: Command) -> Iterator[tuple[int, Address]]:
        for row, byte in product(range(c["rows"]), range(c["words"] * self.config.rows)):
            yield c["offset"] + row * c["row_stride"] + byte, self._address(c["base"], c["pitch"], c["row"] + row, byte)

    def _weights(self, number: int) -> list[bytes]:
        """The weight tile of pass `number` of a block: from the stream, or zeros where a SKIP leaves it out."""
        skip = self.settings.get("SKIP")
        rows = self.config.rows
        if skip and number != skip["last"]:
            bits = f"{skip[f'mask_{number // 32}']:032b}"[::-1] if number < 192 else "0" * 32
            if number > skip["last"] or bits[number % 32] == "1":
                return [bytes(self.config.cols)] * rows
        return [self.stream.pop(0) for _ in range(rows)]

    def _convolve(self, c: Command, block: int) -> None:
        numbers = count()
        pixels = list(product(range(c["tile_height"]), range(c["tile_width"])))
        sums = {(pixel, column): 0 for pixel in range(len(pixels)) for column in range(self.config.cols)}
        for tap in range(c["tap_count"]):
            for segments in passes(self.config.rows, c["kernel_rows"], c["length"], c["row_step"]):
                weights = self._weights(next(numbers))
                for pixel, (oy, ox) in enumerate(pixels):
                    activations = [c["pad"]] * self.config.rows
                    for segment in segments:
                        row = c["y_start"] + oy * c["y_step"] + segment.kernel_row * c["row_step"]
                        start = c["x_start"] + block * c["block_step"] + tap * c["tap_step"] + ox * c["x_step"]
                        for i in range(segment.length):
                            byte = start + segment.start + i
                            if 0 <= row < c["height"] and 0 <= byte < c["row_bytes"]:
                                activations[segment.row + i] = self._value(
                                    c["base"], c["pitch"], self._in_ring(c, row), byte
                                )
                    for column in range(self.config.cols):
                        for activation, word in zip(activations, weights, strict=True):
                            sums[pixel, column] += activation * _signed(word[column])
        self._end_block(c, sums)

    def _depthwise(self, c: Command, block: int) -> None:
        """Array row `taps_per_row * g + k` of a pass holds column `k` of its kernel row `g`."""
        rows, cols = self.config.rows, self.config.cols
        taps_per_row = {2: 2, 4: 4, 8: 4, 16: 4, 32: 8, 64: 16}[rows]
        kernel_rows_per_pass = min(rows // taps_per_row, {0: 1, 2: 2}.get(c["row_step"] % 4, 4))
        numbers = count()
        pixels = list(product(range(c["tile_height"]), range(c["tile_width"])))
        sums = {(pixel, column): 0 for pixel in range(len(pixels)) for column in range(cols)}
        for group in range(c["tap_count"]):
            weights: list[bytes] = []
            for ky in range(c["kernel_rows"]):
                place = ky % kernel_rows_per_pass
                if place == 0:
                    weights = self._weights(next(numbers))
                for (pixel, (oy, ox)), k, column in product(enumerate(pixels), range(c["taps"]), range(cols)):
                    row = c["y_start"] + oy * c["y_step"] + ky * c["row_step"]
                    byte = c["x_start"] + block * c["block_step"] + group * c["tap_step"]
                    byte += (ox * c["x_stride"] + k) * c["x_step"] + column
                    inside = 0 <= row < c["height"] and 0 <= byte < c["row_bytes"]
                    value = self._value(c["base"], c["pitch"], self._in_ring(c, row), byte) if inside else c["pad"]
                    sums[pixel, column] += value * _signed(weights[taps_per_row * place + k][column])
        self._end_block(c, sums)

    def _end_block(self, c: Command, sums: dict[tuple[int, int], int]) -> None:
        words = {Params.UNIFORM: 0, Params.BIAS: 4, Params.PER_CHANNEL: 9}[Params(c["params"])]
        self.blocks.append((sums, [self.stream.pop(0) for _ in range(words)]))

    def _drain(self, c: Command) -> None:
        cols = self.config.cols
        count = -(-c["channels"] // cols) if c["source"] == Source.ACCUMULATOR else 0
        blocks = [self.blocks.pop(0) for _ in range(count)]
        for oy, ox, channel in product(range(c["height"]), range(c["width"]), range(c["channels"])):
            block, column = divmod(channel, cols)
            values: list[int] = []
            operands: list[int] = []
            for py, px in product(range(c["pool_height"]), range(c["pool_width"])):
                y, x = oy * c["pool_y_step"] + py, ox * c["pool_x_step"] + px
                row, byte = c["in_row"] + y, c["in_offset"] + x * c["in_step"] + channel
                if blocks:
                    values.append(blocks[block][0][y * c["in_pitch"] + x, column])
                else:
                    values.append(self._value(c["in_base"], c["in_pitch"], row, byte))
                if c["combine"] in (Combine.ADD, Combine.MULTIPLY):
                    combine = self.settings["COMBINE"]
                    operands.append(self._value(combine["operand_base"], combine["operand_pitch"], row, byte))
            if c["pool"] == Pool.SUM:
                values = [sum(values)]
            params = b"".join(blocks[block][1]) if blocks else b""
            results = [
                self._finish(c, value, params, column, operands[i] if operands else 0) for i, value in enumerate(values)
            ]
            place = self._address(
                c["out_base"], c["out_pitch"], c["out_row"] + oy, c["out_offset"] + ox * c["out_step"] + channel
            )
            self.memory[place] = max(results) & 0xFF

    def _finish(self, c: Command, value: int, params: bytes, column: int, operand: int) -> int:
        """Bias, requantization and second stage of one value. params: the block's, laid end to end."""
        cols, requant = self.config.cols, self.settings["REQUANT"]
        bias, multiplier, shift = requant["bias"], requant["multiplier"], requant["shift"]
        if params:
            bias = int.from_bytes(params[4 * column :][:4], "little", signed=True)
        if len(params) == 9 * cols:
            multiplier = int.from_bytes(params[4 * cols + 4 * column :][:4], "little", signed=True)
            shift = _signed(params[8 * cols + column])
        scaled = _requantize(_wrap(value + bias), multiplier, shift, requant["rounding"])
        if c["combine"] == Combine.NONE:
            return _clamp(scaled, requant)
        if c["combine"] == Combine.TABLE:
            return self.table[_clamp(scaled, requant)]
        combine = self.settings["COMBINE"]
        rounding = combine["rounding"]
        a, b = _clamp(scaled, requant) - combine["zero_a"], operand - combine["zero_b"]
        if c["combine"] == Combine.MULTIPLY:
            return _clamp(_requantize(a * b, combine["multiplier"], combine["shift"], rounding), combine)
        scaled = _requantize(a << 20, combine["multiplier_a"], combine["shift_a"], rounding)
        scaled += _requantize(b << 20, combine["multiplier_b"], combine["shift_b"], rounding)
        return _clamp(_requantize(_wrap(scaled), combine["multiplier"], combine["shift"], rounding), combine)


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _wrap(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _clamp(value: int, setting: Command) -> int:
    return min(max(value + setting["zero_point"], setting["minimum"]), setting["maximum"])


def _requantize(value: int, multiplier: int, shift: int, rounding: int) -> int:
    product_ = _wrap(value << max(shift, 0)) * multiplier
    right = max(-shift, 0)
    if rounding == 1:
        # Once, half to even.
        unit = 1 << (31 + right)
        quotient, rest = divmod(product_, unit)
        return quotient + (2 * rest > unit or (2 * rest == unit and quotient % 2 == 1))
    # To the nearest, half up; then to the nearest, half away from zero.
    high = (product_ + (1 << 30)) >> 31
    magnitude = (2 * abs(high) + (1 << right)) >> (right + 1)
    return magnitude if high >= 0 else -magnitude
