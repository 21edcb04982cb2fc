# SPDX-License-Identifier: Apache-2.0
"""Everything that stops the compact core: which error at which command, what stays untouched, and what runs then."""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from loomwork.arch.command import Command, decode, encode
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, Combine, IsaError, Params, Pool, Source, Unit, Window
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.reduction import depthwise_passes, passes
from loomwork.arch.registers import ErrorCode
from loomwork.sim.golden import Golden, GoldenError
from loomwork.sim.testbench.commands import Map, transfer
from loomwork.sim.testbench.programs import TestProgram, copy_program
from tests.rtl.compact.machines import BARE, EIGHT, FOUR, Machine, Stop, machine

FINE = Stop(ErrorCode.NONE, 0)
WATCHDOG = 60_000
GARBAGE = random.Random(11).randbytes(256 << 10)
"""What lies in the external memory where no window has been."""


def with_operand(command: Command, **operands: int) -> Command:
    """The same command with other operands."""
    return replace(command, operands={**command.operands, **operands})


def smallest(mnemonic: str, **operands: int) -> Command:
    """A command with every other operand as near to 0 as it may be."""
    values = {item.name: max(item.low, 0) for item in BY_MNEMONIC[mnemonic].operands}
    return Command(mnemonic, {**values, **operands})


def field(mnemonic: str, name: str, value: int) -> bytes:
    """A command that `encode` refuses: one operand, or part of its header, is this, whether it may be or not."""
    insn = BY_MNEMONIC[mnemonic]
    bits = next(item.bits for item in insn.fields if item.name == name)
    word = int.from_bytes(encode(smallest(mnemonic)), "little")
    word &= ~((1 << bits) - 1 << insn.offsets[name])
    word |= (value & (1 << bits) - 1) << insn.offsets[name]
    return word.to_bytes(COMMAND_BYTES, "little")


@pytest.fixture(params=[FOUR, EIGHT], ids=["4x4", "8x8"])
def core(request: pytest.FixtureRequest) -> Iterator[Machine]:
    yield from fresh(request.param)


@pytest.fixture
def four() -> Iterator[Machine]:
    yield from fresh(FOUR)


@pytest.fixture
def bare() -> Iterator[Machine]:
    yield from fresh(BARE)


@cache
def with_garbage(config: Config) -> Machine:
    core = machine(config)
    core.link.write_memory(0, GARBAGE[: core.link.memory_bytes])
    return core


def fresh(config: Config) -> Iterator[Machine]:
    core = with_garbage(config)
    core.reset()
    core.write("WATCHDOG", WATCHDOG)
    yield core
    core.reset()


def good_program(core: Machine) -> TestProgram:
    return copy_program(core.config, random.Random(3))


def stop(core: Machine, commands: list[Command] | bytes, contents: dict[Window, bytes] | None = None) -> Stop:
    """How a program ends. Nothing outside OUTPUTS and WORKSPACE changes; after a soft reset, a good program runs."""
    windows = good_program(core).windows | {Window.WORKSPACE: bytes(64)} | (contents or {})
    core.load(commands, windows)
    before = bytearray(touched(core))
    core.start()
    ended = core.ended(1_000_000)
    after = bytearray(touched(core))
    for window in (Window.OUTPUTS, Window.WORKSPACE):
        place = slice(core.bases[window], core.bases[window] + core.sizes[window])
        before[place] = after[place] = bytes(core.sizes[window])
    assert before == after, "bytes outside of the windows that may be written have changed"
    check_recovery(core)
    return ended


def touched(core: Machine) -> bytes:
    """Where all windows lie, what lies around them, and the end of the memory."""
    size = core.link.memory_bytes
    used = min(max(core.bases[window] + core.sizes[window] for window in Window) + 8192, size)
    return core.link.read_memory(0, used) + core.link.read_memory(size - 1024, 1024)


def check_recovery(core: Machine) -> None:
    core.reset()
    program = good_program(core)
    assert core.run(program.commands, program.windows) == FINE
    assert core.content(Window.OUTPUTS) == program.inputs


def stop_in_front_of_copy(core: Machine, wrong: bytes | Command, *, tail: list[Command] | None = None) -> Stop:
    """How a program ends that begins with one wrong command, and with good ones behind it."""
    first = wrong if isinstance(wrong, bytes) else encode(wrong)
    rest = good_program(core).commands if tail is None else tail
    return stop(core, first + b"".join(map(encode, rest)))


