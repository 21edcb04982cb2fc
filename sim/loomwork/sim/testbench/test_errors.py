# SPDX-License-Identifier: Apache-2.0
"""Everything that stops the engine: the right code and command, nothing written outside, recovery by soft reset."""

import random
from collections.abc import Callable
from dataclasses import replace

import cocotb
from cocotb.triggers import ClockCycles

from loomwork.arch.command import Command, encode
from loomwork.arch.config import Config
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, Combine, Params, Pool, Source, Unit, Window
from loomwork.arch.registers import ErrorCode
from loomwork.sim.testbench.environment import Bench, Dut
from loomwork.sim.testbench.programs import TestProgram, copy_program

PAUSES = (0, 40)


def with_operand(command: Command, **operands: int) -> Command:
    """The same command with other operands."""
    return replace(command, operands={**command.operands, **operands})


def smallest(mnemonic: str) -> Command:
    """A command with every operand as near to 0 as it may be."""
    return Command(mnemonic, {item.name: max(item.low, 0) for item in BY_MNEMONIC[mnemonic].operands})


def encoded(commands: list[Command]) -> bytearray:
    """The bytes of a program, to be damaged."""
    return bytearray(b"".join(map(encode, commands)))


async def check_recovery(bench: Bench) -> None:
    """Nothing outside the windows was touched; after a soft reset a good program runs."""
    bench.memory.check_guards()
    bench.memory.failing.clear()
    await bench.soft_reset()
    program = copy_program(bench.config, bench.random)
    assert await bench.run(program.commands, program.windows) == program.inputs


async def stops(
    dut: Dut,
    pause_percent: int,
    damage: Callable[[Bench, TestProgram], tuple[bytes | list[Command], ErrorCode, int]],
) -> None:
    """Run a copy program that was damaged; check the error, the guards and the recovery."""
    bench = await Bench.create(dut, pause_percent=pause_percent)
    for _ in range(3):
        program = copy_program(bench.config, bench.random)
        commands, code, offset = damage(bench, program)
        await bench.load(commands, program.windows)
        await bench.start()
        await bench.expect_error(code, offset)
        await ClockCycles(dut.clk, 100)
        await check_recovery(bench)


@cocotb.test()
@cocotb.parametrize(pause_percent=PAUSES)
async def illegal_opcode(dut: Dut, pause_percent: int) -> None:
    """An opcode without a command."""

    def damage(bench: Bench, program: TestProgram) -> tuple[bytes, ErrorCode, int]:
        data = encoded(program.commands)
        data[COMMAND_BYTES] = data[COMMAND_BYTES] & 0xF0 | bench.random.choice((0, 9, 15))
        return bytes(data), ErrorCode.ILLEGAL_OPCODE, COMMAND_BYTES

    await stops(dut, pause_percent, damage)


@cocotb.test()
async def illegal_operand(dut: Dut) -> None:
    """An operand below its minimum, and bits set behind the last one."""

    def damage(bench: Bench, program: TestProgram) -> tuple[bytes, ErrorCode, int]:
        data = encoded(program.commands)
        if bench.random.random() < 0.5:
            data[2 * COMMAND_BYTES - 1] |= 0x80
        else:
            insn = BY_MNEMONIC["STORE"]
            low = insn.offsets["rows"]
            word = int.from_bytes(data[COMMAND_BYTES : 2 * COMMAND_BYTES], "little")
            word &= ~(((1 << 12) - 1) << low)
            data[COMMAND_BYTES : 2 * COMMAND_BYTES] = word.to_bytes(COMMAND_BYTES, "little")
        return bytes(data), ErrorCode.ILLEGAL_OPERAND, COMMAND_BYTES

    await stops(dut, 0, damage)


