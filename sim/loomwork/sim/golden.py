# SPDX-License-Identifier: Apache-2.0
"""Golden model: executes encoded commands, in program order, on NumPy memories, for many images at once.

It knows the command set and nothing of compiler or RTL; where they disagree, this says who is right. Every
command's effect is carried out whole before the next: with correct tickets the hardware can show no other result.

Besides what stops the hardware (`ErrorCode`), it refuses what would make the hardware hang (WATCHDOG: a stream that
runs out or is left over, accumulators that nobody fills or takes, a ticket that never comes), and what makes it use
values that no program can mean: a DRAIN that disagrees with its CONVOLVE (or DEPTHWISE) about the parameters
(ILLEGAL_OPERAND), a SKIP whose last pass the command behind it does not have (ILLEGAL_OPERAND), or a DRAIN that takes
pixels behind the tile, where the hardware stops only behind `accumulator_depth` (SCRATCHPAD).
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from loomwork.arch.command import Command, decode
from loomwork.arch.config import Config
from loomwork.arch.isa import (
    BY_MNEMONIC,
    COMMAND_BYTES,
    TICKET_BITS,
    WRITABLE_WINDOWS,
    Combine,
    IsaError,
    Params,
    Source,
    Unit,
    Window,
)
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.registers import ErrorCode
from loomwork.sim.backend import RunError, StepStatistics
from loomwork.sim.golden_array import convolve, convolve_depthwise
from loomwork.sim.golden_drain import ActivationTable, check_drain, check_table, combine_and_pool, pixel_grid
from loomwork.sim.golden_memory import Bytes, Integers, Scratchpad, StopError, WeightStream


class GoldenError(RunError):
    """Execution stopped.

    code: as in register ERROR_CODE. offset: of the command in window COMMANDS, in bytes. command: its mnemonic.
    """

    def __init__(self, code: ErrorCode, offset: int, command: str, message: str) -> None:
        what = "can never go on" if code is ErrorCode.WATCHDOG else "cannot be executed"
        super().__init__(f"command at byte {offset} ({command}) {what} ({code.name}): {message}")
        self.code = code
        self.offset = offset


@dataclass(frozen=True)
class _Block:
    """One accumulator half: `values [images, pixels, cols]` and the parameters that came behind the weights."""

    values: Integers
    params: Params
    words: Bytes


class Golden:
    """An engine of one configuration. Nothing is kept from one `run` to the next."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def run(self, step: AcceleratorStep, inputs: Bytes, output_bytes: int) -> Bytes:
        """Execute a step for each image.

        inputs: `[images, bytes]`, contents of the INPUTS window. output_bytes: size of the OUTPUTS window.
        Returns the OUTPUTS window, `[images, output_bytes]`; what no STORE writes is 0. Raises GoldenError.
        """
        images = len(inputs)
        windows = {
            Window.COMMANDS: np.frombuffer(step.commands, dtype=np.uint8)[np.newaxis],
            Window.CONSTANTS: np.frombuffer(step.constants, dtype=np.uint8)[np.newaxis],
            Window.INPUTS: inputs,
            Window.OUTPUTS: np.zeros((images, output_bytes), dtype=np.uint8),
            Window.WORKSPACE: np.zeros((images, step.workspace_bytes), dtype=np.uint8),
        }
        _Run(self._config, windows, images).execute(step.commands)
        return windows[Window.OUTPUTS]


class GoldenBackend:
    """The golden model as a backend of `run_program`."""

    def run_step(
        self, config: Config, step: AcceleratorStep, inputs: Bytes, output_bytes: int
    ) -> tuple[Bytes, list[StepStatistics]]:
        """Run one step for each image; see `Backend`. There is no clock, so the statistics are empty."""
        return Golden(config).run(step, inputs, output_bytes), [StepStatistics() for _ in inputs]


