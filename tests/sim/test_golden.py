# SPDX-License-Identifier: Apache-2.0
"""The golden model against a literal reading of the command set, and what it refuses."""

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from loomwork.arch.command import Command, encode
from loomwork.arch.config import FORMAL, MID, SMALL, TINY, Config
from loomwork.arch.isa import COMMAND_BYTES, Combine, Params, Pool, Source, Unit, Window
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.registers import ErrorCode
from loomwork.arch.skip import skip_operands
from loomwork.sim.golden import Golden, GoldenBackend, GoldenError
from loomwork.sim.testbench.commands import random_tables
from loomwork.sim.testbench.programs import TestProgram, fused_program, layer_program
from tests.sim.scalar_engine import ScalarEngine

PIXELS = {"window": Window.INPUTS, "offset": 0, "row_stride": 8, "base": 0, "pitch": 2, "row": 0, "rows": 3, "words": 2}
"""A tensor of 3 rows of two words, on `tiny`."""
CONVOLVE = {
    "base": 0,
    "pitch": 2,
    "height": 3,
    "row_bytes": 8,
    "x_start": 0,
    "x_step": 4,
    "y_start": 0,
    "y_step": 1,
    "tap_count": 1,
    "tap_step": 0,
    "row_step": 1,
    "length": 4,
    "kernel_rows": 1,
    "tile_width": 2,
    "tile_height": 3,
    "blocks": 1,
    "block_step": 0,
    "pad": 0,
    "params": Params.UNIFORM,
    "ring": 0,
}
REQUANT = {
    "bias": 0,
    "multiplier": 1 << 30,
    "shift": 1,
    "zero_point": 0,
    "minimum": -128,
    "maximum": 127,
    "rounding": 0,
}
DRAIN = {
    "source": Source.ACCUMULATOR,
    "in_base": 0,
    "in_pitch": 2,
    "in_row": 0,
    "in_offset": 0,
    "in_step": 4,
    "out_base": 8,
    "out_pitch": 2,
    "out_row": 0,
    "out_offset": 0,
    "out_step": 4,
    "width": 2,
    "height": 3,
    "channels": 4,
    "pool": Pool.NONE,
    "pool_height": 1,
    "pool_width": 1,
    "pool_y_step": 1,
    "pool_x_step": 1,
    "combine": Combine.NONE,
    "params": Params.UNIFORM,
}
COMBINE = {
    "operand_base": 0,
    "operand_pitch": 2,
    "multiplier_a": 1 << 30,
    "shift_a": 0,
    "zero_a": 3,
    "multiplier_b": 1 << 30,
    "shift_b": -1,
    "zero_b": -5,
    "multiplier": 1 << 30,
    "shift": -18,
    "zero_point": 7,
    "minimum": -100,
    "maximum": 100,
    "rounding": 0,
}
COMBINATIONS = [
    (combine, pool)
    for combine in Combine
    for pool in Pool
    if pool is not Pool.SUM or combine not in (Combine.ADD, Combine.MULTIPLY)
]
LOAD = Command("LOAD", PIXELS)
STREAM = Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": 4})
STORE = Command("STORE", {**PIXELS, "window": Window.OUTPUTS, "base": 8})
END = Command("END")
IMAGE = bytes(range(24))
IDENTITY = np.eye(4, dtype=np.int8).tobytes()


def command(mnemonic: str, operands: Mapping[str, int], **changes: int) -> Command:
    return Command(mnemonic, {**operands, **changes})


def run(
    *commands: Command, config: Config = TINY, constants: bytes = IDENTITY, images: tuple[bytes, ...] = (IMAGE,)
) -> list[bytes]:
    """The OUTPUTS window, of 24 bytes, of each image."""
    step = AcceleratorStep(commands=b"".join(map(encode, commands)), constants=constants, inputs=(), outputs=())
    window = np.stack([np.frombuffer(image, dtype=np.uint8) for image in images])
    return [row.tobytes() for row in Golden(config).run(step, window, 24)]


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, MID], ids=lambda config: config.name)
@pytest.mark.parametrize("depthwise", [False, True], ids=["convolve", "depthwise"])
@pytest.mark.parametrize("seed", range(15))
def test_random_programs_do_what_the_command_set_says(seed: int, depthwise: bool, config: Config) -> None:
    # The smallest scratchpad is too small for some of these programs; its size matters to no result.
    config = Config.from_dict({**config.to_dict(), "scratchpad_kib": 64})
    check_program(layer_program(config, random.Random(seed), depthwise=depthwise))