def golden_stop(config: Config, commands: list[Command], constants: bytes, inputs: bytes, outputs: int) -> Stop:
    """How the golden model says that a program ends."""
    step = AcceleratorStep(commands=b"".join(map(encode, commands)), constants=constants, inputs=(), outputs=())
    try:
        Golden(config).run(step, np.frombuffer(inputs, np.uint8)[np.newaxis], outputs)
    except GoldenError as error:
        return Stop(error.code, error.offset)
    return FINE


# What is no command


@pytest.mark.parametrize("opcode", [0, 12, 13, 14, 15])
def test_an_opcode_without_a_command_is_illegal(core: Machine, opcode: int):
    program = good_program(core)
    data = bytearray(b"".join(map(encode, program.commands)))
    data[COMMAND_BYTES] = data[COMMAND_BYTES] & 0xF0 | opcode
    assert stop(core, bytes(data)) == Stop(ErrorCode.ILLEGAL_OPCODE, COMMAND_BYTES)


def out_of_range() -> list[tuple[str, str, int]]:
    """Every value beside the range of every operand whose bits could hold more."""
    cases: set[tuple[str, str, int]] = set()
    for mnemonic, insn in BY_MNEMONIC.items():
        for item in insn.operands:
            lowest = -(1 << item.bits - 1) if item.signed else 0
            highest = (1 << item.bits - item.signed) - 1
            beside = {item.low - 1, lowest, item.high + 1, highest}
            cases |= {
                (mnemonic, item.name, value)
                for value in beside
                if lowest <= value <= highest and not item.low <= value <= item.high
            }
    return sorted(cases)


def test_an_operand_outside_of_its_range_is_illegal(four: Machine):
    cases = out_of_range()
    assert {mnemonic for mnemonic, _, _ in cases} >= set(BY_MNEMONIC) - {"END", "SKIP", "TABLE"}
    end = encode(Command("END"))
    for mnemonic, name, value in cases:
        four.load(encode(smallest("REQUANT")) + field(mnemonic, name, value) + end, {})
        four.start()
        assert four.ended(1_000_000) == Stop(ErrorCode.ILLEGAL_OPERAND, COMMAND_BYTES), (mnemonic, name, value)
        four.reset()
    check_recovery(four)


@pytest.mark.parametrize("mnemonic", [name for name, insn in BY_MNEMONIC.items() if insn.bits < 8 * COMMAND_BYTES])
def test_bits_behind_the_last_operand_are_illegal(four: Machine, mnemonic: str):
    bits = BY_MNEMONIC[mnemonic].bits
    for bit in {bits, min(bits + 31, 255), 255}:
        word = int.from_bytes(encode(smallest(mnemonic)), "little") | 1 << bit
        four.load(word.to_bytes(COMMAND_BYTES, "little") + encode(Command("END")), {})
        four.start()
        assert four.ended(1_000_000) == Stop(ErrorCode.ILLEGAL_OPERAND, 0), bit
        four.reset()


def test_random_commands_are_illegal_exactly_where_the_table_says_so(four: Machine):
    generator = random.Random(21)
    names = [name for name in BY_MNEMONIC if name != "END"]
    seen = set()
    for number in range(300):
        insn = BY_MNEMONIC[names[number % len(names)]]
        # It waits for a ticket that never comes: what it would do is of no interest.
        word = insn.opcode | 1 << insn.offsets["wait_load"] | 100 << insn.offsets["load_ticket"]
        damaged = generator.choice(insn.operands).name if number % 3 else None
        for item in insn.operands:
            value = generator.randint(item.low, item.high) if generator.random() < 0.8 else item.high
            value = generator.getrandbits(item.bits) if item.name == damaged else value
            word |= (value & (1 << item.bits) - 1) << insn.offsets[item.name]
        if generator.random() < 0.1 and insn.bits < 256:
            word |= 1 << generator.randrange(insn.bits, 256)
        data = word.to_bytes(COMMAND_BYTES, "little")
        try:
            decode(data)
            expected = Stop(ErrorCode.WATCHDOG, 0)
        except IsaError:
            expected = Stop(ErrorCode.ILLEGAL_OPERAND, 0)
        seen.add(expected)
        four.write("WATCHDOG", 1)
        four.load(data + encode(Command("END")), {})
        four.start()
        assert four.ended(1_000_000) == expected, data.hex()
        four.reset()
    assert len(seen) == 2


def test_what_lies_behind_end_is_not_looked_at(core: Machine):
    program = good_program(core)
    commands = b"".join(map(encode, program.commands)) + bytes([0] * 31 + [255]) * 3
    assert stop(core, commands) == FINE


def test_the_header_of_end_is_not_waited_for(core: Machine):
    program = good_program(core)
    commands = [*program.commands[:2], Command("END", {}, {Unit.EXECUTE: 7})]
    assert stop(core, commands) == FINE