class _Run:
    """State of the engine while it executes one program for `images` images."""

    def __init__(self, config: Config, windows: dict[Window, Bytes], images: int) -> None:
        self._config = config
        self._windows = windows
        self._scratchpad = Scratchpad(config, images)
        self._stream = WeightStream()
        self._blocks: deque[_Block] = deque()
        self._settings = {
            mnemonic: Command(mnemonic, {item.name: 0 for item in BY_MNEMONIC[mnemonic].operands})
            for mnemonic in ("REQUANT", "COMBINE")
        }
        self._table = ActivationTable()
        self._skip: Command | None = None
        self._finished = dict.fromkeys(Unit, 0)

    def execute(self, commands: bytes) -> None:
        """Run to END. Raises GoldenError."""
        actions = {
            "LOAD": self._load,
            "STREAM": self._stream_in,
            "CONVOLVE": self._convolve,
            "DEPTHWISE": self._depthwise,
            "SKIP": self._skip_passes,
            "REQUANT": self._set,
            "COMBINE": self._set,
            "TABLE": self._set_table,
            "DRAIN": self._drain,
            "STORE": self._store,
        }
        for offset in range(0, len(commands), COMMAND_BYTES):
            name = "not a command"
            try:
                command = _decode(commands[offset : offset + COMMAND_BYTES])
                name = command.mnemonic
                self._check_tickets(command)
                if command.mnemonic == "END":
                    self._check_empty()
                    return
                actions[command.mnemonic](command)
            except StopError as stop:
                raise GoldenError(stop.code, offset, name, stop.message) from None
            self._finished[command.insn.unit] += 1
        raise GoldenError(ErrorCode.WINDOW, len(commands), "missing", "the program ends without END")

    def _check_tickets(self, command: Command) -> None:
        for unit, ticket in command.waits.items():
            ahead = (self._finished[unit] - ticket) % (1 << TICKET_BITS)
            if ahead >= 1 << (TICKET_BITS - 1):
                raise StopError(
                    ErrorCode.WATCHDOG,
                    f"it waits for ticket {ticket} of {unit.name}, which has finished {self._finished[unit]} commands",
                )

    def _set(self, command: Command) -> None:
        self._settings[command.mnemonic] = command

    def _set_table(self, command: Command) -> None:
        check_table(self._config)
        self._table.set(command)

    def _check_empty(self) -> None:
        if self._stream:
            raise StopError(ErrorCode.WATCHDOG, f"{len(self._stream)} words of weights are left in the stream")
        if self._blocks:
            raise StopError(ErrorCode.WATCHDOG, f"{len(self._blocks)} blocks are left in the accumulators")

    # Transfers

    def _load(self, command: Command) -> None:
        window = self._windows[Window(command["window"])]
        outside, row, byte = self._transfer(command)
        self._scratchpad.write(command["base"], command["pitch"], row, byte, window[:, outside])

    def _store(self, command: Command) -> None:
        window = Window(command["window"])
        if window not in WRITABLE_WINDOWS:
            raise StopError(ErrorCode.WINDOW, f"window {window.name} is read-only")
        outside, row, byte = self._transfer(command)
        values = self._scratchpad.read(command["base"], command["pitch"], row, byte)
        self._windows[window][:, outside] = values.view(np.uint8)

    def _transfer(self, command: Command) -> tuple[Integers, Integers, Integers]:
        """Byte addresses in the window `[rows, bytes per row]`; image rows `[rows, 1]`; bytes in them."""
        byte = np.arange(command["words"] * self._config.rows)
        rows = np.arange(command["rows"])[:, np.newaxis]
        outside = command["offset"] + rows * command["row_stride"] + byte
        self._check_window(command, int(outside.max()) + 1)
        if command["row_stride"] % self._config.bus_bytes:
            raise StopError(ErrorCode.WINDOW, f"row stride {command['row_stride']} is not a multiple of the bus width")
        return outside, command["row"] + rows, byte

    def _check_window(self, command: Command, end: int) -> None:
        window = Window(command["window"])
        size = self._windows[window].shape[1]
        if command["offset"] % self._config.bus_bytes:
            raise StopError(ErrorCode.WINDOW, f"offset {command['offset']} is not a multiple of the bus width")
        if end > size:
            raise StopError(ErrorCode.WINDOW, f"bytes up to {end} of window {window.name}, which has {size}")

    # Weights

    def _stream_in(self, command: Command) -> None:
        bus, size = self._config.bus_bytes, command["words"] * self._config.cols
        self._check_window(command, command["offset"] + -(-size // bus) * bus)
        data = self._windows[Window(command["window"])]
        if len(data) > 1 and np.any(data != data[0]):
            raise StopError(ErrorCode.ILLEGAL_OPERAND, "weights that differ from image to image; run them one by one")
        self._stream.put(data[0, command["offset"] : command["offset"] + size].reshape(-1, self._config.cols))

    # Array

    def _convolve(self, command: Command) -> None:
        self._fill(command, *convolve(command, self._skip, self._config, self._scratchpad, self._stream))

    def _depthwise(self, command: Command) -> None:
        self._fill(command, *convolve_depthwise(command, self._skip, self._config, self._scratchpad, self._stream))

    def _skip_passes(self, command: Command) -> None:
        if not self._config.block_sparsity:
            raise StopError(ErrorCode.ILLEGAL_OPERAND, f"configuration {self._config.name} is built without SKIP")
        self._skip = command

    def _fill(self, command: Command, sums: list[Integers], words: Bytes) -> None:
        """Put the sums of all blocks and their parameters into accumulator halves."""
        self._skip = None
        params = Params(command["params"])
        for values, own in zip(sums, words, strict=True):
            # A sum of all passes wraps to the same 32 bits as the sum that wraps after each.
            self._blocks.append(_Block(values.astype(np.int32).astype(np.int64), params, own))

    # Drain

    def _drain(self, command: Command) -> None:
        check_drain(command, self._config)
        channels = np.arange(command["channels"])
        row, column = pixel_grid(command)
        byte = command["in_offset"] + column * command["in_step"] + channels
        words = np.zeros((0, 0, self._config.cols), dtype=np.uint8)
        if command["source"] == Source.SCRATCHPAD:
            values = self._scratchpad.read(command["in_base"], command["in_pitch"], command["in_row"] + row, byte)
        else:
            values, words = self._take_blocks(command, (row * command["in_pitch"] + column)[..., 0])
        operand = None
        combine = self._settings["COMBINE"]
        if Combine(command["combine"]).has_operand:
            base, pitch = combine["operand_base"], combine["operand_pitch"]
            operand = self._scratchpad.read(base, pitch, command["in_row"] + row, byte)
        table = self._table.entries() if command["combine"] == Combine.TABLE else None
        result = combine_and_pool(values, words, operand, command, self._settings["REQUANT"], combine, table)
        oy, ox = np.indices((command["height"], command["width"]))[..., np.newaxis]
        self._scratchpad.write(
            command["out_base"],
            command["out_pitch"],
            command["out_row"] + oy,
            command["out_offset"] + ox * command["out_step"] + channels,
            result.view(np.uint8),
        )

    def _take_blocks(self, command: Command, pixel: Integers) -> tuple[Integers, Bytes]:
        """Values `[images, *pixel.shape, channels]` of the next blocks and their parameters `[blocks, words, cols]`."""
        count = -(-command["channels"] // self._config.cols)
        if len(self._blocks) < count:
            raise StopError(ErrorCode.WATCHDOG, f"it needs {count} blocks, the accumulators have {len(self._blocks)}")
        blocks = [self._blocks.popleft() for _ in range(count)]
        if any(block.params != command["params"] for block in blocks):
            raise StopError(ErrorCode.ILLEGAL_OPERAND, "DRAIN and CONVOLVE disagree about the parameters")
        highest = int(pixel.max())
        if highest >= blocks[0].values.shape[1]:
            raise StopError(ErrorCode.SCRATCHPAD, f"pixel {highest} of a tile of {blocks[0].values.shape[1]}")
        values = np.concatenate([block.values[:, pixel] for block in blocks], axis=-1)
        return values[..., : command["channels"]], np.stack([block.words for block in blocks])


def _decode(data: bytes) -> Command:
    try:
        return decode(data)
    except IsaError as error:
        unknown = str(error).startswith("opcode")
        raise StopError(ErrorCode.ILLEGAL_OPCODE if unknown else ErrorCode.ILLEGAL_OPERAND, str(error)) from error