@pytest.mark.parametrize("config", [FORMAL, TINY, SMALL, MID], ids=lambda config: config.name)
@pytest.mark.parametrize("depthwise", [False, True], ids=["convolve", "depthwise"])
@pytest.mark.parametrize("seed", range(8))
def test_passes_are_left_out_as_the_command_set_says(seed: int, depthwise: bool, config: Config) -> None:
    config = Config.from_dict({**config.to_dict(), "scratchpad_kib": 64, "block_sparsity": True})
    check_program(layer_program(config, random.Random(seed), depthwise=depthwise, skips=True))


@pytest.mark.parametrize("config", [FORMAL, TINY, MID], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("combine", "pool"), COMBINATIONS)
def test_fused_layers_do_what_the_command_set_says(combine: Combine, pool: Pool, seed: int, config: Config) -> None:
    config = Config.from_dict({**config.to_dict(), "scratchpad_kib": 64})
    check_program(fused_program(config, random.Random(seed), combine, pool))


@pytest.mark.parametrize("config", [FORMAL, TINY, MID], ids=lambda config: config.name)
@pytest.mark.parametrize("depthwise", [False, True], ids=["convolve", "depthwise"])
@pytest.mark.parametrize("seed", range(10))
def test_rings_hold_the_latest_rows(seed: int, depthwise: bool, config: Config) -> None:
    """The input is a ring full of rows, of which the array wants any, from the first lap and the second. Rows behind
    these go on beyond the ring, for it is taken once.
    """
    config = Config.from_dict({**config.to_dict(), "scratchpad_kib": 64})
    rng = random.Random(seed)
    program = layer_program(config, rng, depthwise=depthwise)
    commands = [*program.commands]
    load, convolve = commands[0], commands[3]
    ring = -(-load["rows"] // 4)
    height = rng.randint(4 * ring + 1, 12 * ring)
    commands[0] = command("LOAD", load.operands, rows=4 * ring)
    changes = {"ring": ring, "height": height, "y_start": rng.randint(-2, height)}
    commands[3] = replace(convolve, operands={**convolve.operands, **changes})
    inputs = rng.randbytes(4 * ring * load["row_stride"])
    check_program(replace(program, commands=commands, inputs=inputs))


def check_program(program: TestProgram) -> None:
    """Golden model and scalar engine leave the same bytes."""
    config = program.config
    windows = {window: bytearray(data) for window, data in program.windows.items()}
    ScalarEngine(config, windows).run(program.commands[:-1])
    step = AcceleratorStep(
        commands=b"".join(map(encode, program.commands)), constants=program.constants, inputs=(), outputs=()
    )
    inputs = np.frombuffer(program.inputs, dtype=np.uint8)[np.newaxis]
    outputs = Golden(config).run(step, inputs, program.output_bytes)
    assert outputs[0].tobytes() == bytes(windows[Window.OUTPUTS])


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("combine", "pool"), COMBINATIONS)
def test_the_second_stage_does_what_the_command_set_says(combine: Combine, pool: Pool, seed: int) -> None:
    rng = random.Random(seed)
    window = 1 if pool is Pool.NONE else 2
    commands = [
        LOAD,
        command(
            "REQUANT",
            REQUANT,
            bias=rng.randint(-99, 99),
            multiplier=rng.randint(1 << 29, (1 << 31) - 1),
            shift=rng.randint(-3, 2),
            zero_point=rng.randint(-9, 9),
            rounding=rng.randint(0, 1),
        ),
        command("COMBINE", COMBINE, zero_b=rng.randint(-128, 127), rounding=rng.randint(0, 1)),
        *random_tables(rng),
        command(
            "DRAIN",
            DRAIN,
            source=Source.SCRATCHPAD,
            combine=combine,
            pool=pool,
            pool_height=window,
            pool_width=window,
            height=3 - window + 1,
            width=2 - window + 1,
            channels=rng.randint(1, 4),
        ),
        STORE,
    ]
    image = rng.randbytes(24)
    windows = {Window.INPUTS: bytearray(image), Window.OUTPUTS: bytearray(24)}
    ScalarEngine(TINY, windows).run(commands)
    assert run(*commands, END, images=(image,)) == [bytes(windows[Window.OUTPUTS])]