# What excludes each other, and what a configuration leaves out


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize(
    "operands",
    [
        {"pool": Pool.SUM, "combine": Combine.ADD},
        {"pool": Pool.SUM, "combine": Combine.MULTIPLY},
        {"pool": Pool.NONE, "pool_width": 2},
        {"pool": Pool.NONE, "pool_height": 3},
        {"pool": Pool.NONE, "pool_height": 128, "pool_width": 255},
    ],
    ids=str,
)
def test_operands_of_a_drain_exclude_each_other(core: Machine, source: Source, operands: dict[str, int]):
    wrong = smallest("DRAIN", source=source, **operands)
    assert stop_in_front_of_copy(core, wrong) == Stop(ErrorCode.ILLEGAL_OPERAND, 0)


@pytest.mark.parametrize("params", [Params.BIAS, Params.PER_CHANNEL])
def test_a_drain_of_the_scratchpad_has_no_parameters(core: Machine, params: Params):
    wrong = smallest("DRAIN", source=Source.SCRATCHPAD, params=params)
    assert stop_in_front_of_copy(core, wrong) == Stop(ErrorCode.ILLEGAL_OPERAND, 0)


@pytest.mark.parametrize("operands", [{"taps": 1, "shared": 1}, {"taps": 2, "shared": 15}], ids=str)
def test_a_depthwise_shares_fewer_columns_than_it_has_taps(core: Machine, operands: dict[str, int]):
    wrong = smallest("DEPTHWISE", **operands)
    assert stop_in_front_of_copy(core, wrong) == Stop(ErrorCode.ILLEGAL_OPERAND, 0)


def test_a_depthwise_has_as_many_taps_as_the_array_has_rows_for(core: Machine):
    taps = core.config.depthwise_taps
    wrong = smallest("DEPTHWISE", taps=taps + 1)
    assert stop_in_front_of_copy(core, wrong) == Stop(ErrorCode.ILLEGAL_OPERAND, 0)
    words = core.config.rows
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": words})
    commands = [stream, smallest("DEPTHWISE", taps=taps), smallest("DRAIN"), Command("END")]
    assert stop(core, commands, {Window.CONSTANTS: bytes(words * words)}) == FINE


@pytest.mark.parametrize(
    "wrong",
    [
        smallest("DEPTHWISE"),
        smallest("SKIP"),
        smallest("TABLE"),
        *(
            smallest("DRAIN", source=source, combine=combine)
            for source in Source
            for combine in (Combine.ADD, Combine.MULTIPLY, Combine.TABLE)
        ),
    ],
    ids=lambda c: " ".join([c.mnemonic, *(f"{n}={c[n]}" for n in ("source", "combine") if n in c.operands)]),
)
def test_what_a_configuration_leaves_out_is_illegal(bare: Machine, wrong: Command):
    assert stop_in_front_of_copy(bare, wrong) == Stop(ErrorCode.ILLEGAL_OPERAND, 0)


def test_skip_without_block_sparsity_is_illegal():
    for core in fresh(EIGHT):
        assert stop_in_front_of_copy(core, smallest("SKIP")) == Stop(ErrorCode.ILLEGAL_OPERAND, 0)


def convolution(config: Config, **operands: int) -> tuple[list[Command], dict[Window, bytes]]:
    """A CONVOLVE of one pixel with a DRAIN of it, and as many zeros as weights as could be needed."""
    blocks, params = operands.get("blocks", 1), operands.get("params", 0)
    words = blocks * (config.rows + (0, 4, 9)[params])
    commands = [
        Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": words}),
        smallest("CONVOLVE", **operands),
        smallest("DRAIN", channels=blocks * config.cols, params=params),
        Command("END"),
    ]
    return commands, {Window.CONSTANTS: bytes(words * config.cols)}


def test_a_skip_must_end_with_a_pass_of_the_command_behind_it(four: Machine):
    commands, windows = convolution(FOUR)
    assert stop(four, [smallest("SKIP"), *commands], windows) == FINE
    commands.insert(0, smallest("SKIP", last=1))
    assert stop(four, commands, windows) == Stop(ErrorCode.ILLEGAL_OPERAND, 2 * COMMAND_BYTES)


@pytest.mark.parametrize("params", Params)
def test_a_drain_must_have_the_parameters_of_its_convolution(core: Machine, params: Params):
    commands, windows = convolution(core.config, params=params)
    assert stop(core, commands, windows) == FINE
    for other in set(Params) - {params}:
        commands[2] = with_operand(commands[2], params=other)
        assert stop(core, commands, windows) == Stop(ErrorCode.ILLEGAL_OPERAND, 2 * COMMAND_BYTES)