@cocotb.test()
@cocotb.parametrize(pause_percent=PAUSES)
async def load_beyond_window(dut: Dut, pause_percent: int) -> None:
    """A LOAD that would read behind its window never reaches the bus."""

    def damage(bench: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        offset = bench.random.choice((bench.config.bus_bytes, 1 << 20, (1 << 32) - bench.config.bus_bytes))
        return [with_operand(program.commands[0], offset=offset), *program.commands[1:]], ErrorCode.WINDOW, 0

    await stops(dut, pause_percent, damage)


@cocotb.test()
@cocotb.parametrize(pause_percent=PAUSES)
async def store_beyond_window(dut: Dut, pause_percent: int) -> None:
    """A STORE that would write behind its window, or into one that is read-only, never reaches the bus."""

    def damage(bench: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        load, store, end = program.commands
        wrong = bench.random.choice(
            (
                with_operand(store, offset=bench.config.bus_bytes),
                with_operand(store, window=Window.INPUTS),
                with_operand(store, window=Window.COMMANDS),
            )
        )
        return [load, wrong, end], ErrorCode.WINDOW, COMMAND_BYTES

    await stops(dut, pause_percent, damage)


@cocotb.test()
async def stream_beyond_window(dut: Dut) -> None:
    """A STREAM behind its window."""

    def damage(_: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": 1})
        return [stream, *program.commands], ErrorCode.WINDOW, 0

    await stops(dut, 0, damage)


@cocotb.test()
async def program_without_end(dut: Dut) -> None:
    """A program that runs off its window stops there."""

    def damage(_: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        return program.commands[:2], ErrorCode.WINDOW, 2 * COMMAND_BYTES

    await stops(dut, 0, damage)


@cocotb.test()
async def scratchpad_overrun(dut: Dut) -> None:
    """A LOAD beyond the last scratchpad word."""

    def damage(bench: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        wrong = with_operand(program.commands[0], base=bench.config.bank_words)
        return [wrong, *program.commands[1:]], ErrorCode.SCRATCHPAD, 0

    await stops(dut, 0, damage)


@cocotb.test()
async def tile_larger_than_accumulators(dut: Dut) -> None:
    """A CONVOLVE of one pixel too many."""

    def damage(bench: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        convolve = with_operand(smallest("CONVOLVE"), tile_width=1, tile_height=bench.config.accumulator_depth + 1)
        return [convolve, *program.commands], ErrorCode.SCRATCHPAD, 0

    await stops(dut, 0, damage)


@cocotb.test()
async def more_taps_than_rows(dut: Dut) -> None:
    """A DEPTHWISE of one tap too many."""

    def damage(bench: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        depthwise = with_operand(smallest("DEPTHWISE"), taps=bench.config.depthwise_taps + 1)
        return [depthwise, *program.commands], ErrorCode.ILLEGAL_OPERAND, 0

    await stops(dut, 0, damage)


@cocotb.test()
@cocotb.parametrize(
    operands=[
        {"pool": Pool.SUM, "combine": Combine.ADD},
        {"pool": Pool.SUM, "combine": Combine.MULTIPLY},
        {"pool": Pool.NONE, "pool_width": 2},
        {"source": Source.SCRATCHPAD, "params": Params.BIAS},
    ]
)
async def operands_exclude_each_other(dut: Dut, operands: dict[str, int]) -> None:
    """A DRAIN whose operands are legal one by one."""

    def damage(_: Bench, program: TestProgram) -> tuple[list[Command], ErrorCode, int]:
        return [with_operand(smallest("DRAIN"), **operands), *program.commands], ErrorCode.ILLEGAL_OPERAND, 0

    await stops(dut, 0, damage)


@cocotb.test()
@cocotb.parametrize(pause_percent=PAUSES)
async def read_error(dut: Dut, pause_percent: int) -> None:
    """SLVERR on the data of a LOAD."""
    bench = await Bench.create(dut, pause_percent=pause_percent)
    program = copy_program(bench.config, bench.random)
    await bench.load(program.commands, program.windows)
    bench.memory.failing.add(Window.INPUTS)
    await bench.start()
    await bench.expect_error(ErrorCode.BUS_READ, 0)
    assert bench.memory.content(Window.OUTPUTS) == bytes(program.output_bytes)
    await check_recovery(bench)


@cocotb.test()
async def fetch_error(dut: Dut) -> None:
    """SLVERR on the commands themselves."""
    bench = await Bench.create(dut)
    program = copy_program(bench.config, bench.random)
    await bench.load(program.commands, program.windows)
    bench.memory.failing.add(Window.COMMANDS)
    await bench.start()
    await bench.expect_error(ErrorCode.BUS_READ, 0)
    await check_recovery(bench)


@cocotb.test()
@cocotb.parametrize(pause_percent=PAUSES)
async def write_error(dut: Dut, pause_percent: int) -> None:
    """SLVERR as the answer to a STORE."""
    bench = await Bench.create(dut, pause_percent=pause_percent)
    program = copy_program(bench.config, bench.random)
    await bench.load(program.commands, program.windows)
    bench.memory.failing.add(Window.OUTPUTS)
    await bench.start()
    await bench.expect_error(ErrorCode.BUS_WRITE, COMMAND_BYTES)
    await check_recovery(bench)


@cocotb.test()
async def watchdog(dut: Dut) -> None:
    """A program whose tickets never come is stopped by the watchdog."""
    bench = await Bench.create(dut)
    program = copy_program(bench.config, bench.random)
    load, store, end = program.commands
    await bench.load([load, replace(store, waits={Unit.EXECUTE: 1}), end], program.windows)
    await bench.write("WATCHDOG", 500)
    await bench.start()
    await bench.wait()
    assert ErrorCode(await bench.read("ERROR_CODE")) is ErrorCode.WATCHDOG
    await bench.write("WATCHDOG", 0)
    await check_recovery(bench)


@cocotb.test()
@cocotb.parametrize(pause_percent=PAUSES)
async def abort(dut: Dut, pause_percent: int) -> None:
    """A soft reset in the middle of a program, at any moment, leaves the bus in order and the engine usable."""
    bench = await Bench.create(dut, pause_percent=pause_percent)
    generator = random.Random(bench.random.random())
    for _ in range(12):
        program = long_copy(bench.config, generator)
        await bench.load(program.commands, program.windows)
        await bench.start()
        await ClockCycles(dut.clk, generator.randint(1, 300))
        await check_recovery(bench)


def long_copy(config: Config, generator: random.Random) -> TestProgram:
    """A copy program that repeats its transfers, so that there is time to interrupt it."""
    program = copy_program(config, generator)
    load, store, end = program.commands
    return replace(program, commands=[load, store] * 10 + [end])