def test_an_identity_copies_the_image() -> None:
    program = LOAD, STREAM, command("CONVOLVE", CONVOLVE), command("REQUANT", REQUANT), command("DRAIN", DRAIN), STORE
    assert run(*program, END) == [IMAGE]


def test_accumulators_wrap_at_32_bits() -> None:
    bias = np.full(4, (1 << 31) - 1, "<i4").tobytes()
    program = (
        LOAD,
        replace(STREAM, operands={**STREAM.operands, "words": 8}),
        command("CONVOLVE", CONVOLVE, params=Params.BIAS),
        command("REQUANT", REQUANT, multiplier=1 << 30, shift=-22),
        command("DRAIN", DRAIN, params=Params.BIAS),
        STORE,
    )
    # Half of 2**31 - 1 rescaled by 2**-23 is beyond int8; one more and it is negative.
    outputs = np.frombuffer(run(*program, END, constants=IDENTITY + bias)[0], dtype=np.int8)
    assert outputs[0] == 127
    assert (outputs[1:] == -128).all()


def test_many_images_at_once_are_as_one_by_one() -> None:
    rng = random.Random(3)
    images = tuple(rng.randbytes(24) for _ in range(5))
    program = (
        LOAD,
        STREAM,
        command("CONVOLVE", CONVOLVE, y_start=-1, x_start=-2, pad=9),
        command("REQUANT", REQUANT),
        command("DRAIN", DRAIN),
        STORE,
        END,
    )
    constants = rng.randbytes(16)
    together = run(*program, constants=constants, images=images)
    assert together == [run(*program, constants=constants, images=(image,))[0] for image in images]
    assert len(set(together)) == 5


def test_nothing_is_kept_between_runs() -> None:
    engine = Golden(TINY)
    step = AcceleratorStep(commands=encode(STORE) + encode(END), constants=b"", inputs=(), outputs=())
    copy = AcceleratorStep(
        commands=encode(LOAD) + encode(command("STORE", STORE.operands, base=0)) + encode(END),
        constants=b"",
        inputs=(),
        outputs=(),
    )
    image = np.frombuffer(IMAGE, dtype=np.uint8)[np.newaxis]
    assert engine.run(copy, image, 24)[0].tobytes() == IMAGE
    assert engine.run(step, image, 24)[0].tobytes() == bytes(24)


def test_the_backend_has_no_clock() -> None:
    step = AcceleratorStep(commands=encode(END), constants=b"", inputs=(), outputs=())
    outputs, statistics = GoldenBackend().run_step(TINY, step, np.zeros((3, 0), np.uint8), 4)
    assert outputs.shape == (3, 4)
    assert [run.cycles for run in statistics] == [None] * 3