# Windows


@pytest.mark.parametrize("mnemonic", ["LOAD", "STORE", "STREAM"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_transfer_may_reach_the_last_byte_of_its_window_and_no_further(core: Machine, mnemonic: str, rows: int):
    config = core.config
    words, stride = 2, 4 * config.rows
    size = (rows - 1) * stride + words * config.rows if mnemonic != "STREAM" else words * config.cols
    window = Window.OUTPUTS if mnemonic == "STORE" else Window.INPUTS
    operands = {"window": window, "words": words} | (
        {} if mnemonic == "STREAM" else {"rows": rows, "row_stride": stride}
    )
    command = smallest(mnemonic, **operands)
    tail = [Command("END")]
    if mnemonic == "STREAM":
        tail = [smallest("CONVOLVE"), smallest("DRAIN"), *tail]
        words = config.rows
        command = with_operand(command, words=words)
        size = words * config.cols
    beat = config.bus_bytes
    for offset in (0, 5 * beat):
        program = [with_operand(command, offset=offset), *tail]
        assert stop(core, program, {window: bytes(size + offset)}) == FINE
        assert stop(core, program, {window: bytes(size + offset - beat)}) == Stop(ErrorCode.WINDOW, 0)
        # A beat that is only partly inside is outside.
        assert stop(core, program, {window: bytes(size + offset - 1)}) == Stop(ErrorCode.WINDOW, 0)


@pytest.mark.parametrize("mnemonic", ["LOAD", "STORE"])
@pytest.mark.parametrize("offset", [1 << 20, 1 << 31, (1 << 32) - 8, (1 << 32) - 4096])
def test_a_transfer_far_behind_its_window_stops(core: Machine, mnemonic: str, offset: int):
    window = Window.OUTPUTS if mnemonic == "STORE" else Window.INPUTS
    wrong = smallest(mnemonic, window=window, offset=offset, words=3)
    assert stop_in_front_of_copy(core, wrong) == Stop(ErrorCode.WINDOW, 0)


@pytest.mark.parametrize("offset", [0, 1 << 20, (1 << 32) - 8])
def test_a_stream_behind_its_window_stops_even_when_nobody_uses_it(core: Machine, offset: int):
    wrong = smallest("STREAM", window=Window.CONSTANTS, offset=offset)
    assert stop_in_front_of_copy(core, wrong) == Stop(ErrorCode.WINDOW, 0)


def test_a_stream_of_more_words_than_an_address_can_count_stops(core: Machine):
    wrong = smallest("STREAM", window=Window.INPUTS, words=(1 << 28) - 1)
    tail = [smallest("CONVOLVE"), smallest("DRAIN"), Command("END")]
    assert stop_in_front_of_copy(core, wrong, tail=tail) == Stop(ErrorCode.WINDOW, 0)


@pytest.mark.parametrize(
    ("mnemonic", "name"),
    [("LOAD", "offset"), ("LOAD", "row_stride"), ("STORE", "offset"), ("STORE", "row_stride"), ("STREAM", "offset")],
)
def test_what_is_not_a_multiple_of_the_bus_width_stops(core: Machine, mnemonic: str, name: str):
    window = Window.OUTPUTS if mnemonic == "STORE" else Window.INPUTS
    tail = [smallest("CONVOLVE"), smallest("DRAIN"), Command("END")] if mnemonic == "STREAM" else [Command("END")]
    words = core.config.rows if mnemonic == "STREAM" else 1
    for value in (1, core.config.bus_bytes // 2, 3 * core.config.bus_bytes + 2):
        wrong = smallest(mnemonic, window=window, words=words, **{name: value})
        assert stop_in_front_of_copy(core, wrong, tail=tail) == Stop(ErrorCode.WINDOW, 0)
    right = smallest(mnemonic, window=window, words=words, **{name: core.config.bus_bytes})
    assert stop_in_front_of_copy(core, right, tail=tail) == FINE


@pytest.mark.parametrize("window", Window)
def test_a_store_may_write_the_windows_that_are_to_be_written(core: Machine, window: Window):
    command = smallest("STORE", window=window)
    expected = FINE if window in (Window.OUTPUTS, Window.WORKSPACE) else Stop(ErrorCode.WINDOW, 0)
    assert stop(core, [command, Command("END")], {Window.CONSTANTS: bytes(64)}) == expected


@pytest.mark.parametrize("window", Window)
def test_a_load_may_read_every_window(core: Machine, window: Window):
    store = Command("STORE", smallest("STORE", window=Window.OUTPUTS).operands, {Unit.LOAD: 1})
    commands = [smallest("LOAD", window=window), store, Command("END")]
    contents = {other: random.Random(other).randbytes(64) for other in Window if other is not Window.COMMANDS}
    assert core.run(commands, contents) == FINE
    assert core.content(Window.OUTPUTS)[: core.config.rows] == core.content(window)[: core.config.rows]
    check_recovery(core)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_program_without_end_stops_behind_its_last_command(core: Machine, kept: int):
    program = good_program(core)
    assert stop(core, program.commands[:kept]) == Stop(ErrorCode.WINDOW, kept * COMMAND_BYTES)


def test_a_program_whose_window_ends_within_a_command_stops_there(core: Machine):
    program = good_program(core)
    commands = b"".join(map(encode, program.commands))
    for missing in (1, 4, COMMAND_BYTES - 1):
        assert stop(core, commands[:-missing]) == Stop(ErrorCode.WINDOW, 2 * COMMAND_BYTES)


# Memory that is not there


def beyond(core: Machine, window: Window, room: int) -> None:
    """Let a window begin so many bytes in front of the end of the memory; rounded down to a page."""
    base = core.link.memory_bytes - room
    assert base % 4096 == 0
    core.set_window(window, base, 0xFFFF_F000 - base)


@pytest.mark.parametrize("mnemonic", ["LOAD", "STORE", "STREAM"])
@pytest.mark.parametrize("base", [None, 0xFFFF_0000, 0xFFFF_F000, 0x4000_0000])
def test_a_transfer_beyond_the_memory_is_an_error_of_the_bus(core: Machine, mnemonic: str, base: int | None):
    config = core.config
    code = ErrorCode.BUS_WRITE if mnemonic == "STORE" else ErrorCode.BUS_READ
    window = Window.WORKSPACE if mnemonic == "STORE" else Window.CONSTANTS
    tail = [smallest("CONVOLVE"), smallest("DRAIN")] if mnemonic == "STREAM" else []
    words = config.rows if mnemonic == "STREAM" else 3
    size = words * config.rows
    for offset, expected in (
        (4096 - size, FINE),
        (4096 - size + config.bus_bytes, Stop(code, 32)),
        (8192, Stop(code, 32)),
    ):
        if base is not None and expected == FINE:
            continue
        command = smallest(mnemonic, window=window, words=words, offset=offset)
        core.load([smallest("REQUANT"), command, *tail, Command("END")], {})
        if base is None:
            beyond(core, window, 4096)
        else:
            core.set_window(window, base, 16384)
        before = core.memory()
        core.start()
        assert core.ended(1_000_000) == expected, offset
        changed = [at for at, (a, b) in enumerate(zip(before, core.memory(), strict=True)) if a != b]
        assert all(at >= core.link.memory_bytes - size for at in changed) if expected == FINE else not changed
        check_recovery(core)


@pytest.mark.parametrize("base", [None, 0x4000_0000, 0xFFFF_F000])
def test_commands_beyond_the_memory_are_an_error_of_the_bus(core: Machine, base: int | None):
    base = core.link.memory_bytes if base is None else base
    core.set_window(Window.COMMANDS, base, 4096)
    core.start()
    assert core.ended(1_000_000) == Stop(ErrorCode.BUS_READ, 0)
    check_recovery(core)


def test_weights_that_nobody_takes_are_told_as_an_error_of_end(core: Machine):
    stream = smallest("STREAM", window=Window.CONSTANTS, words=1)
    core.load([stream, Command("END")], {Window.CONSTANTS: bytes(core.config.bus_bytes)})
    core.write("WATCHDOG", 5000)
    core.start()
    assert core.ended(1_000_000) == Stop(ErrorCode.WATCHDOG, 32)
    core.write("WATCHDOG", 0)
    check_recovery(core)


def test_commands_that_run_off_the_memory_are_an_error_of_the_bus(core: Machine):
    commands = encode(smallest("REQUANT")) * 128
    core.link.write_memory(core.link.memory_bytes - 4096, commands)
    core.set_window(Window.COMMANDS, core.link.memory_bytes - 4096, 8192)
    core.start()
    assert core.ended(3_000_000) == Stop(ErrorCode.BUS_READ, 4096)
    check_recovery(core)


# The end of the scratchpad


@pytest.mark.parametrize("mnemonic", ["LOAD", "STORE"])
@pytest.mark.parametrize(("row", "rows", "pitch"), [(0, 1, 0), (3, 1, 4095), (3, 2, 7), (9, 4, 3)])
def test_a_transfer_may_use_the_last_word_of_a_bank(core: Machine, mnemonic: str, row: int, rows: int, pitch: int):
    window = Window.OUTPUTS if mnemonic == "STORE" else Window.INPUTS
    words = 3
    base = core.config.bank_words - words - (row + rows - 1) // BANKS * pitch
    command = smallest(mnemonic, window=window, row=row, rows=rows, pitch=pitch, words=words, base=base)
    assert stop(core, [command, Command("END")]) == FINE
    wrong = with_operand(command, base=base + 1)
    assert stop(core, [wrong, Command("END")]) == Stop(ErrorCode.SCRATCHPAD, 0)
    if pitch and row + rows > BANKS:
        wrong = with_operand(command, pitch=pitch + 1)
        assert stop(core, [wrong, Command("END")]) == Stop(ErrorCode.SCRATCHPAD, 0)


@pytest.mark.parametrize("mnemonic", ["LOAD", "STORE"])
@pytest.mark.parametrize("operands", [{"base": 65535}, {"pitch": 4095, "row": 4095}, {"words": 4095, "base": 61441}])
def test_a_transfer_far_behind_the_scratchpad_stops(core: Machine, mnemonic: str, operands: dict[str, int]):
    window = Window.OUTPUTS if mnemonic == "STORE" else Window.INPUTS
    wrong = smallest(mnemonic, window=window, **operands)
    contents = {window: bytes(65536)}
    assert stop(core, [wrong, Command("END")], contents) == Stop(ErrorCode.SCRATCHPAD, 0)


def with_end(core: Machine, commands: list[Command], at: int, **worse: int) -> None:
    """Assert that a program runs, and stops at one command when that is changed."""
    words = 64 * core.config.rows
    contents = {Window.CONSTANTS: bytes(words * core.config.cols)}
    assert stop(core, commands, contents) == FINE
    for name, value in worse.items():
        wrong = [*commands[:at], with_operand(commands[at], **{name: value}), *commands[at + 1 :]]
        assert stop(core, wrong, contents) == Stop(ErrorCode.SCRATCHPAD, at * COMMAND_BYTES), name


@pytest.mark.parametrize("mnemonic", ["CONVOLVE", "DEPTHWISE"])
def test_a_convolution_may_read_the_last_byte_of_a_bank(core: Machine, mnemonic: str):
    rows, cols = core.config.rows, core.config.cols
    pitch = 6
    base = core.config.bank_words - 4 - pitch  # image rows 4 .. 7 end with the banks
    place = {"base": base, "pitch": pitch, "height": 6, "row_bytes": 4 * cols, "y_start": 5, "x_step": cols}
    operands = place | {"tile_width": 4} | ({"length": cols} if mnemonic == "CONVOLVE" else {})
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": rows})
    commands = [stream, smallest(mnemonic, **operands), smallest("DRAIN", width=4, in_pitch=4), Command("END")]
    with_end(core, commands, 1, base=base + 1, pitch=pitch + 1)


@pytest.mark.parametrize("outside", [{"y_start": 6}, {"x_start": 4096}, {"y_start": -1}, {"x_start": -4096}], ids=str)
def test_a_convolution_may_be_pointed_behind_a_bank_where_it_reads_nothing(core: Machine, outside: dict[str, int]):
    config = core.config
    operands = {"base": config.bank_words, "pitch": 3, "height": 6, "row_bytes": 64, "length": 4, "y_start": 0}
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": config.rows})
    commands = [stream, smallest("CONVOLVE", **operands | outside), smallest("DRAIN"), Command("END")]
    assert stop(core, commands, {Window.CONSTANTS: bytes(64)}) == FINE


@pytest.mark.parametrize("source", Source)
def test_a_drain_may_use_the_last_byte_of_a_bank(core: Machine, source: Source):
    config = core.config
    rows, cols, words = config.rows, config.cols, config.bank_words
    channels, width, height = cols - 1, 3, 2
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": rows})
    tile = smallest("CONVOLVE", tile_width=width, tile_height=height)
    fill = [stream, tile] if source == Source.ACCUMULATOR else []
    tensor = {"in_row": 3, "in_step": rows, "in_pitch": width, "out_row": 7, "out_pitch": 5, "out_step": rows}
    size = {"width": width, "height": height, "channels": channels, "pool_x_step": 1, "pool_y_step": 1}
    out_base = words - width - 2 * 5  # image row 8 is in the third group
    drain = smallest("DRAIN", source=source, **tensor, **size, out_base=out_base)
    at = len(fill) + 1
    commands = [*fill, smallest("REQUANT"), drain, Command("END")]
    with_end(core, commands, at, out_base=out_base + 1, out_pitch=6, out_offset=2, out_row=11, out_step=rows + 1)
    if source == Source.SCRATCHPAD:
        in_base = words - 2 * width  # image row 4 is in the second group
        commands[at] = with_operand(drain, in_base=in_base)
        with_end(core, commands, at, in_base=in_base + 1, in_pitch=width + 1, in_offset=2, in_row=7, in_step=rows + 1)


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("combine", [Combine.ADD, Combine.MULTIPLY])
def test_a_drain_may_use_an_operand_up_to_the_last_byte_of_a_bank(core: Machine, source: Source, combine: Combine):
    config = core.config
    rows, words = config.rows, config.bank_words
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": rows})
    fill = [stream, smallest("CONVOLVE", tile_width=3)] if source == Source.ACCUMULATOR else []
    operands = {"in_row": 4, "in_offset": rows, "in_step": rows, "channels": rows, "width": 3, "pool_x_step": 1}
    drain = smallest("DRAIN", source=source, combine=combine, in_pitch=3, **operands)
    for more in range(2):
        combination = smallest("COMBINE", operand_base=words - 4 - 9 + more, operand_pitch=9)
        commands = [*fill, combination, drain, Command("END")]
        offset = (len(fill) + 1) * COMMAND_BYTES
        expected = Stop(ErrorCode.SCRATCHPAD, offset) if more else FINE
        assert stop(core, commands, {Window.CONSTANTS: bytes(rows * rows)}) == expected


@pytest.mark.parametrize("mnemonic", ["CONVOLVE", "DEPTHWISE"])
def test_a_tile_may_have_as_many_pixels_as_the_accumulators(core: Machine, mnemonic: str):
    depth, rows = core.config.accumulator_depth, core.config.rows
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": rows})
    right = smallest(mnemonic, tile_width=depth // 2, tile_height=2)
    commands = [stream, right, smallest("DRAIN"), Command("END")]
    with_end(core, commands, 1, tile_height=3, tile_width=depth // 2 + 1)
    commands[1] = smallest(mnemonic, tile_width=1023, tile_height=1023)
    assert stop(core, commands, {Window.CONSTANTS: bytes(rows * rows)}) == Stop(ErrorCode.SCRATCHPAD, COMMAND_BYTES)


@pytest.mark.parametrize(("pool", "combine"), [(Pool.NONE, Combine.NONE), (Pool.MAX, Combine.TABLE), (Pool.SUM, 0)])
def test_a_drain_may_take_pixels_up_to_the_end_of_the_accumulators(core: Machine, pool: Pool, combine: int):
    depth, rows = core.config.accumulator_depth, core.config.rows
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": rows})
    tile = smallest("CONVOLVE", tile_width=depth // 2, tile_height=2)
    window = {"pool_width": 2, "pool_height": 2} if pool else {}
    last = depth // 2 - (2 if pool else 1)
    size = {"width": last // 3 + 1, "height": 1 if pool else 2, "pool_x_step": 3, "pool_y_step": 1}
    drain = smallest("DRAIN", pool=pool, combine=combine, in_pitch=depth // 2 + last % 3, **window, **size)
    commands = [stream, tile, drain, Command("END")]
    worse = {"in_pitch": depth // 2 + last % 3 + 1, "width": last // 3 + 2, "pool_x_step": 4}
    with_end(core, commands, 2, **worse)


def edge_program(config: Config, g: random.Random) -> tuple[list[Command], bytes]:
    """A random convolution at the end of the scratchpad, where it may read or just not, and its drain."""
    depthwise = g.random() < 0.4
    taps, tap_count, blocks, kernel_rows = g.randint(1, 2), g.randint(1, 2), g.randint(1, 2), g.randint(1, 3)
    row_step, length = g.randint(1, 3), g.randint(1, 2 * config.rows)
    tile_width, tile_height = g.randint(1, 3), g.randint(1, 3)
    pitch, height, ring = g.randint(1, 6), g.randint(1, 14), g.choice([0, 0, 1, 2])
    operands = {
        **({"taps": taps, "x_stride": g.randint(1, 2)} if depthwise else {"length": length}),
        "base": config.bank_words - g.randint(1, 4) * pitch,
        "pitch": pitch,
        "height": height,
        "row_bytes": g.randint(1, 8 * config.rows),
        "x_start": g.randint(-20, 20),
        "x_step": g.randint(0, 9),
        "y_start": g.randint(-8, 8),
        "y_step": g.randint(0, 4),
        "tap_count": tap_count,
        "tap_step": g.randint(0, 9),
        "row_step": row_step,
        "kernel_rows": kernel_rows,
        "tile_width": tile_width,
        "tile_height": tile_height,
        "blocks": blocks,
        "block_step": g.choice([0, config.cols]),
        "ring": ring,
    }
    convolve = smallest("DEPTHWISE" if depthwise else "CONVOLVE", **operands)
    cut = (
        list(depthwise_passes(config.depthwise_groups, kernel_rows, row_step))
        if depthwise
        else list(passes(config.rows, kernel_rows, length, row_step))
    )
    words = blocks * tap_count * len(cut) * config.rows
    drain = smallest("DRAIN", channels=blocks * config.cols)
    stream = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": words})
    return [stream, convolve, drain, Command("END")], bytes(words * config.cols)


@pytest.mark.parametrize("part", range(2))
def test_random_convolutions_at_the_end_of_the_scratchpad_stop_where_the_golden_model_does(core: Machine, part: int):
    generator = random.Random(f"edge {part}")
    seen, differing = set(), []
    for number in range(60):
        commands, constants = edge_program(core.config, generator)
        expected = golden_stop(core.config, commands, constants, b"", 0)
        seen.add(expected)
        found = core.run(commands, {Window.CONSTANTS: constants})
        if found.code:
            core.reset()
        if found != expected:
            differing.append((number, expected, found, commands[1]))
    assert not differing, differing[0]
    assert len(seen) == 2


# What waits for ever


def test_weights_that_are_missing_or_left_over_are_waited_for(core: Machine):
    rows = core.config.rows
    commands, windows = convolution(core.config)
    for words, mnemonic in ((rows - 1, "CONVOLVE"), (rows + 1, "END")):
        commands[0] = with_operand(commands[0], words=words)
        data = {Window.CONSTANTS: bytes(windows[Window.CONSTANTS]) * 2}
        expected = golden_stop(core.config, commands, data[Window.CONSTANTS], b"", 0)
        assert expected.code is ErrorCode.WATCHDOG
        assert stop(core, commands, data).code is ErrorCode.WATCHDOG, mnemonic


def test_a_block_that_nobody_fills_or_takes_is_waited_for(core: Machine):
    commands, windows = convolution(core.config)
    assert stop(core, [commands[2], Command("END")]) == Stop(ErrorCode.WATCHDOG, 0)
    assert stop(core, [*commands[:2], Command("END")], windows).code is ErrorCode.WATCHDOG


@pytest.mark.parametrize("unit", [Unit.LOAD, Unit.EXECUTE, Unit.DRAIN, Unit.STORE])
@pytest.mark.parametrize("ticket", [1, 511, 512, 513, 1023])
def test_a_ticket_is_waited_for_up_to_512_commands_ahead(core: Machine, unit: Unit, ticket: int):
    # None has finished a command: those from 513 on are behind.
    commands = [Command("REQUANT", smallest("REQUANT").operands, {unit: ticket}), Command("END")]
    expected = golden_stop(core.config, commands, b"", b"", 0)
    assert (expected == FINE) == (ticket > 512)
    assert stop(core, commands) == expected


def test_tickets_count_modulo_1024(four: Machine):
    commands = [smallest("REQUANT") for _ in range(1100)]
    generator = random.Random(9)
    for at in range(1, 1100):
        if generator.random() < 0.3:
            commands[at] = replace(commands[at], waits={Unit.DRAIN: (at - generator.randint(0, 511)) % 1024})
    for ahead, expected in ((0, FINE), (1, Stop(ErrorCode.WATCHDOG, 1100 * COMMAND_BYTES))):
        load = replace(smallest("LOAD", window=Window.INPUTS), waits={Unit.DRAIN: (1100 + ahead) % 1024})
        four.load([*commands, load, Command("END")], good_program(four).windows)
        four.start()
        assert four.ended(5_000_000) == expected
        check_recovery(four)


def test_the_first_error_stays(core: Machine):
    bad = smallest("STORE", window=Window.INPUTS)
    assert stop(core, [bad, bad, *good_program(core).commands]) == Stop(ErrorCode.WINDOW, 0)


def test_an_error_is_found_in_the_middle_of_a_program_that_uses_every_unit(core: Machine):
    config = core.config
    image = Map.at(config, 0, 2, 2, config.rows)
    commands, windows = convolution(config)
    wrong = with_operand(transfer("STORE", config, image, {Unit.DRAIN: 1}), base=config.bank_words)
    program = [transfer("LOAD", config, image, {}), *commands[:3], wrong, Command("END")]
    assert stop(core, program, windows) == Stop(ErrorCode.SCRATCHPAD, 4 * COMMAND_BYTES)