CONVOLVED = (LOAD, STREAM, command("CONVOLVE", CONVOLVE))
REFUSED: dict[str, tuple[tuple[Command, ...], ErrorCode, str]] = {
    "no end": ((LOAD,), ErrorCode.WINDOW, "ends without END"),
    "load behind its window": (
        (command("LOAD", PIXELS, rows=4), END),
        ErrorCode.WINDOW,
        "bytes up to 32 of window INPUTS, which has 24",
    ),
    "offset not aligned": ((command("LOAD", PIXELS, offset=2), END), ErrorCode.WINDOW, "offset 2 is not a multiple"),
    "stride not aligned": ((command("LOAD", PIXELS, row_stride=6), END), ErrorCode.WINDOW, "row stride 6 is not"),
    "store to constants": (
        (command("STORE", PIXELS, window=Window.CONSTANTS, rows=1), END),
        ErrorCode.WINDOW,
        "window CONSTANTS is read-only",
    ),
    "stream behind its window": (
        (command("STREAM", STREAM.operands, words=5), END),
        ErrorCode.WINDOW,
        "bytes up to 20 of window CONSTANTS, which has 16",
    ),
    "load behind the scratchpad": (
        (command("LOAD", PIXELS, base=1023), END),
        ErrorCode.SCRATCHPAD,
        "word 1024 of a bank of 1024 words",
    ),
    "drain a byte behind the scratchpad": (
        (
            command("REQUANT", REQUANT),
            command("DRAIN", DRAIN, source=1, out_base=1023, out_offset=4, width=1, height=1, channels=1),
            END,
        ),
        ErrorCode.SCRATCHPAD,
        "word 1024 of a bank of 1024 words",
    ),
    "convolve behind the scratchpad": (
        (STREAM, command("CONVOLVE", CONVOLVE, base=1023), END),
        ErrorCode.SCRATCHPAD,
        "word 1024",
    ),
    "tile too large": (
        (STREAM, command("CONVOLVE", CONVOLVE, tile_height=17), END),
        ErrorCode.SCRATCHPAD,
        "a tile of 34 pixels, the accumulators hold 32",
    ),
    "drain behind the tile": (
        (*CONVOLVED, command("REQUANT", REQUANT), command("DRAIN", DRAIN, height=4), END),
        ErrorCode.SCRATCHPAD,
        "pixel 7 of a tile of 6",
    ),
    "stream runs dry": (
        (command("STREAM", STREAM.operands, words=3), command("CONVOLVE", CONVOLVE), END),
        ErrorCode.WATCHDOG,
        "needs 4 words of weights, the stream has 3",
    ),
    "stream left over": ((STREAM, END), ErrorCode.WATCHDOG, "4 words of weights are left"),
    "blocks left over": ((*CONVOLVED, END), ErrorCode.WATCHDOG, "1 blocks are left"),
    "blocks missing": (
        (command("REQUANT", REQUANT), command("DRAIN", DRAIN), END),
        ErrorCode.WATCHDOG,
        "needs 1 blocks, the accumulators have 0",
    ),
    "parameters disagree": (
        (*CONVOLVED, command("REQUANT", REQUANT), command("DRAIN", DRAIN, params=Params.BIAS), END),
        ErrorCode.ILLEGAL_OPERAND,
        "DRAIN and CONVOLVE disagree",
    ),
    "window without pooling": (
        (command("DRAIN", DRAIN, source=1, pool_width=2), END),
        ErrorCode.ILLEGAL_OPERAND,
        "a window of 1 x 2 pixels without pooling",
    ),
    "sum and add": (
        (command("DRAIN", DRAIN, source=1, combine=Combine.ADD, pool=Pool.SUM), END),
        ErrorCode.ILLEGAL_OPERAND,
        "no one operand that ADD could take",
    ),
    "sum and multiply": (
        (command("DRAIN", DRAIN, source=1, combine=Combine.MULTIPLY, pool=Pool.SUM), END),
        ErrorCode.ILLEGAL_OPERAND,
        "no one operand that MULTIPLY could take",
    ),
    "parameters without accumulators": (
        (command("DRAIN", DRAIN, source=1, params=Params.BIAS), END),
        ErrorCode.ILLEGAL_OPERAND,
        "exist only behind the accumulators",
    ),
    "ticket that never comes": (
        (replace(LOAD, waits={Unit.DRAIN: 1}), END),
        ErrorCode.WATCHDOG,
        "it waits for ticket 1 of DRAIN, which has finished 0 commands",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_goes_wrong_stops_at_the_command(name: str) -> None:
    commands, code, message = REFUSED[name]
    with pytest.raises(GoldenError, match=message) as caught:
        run(*commands)
    assert caught.value.code is code
    what = "can never go on" if code is ErrorCode.WATCHDOG else "cannot be executed"
    guilty = len(commands) if name == "no end" else len(commands) - (1 if "left over" in name else 2)
    assert caught.value.offset == guilty * COMMAND_BYTES
    mnemonic = commands[guilty].mnemonic if guilty < len(commands) else "missing"
    start = f"command at byte {guilty * COMMAND_BYTES} ({mnemonic}) {what} ({code.name}): "
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("combine", "config"),
    [
        (Combine.ADD, replace(TINY, residual_add=False)),
        (Combine.MULTIPLY, replace(TINY, elementwise_multiply=False)),
    ],
)
def test_a_configuration_without_it_refuses_an_operand(combine: Combine, config: Config) -> None:
    drain = command("DRAIN", DRAIN, source=1, combine=combine)
    with pytest.raises(GoldenError, match=f"configuration tiny is built without {combine.name}") as caught:
        run(drain, END, config=config)
    assert caught.value.code is ErrorCode.ILLEGAL_OPERAND


@pytest.mark.parametrize("guilty", ["TABLE", "DRAIN"])
def test_a_configuration_without_the_table_refuses_it(guilty: str) -> None:
    drain = command("DRAIN", DRAIN, source=1, combine=Combine.TABLE)
    commands = {"TABLE": random_tables(random.Random(1))[0], "DRAIN": drain}
    with pytest.raises(GoldenError, match="configuration tiny is built without the activation table") as caught:
        run(commands[guilty], END, config=replace(TINY, activation_table=False))
    assert caught.value.code is ErrorCode.ILLEGAL_OPERAND


def test_a_table_of_which_a_part_is_not_set_is_refused() -> None:
    drain = command("DRAIN", DRAIN, source=1, combine=Combine.TABLE)
    tables = random_tables(random.Random(1))
    run(*tables, drain, END)
    with pytest.raises(GoldenError, match="no TABLE has set 16 entries") as caught:
        run(*tables[1:], drain, END)
    assert caught.value.code is ErrorCode.ILLEGAL_OPERAND


def test_skip_without_its_hardware_and_of_passes_that_are_not_there_is_refused() -> None:
    sparse = replace(TINY, block_sparsity=True)
    skip = Command("SKIP", skip_operands([True]))
    with pytest.raises(GoldenError, match=r"SKIP.*ILLEGAL_OPERAND.*tiny is built without SKIP"):
        run(STREAM, skip, END)
    beyond = Command("SKIP", skip_operands([True, True]))
    with pytest.raises(
        GoldenError, match=r"CONVOLVE.*ILLEGAL_OPERAND.*pass 1 is to be the last of a block, which has 1"
    ):
        run(STREAM, beyond, command("CONVOLVE", CONVOLVE), END, config=sparse)


def test_depthwise_without_its_hardware_is_refused() -> None:
    operands = {name: value for name, value in CONVOLVE.items() if name != "length"}
    legal = command("DEPTHWISE", operands, taps=4, x_stride=1, shared=0)
    with pytest.raises(GoldenError, match="configuration tiny is built without DEPTHWISE") as caught:
        run(STREAM, legal, END, config=replace(TINY, depthwise=False))
    assert caught.value.code is ErrorCode.ILLEGAL_OPERAND
    too_wide = command("DEPTHWISE", operands, taps=5, x_stride=1, shared=0, tile_height=TINY.accumulator_depth)
    with pytest.raises(GoldenError, match="5 taps in one pass, there are rows for 4") as caught:
        run(STREAM, too_wide, END)
    assert caught.value.code is ErrorCode.ILLEGAL_OPERAND


@pytest.mark.parametrize("combine", [Combine.NONE, Combine.ADD, Combine.MULTIPLY])
def test_settings_are_zero_before_they_are_set(combine: Combine) -> None:
    """Clamped between 0 and 0, every result is 0."""
    copy = command("LOAD", PIXELS, base=8)
    assert run(LOAD, copy, command("DRAIN", DRAIN, source=1, combine=combine), STORE, END) == [bytes(24)]


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (bytes(32), ErrorCode.ILLEGAL_OPCODE, "opcode 0 is not one of"),
        (b"\x0f" + bytes(31), ErrorCode.ILLEGAL_OPCODE, "opcode 15 is not one of"),
        (encode(LOAD)[:-1] + b"\x80", ErrorCode.ILLEGAL_OPERAND, "bits set behind"),
        (b"\x03" + bytes(31), ErrorCode.ILLEGAL_OPERAND, "STREAM.words must be from 1"),
    ],
)
def test_bytes_that_are_no_command_are_refused(data: bytes, code: ErrorCode, message: str) -> None:
    step = AcceleratorStep(commands=data + encode(END), constants=b"", inputs=(), outputs=())
    with pytest.raises(GoldenError, match=message) as caught:
        Golden(TINY).run(step, np.zeros((1, 0), np.uint8), 0)
    assert (caught.value.code, caught.value.offset) == (code, 0)
    assert str(caught.value).startswith(f"command at byte 0 (not a command) cannot be executed ({code.name}): ")
