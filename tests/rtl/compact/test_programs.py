# SPDX-License-Identifier: Apache-2.0
"""What the compact core computes: programs made by hand, random layers and networks, every bit of them."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from loomwork.arch.command import Command, decode_program
from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, Combine, Params, Pool, Source, Unit, Window, params_words
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.arch.reduction import depthwise_passes, pass_count, passes
from loomwork.arch.registers import ErrorCode
from loomwork.arch.skip import executed_passes
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import CompileError
from loomwork.fpga import board_backend
from loomwork.fpga.board_backend import BoardBackend
from loomwork.fpga.host_link import HostLink
from loomwork.sim.backend import Array, run_program
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.testbench.commands import Map, drain_operands, random_combine, random_requant, random_stream, transfer
from loomwork.sim.testbench.expected import golden_outputs
from loomwork.sim.testbench.programs import TestProgram, copy_program, fused_program, layer_program
from tests.layers import Case, random_case
from tests.networks import random_network
from tests.oracle import Oracle, run_tflite_micro
from tests.programs import network
from tests.rtl.compact.machines import BARE, EIGHT, FOUR, Machine, Stop, machine
from tests.rtl.compact.test_errors import FINE, smallest, with_operand

BOTH = pytest.mark.parametrize("config", [FOUR, EIGHT], ids=["4x4", "8x8"])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_backend.time, "sleep", lambda _: None)


def ready(config: Config) -> Machine:
    core = machine(config)
    core.reset()
    core.write("WATCHDOG", 300_000)
    return core


def without_unused_weights(program: TestProgram) -> TestProgram:
    """The same program, with zeros in the rows of weight tiles that meet no byte of the image, as the table asks for.

    Its one STREAM has all words of CONSTANTS.
    """
    rows, cols = program.config.rows, program.config.cols
    constants, word, skip = bytearray(program.constants), 0, None
    for command in program.commands:
        if command.mnemonic == "SKIP":
            skip = command.operands
        if command.mnemonic not in ("CONVOLVE", "DEPTHWISE"):
            continue
        if command.mnemonic == "CONVOLVE":
            cut = list(passes(rows, command["kernel_rows"], command["length"], command["row_step"]))
            used = [sum(segment.length for segment in segments) for segments in cut]
        else:  # those of DEPTHWISE are zero already
            cut = list(depthwise_passes(program.config.depthwise_groups, command["kernel_rows"], command["row_step"]))
            used = [rows] * len(cut)
        used *= command["tap_count"]
        for _ in range(command["blocks"]):
            for number in executed_passes(skip, len(used)):
                unused = slice((word + used[number]) * cols, (word + rows) * cols)
                constants[unused] = bytes((rows - used[number]) * cols)
                word += rows
            word += params_words(Params(command["params"]))
        skip = None
    return replace(program, constants=bytes(constants))


def check(program: TestProgram, note: object = "") -> None:
    """Run a program; what it stores is what the golden model stores."""
    core = ready(program.config)
    expected = program.defined(golden_outputs(program))
    assert core.run(program.commands, program.windows) == FINE, note
    found = program.defined(core.content(Window.OUTPUTS))
    assert found == expected, note


def run_both(program: Program, images: dict[str, np.ndarray], *, repeat: int = 1) -> Mapping[str, Array]:
    """The outputs of a compiled program, equal to the golden model's."""
    core = ready(program.config)
    backend = BoardBackend(cast(HostLink, core.link))
    expected = run_program(program, images, GoldenBackend()).outputs
    for _ in range(repeat):
        found = run_program(program, images, backend).outputs
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert np.array_equal(found[name], values), name
    return expected


def compiled(case: Case, config: Config) -> tuple[Program, dict[str, np.ndarray]]:
    program = compile_model(case.model_bytes, config, name="net")
    return program, dict(zip(program.inputs, (x.reshape(1, *x.shape[1:]) for x in case.inputs), strict=True))


# Programs made by hand


@BOTH
def test_copies_bring_out_what_they_bring_in(config: Config):
    generator = random.Random(1)
    for number in range(6):
        program = copy_program(config, generator)
        core = ready(config)
        assert core.run(program.commands, program.windows) == FINE, number
        assert core.content(Window.OUTPUTS) == program.inputs, number


@BOTH
@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("part", range(3))
def test_random_convolutions_and_poolings_are_those_of_the_golden_model(config: Config, depthwise: bool, part: int):
    generator = random.Random(f"layers {part}")
    for number in range(8):
        program = without_unused_weights(layer_program(config, generator, depthwise=depthwise))
        check(program, (number, program.commands))


@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("part", range(2))
def test_random_convolutions_with_skipped_passes_are_those_of_the_golden_model(depthwise: bool, part: int):
    generator = random.Random(f"skips {part}")
    for number in range(8):
        program = without_unused_weights(layer_program(FOUR, generator, depthwise=depthwise, skips=True))
        check(program, (number, program.commands))


@BOTH
@pytest.mark.parametrize(
    ("combine", "pool"),
    [
        *((Combine.ADD, Pool.NONE), (Combine.ADD, Pool.MAX), (Combine.NONE, Pool.MAX), (Combine.NONE, Pool.SUM)),
        *((Combine.TABLE, Pool.NONE), (Combine.TABLE, Pool.MAX), (Combine.TABLE, Pool.SUM)),
        *((Combine.MULTIPLY, Pool.NONE), (Combine.MULTIPLY, Pool.MAX), (Combine.NONE, Pool.NONE)),
    ],
    ids=lambda kind: kind.name,
)
def test_second_stages_and_pools_are_those_of_the_golden_model(config: Config, combine: Combine, pool: Pool):
    generator = random.Random(f"fused {combine} {pool}")
    for number in range(4):
        program = without_unused_weights(fused_program(config, generator, combine, pool))
        check(program, (number, program.commands))


def cut_streams(program: TestProgram, generator: random.Random) -> TestProgram:
    """The same program, whose weights come by several STREAMs, each from an odd place."""
    config = program.config
    (at,) = [n for n, command in enumerate(program.commands) if command.mnemonic == "STREAM"]
    words, cols = program.commands[at]["words"], config.cols
    places = sorted(generator.sample(range(1, words), min(words - 1, generator.randint(1, config.queue_depth - 1))))
    constants, streams = bytearray(generator.randbytes(5 * config.bus_bytes)), []
    for first, end in zip([0, *places], [*places, words], strict=True):
        streams.append(smallest("STREAM", window=Window.CONSTANTS, offset=len(constants), words=end - first))
        constants += program.constants[first * cols : end * cols]
        constants += generator.randbytes(
            -len(constants) % config.bus_bytes + generator.randint(0, 3) * config.bus_bytes
        )
    commands = [*program.commands[:at], *program.commands[at + 1 :]]
    commands[at:at] = streams
    return replace(program, commands=commands, constants=bytes(constants))


@BOTH
@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
def test_streams_may_end_anywhere_in_weights_and_parameters(config: Config, depthwise: bool):
    generator = random.Random("streams")
    for number in range(8):
        program = without_unused_weights(layer_program(config, generator, depthwise=depthwise))
        check(cut_streams(program, generator), (number, program.commands))


@BOTH
def test_many_short_streams_come_before_the_convolution_that_uses_them(config: Config):
    """More than wait in the queue of STREAM: those in front of them are fetched ahead."""
    program = tiles_program(config, random.Random(3), [1], early=1)
    (at,) = [n for n, command in enumerate(program.commands) if command.mnemonic == "STREAM"]
    words = program.commands[at]["words"]
    streams = [smallest("STREAM", window=Window.CONSTANTS, offset=word * config.cols, words=1) for word in range(words)]
    assert len(streams) > config.queue_depth + 1
    check(replace(program, commands=[*program.commands[:at], *streams, *program.commands[at + 1 :]]))


def ring_program(config: Config, g: random.Random, *, depthwise: bool) -> TestProgram:
    """A convolution whose kernel rows go beyond the end of a ring."""
    ring, kernel_rows, row_step = g.randint(1, 3), g.randint(1, 5), g.choice([1, 1, 2])
    width, channels = g.randint(2, 4), g.randint(1, config.rows)
    y_step, tile_height = g.randint(1, 2), g.randint(1, 4)
    image = Map.at(config, g.randint(0, 5), 4 * ring, width, channels)
    reach = (tile_height - 1) * y_step + (kernel_rows - 1) * row_step
    y_start = g.randint(-2, max(0, 8 * ring - 1 - reach))
    operands = {
        "base": image.base,
        "pitch": image.pitch,
        "height": g.randint(4 * ring, 8 * ring),
        "ring": ring,
        "row_bytes": width * channels,
        "y_start": y_start,
        "y_step": y_step,
        "row_step": row_step,
        "kernel_rows": kernel_rows,
        "x_step": channels,
        "tile_width": width,
        "tile_height": tile_height,
        "pad": g.randint(-128, 127),
        "params": Params.BIAS,
        **({"taps": 1, "x_stride": 1} if depthwise else {"length": channels}),
    }
    groups = config.depthwise_groups
    cut = list(depthwise_passes(groups, kernel_rows, row_step))
    tiles = len(cut) if depthwise else pass_count(config.rows, kernel_rows, channels, row_step)
    used = {
        tile * config.rows + group * config.depthwise_taps
        for tile, rows in enumerate(cut)
        for group in range(len(rows))
    }
    unused = set(range(tiles * config.rows)) - used if depthwise else ()
    stream, constants = random_stream(config, g, Params.BIAS, 1, tiles, unused)
    out_channels = min(channels, config.cols)
    result = Map.at(config, image.end, tile_height, width, out_channels)
    drain = drain_operands(Source.ACCUMULATOR, Map(0, 0, out_channels, 0, width), result, Params.BIAS)
    convolve = smallest("DEPTHWISE" if depthwise else "CONVOLVE", **operands)
    commands = [
        *(transfer("LOAD", config, image, {}), stream, random_requant(g), replace(convolve, waits={Unit.LOAD: 1})),
        *(Command("DRAIN", drain), transfer("STORE", config, result, {Unit.DRAIN: 2}), Command("END")),
    ]
    program = TestProgram(config, commands, constants, g.randbytes(image.bytes(config)), (result,))
    return without_unused_weights(program)


@BOTH
@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
def test_rows_of_a_ring_lie_at_its_beginning_behind_its_end(config: Config, depthwise: bool):
    g = random.Random("rings")
    for number in range(12):
        program = ring_program(config, g, depthwise=depthwise)
        check(program, (number, program.commands))


def tiles_program(config: Config, g: random.Random, sizes: list[int], *, early: int) -> TestProgram:
    """1x1 convolutions of one image, of so many blocks each; so many of them are in front of the first DRAIN."""
    width, height, channels = 5, 3, config.rows + 3
    image = Map.at(config, 2, height, width, channels)
    base, constants, results = image.end, b"", []
    convolves, drains, streams = [], [], []
    for blocks in sizes:
        params = g.choice(list(Params))
        stream, data = random_stream(config, g, params, blocks, 2)
        streams.append(with_operand(stream, offset=len(constants)))
        constants += data
        operands = dict(smallest("CONVOLVE").operands) | {
            "base": image.base,
            "pitch": image.pitch,
            "height": height,
            "row_bytes": width * channels,
            "x_step": channels,
            "y_step": 1,
            "length": channels,
            "tile_width": width,
            "tile_height": height,
            "blocks": blocks,
            "params": params,
        }
        convolves.append(Command("CONVOLVE", operands, {Unit.LOAD: 1}))
        result = Map.at(config, base, height, width, blocks * config.cols - g.randint(0, config.cols - 1))
        base = result.end
        accumulators = Map(0, 0, result.channels, 0, width)
        drains.append(Command("DRAIN", drain_operands(Source.ACCUMULATOR, accumulators, result, params=params)))
        results.append(result)
    commands = [transfer("LOAD", config, image, {}), random_requant(g)]
    for number, convolve in enumerate(convolves):
        commands += [streams[number], convolve]
        commands += drains[number - early + 1 : number - early + 2] if number >= early - 1 else []
    commands += drains[len(convolves) - early + 1 :]
    offset = 0
    for number, result in enumerate(results):
        commands.append(transfer("STORE", config, result, {Unit.DRAIN: number + 2}, offset))
        offset += result.bytes(config)
    inputs = g.randbytes(image.bytes(config))
    program = TestProgram(config, [*commands, Command("END")], constants, inputs, tuple(results))
    return without_unused_weights(program)


@BOTH
@pytest.mark.parametrize(
    ("sizes", "early"),
    [([5], 1), ([3, 2, 4], 2), ([1, 1, 1, 1, 1], 3), ([3, 1, 1, 1], 4), ([2, 2, 3], 3), ([1, 1, 1, 1], 4)],
    ids=str,
)
def test_blocks_wait_for_accumulators_until_drains_come_later(config: Config, sizes: list[int], early: int):
    check(tiles_program(config, random.Random(f"{sizes} {early}"), sizes, early=early))


@BOTH
def test_a_queue_takes_commands_beside_the_one_that_runs(config: Config):
    """The first CONVOLVE waits for its DRAIN, which comes behind as many others as wait in a queue."""
    sizes = [3, *[1] * config.queue_depth]
    program = tiles_program(config, random.Random(8), sizes, early=len(sizes))
    # All weights by the first two STREAMs, so that only EXECUTE's queue is full.
    check(one_stream(program))


def one_stream(program: TestProgram) -> TestProgram:
    streams = [command for command in program.commands if command.mnemonic == "STREAM"]
    words = sum(command["words"] for command in streams)
    assert words * program.config.cols == len(program.constants)
    others = [command for command in program.commands if command.mnemonic != "STREAM"]
    stream = smallest("STREAM", window=Window.CONSTANTS, words=words)
    return replace(program, commands=[stream, *others])


@BOTH
@pytest.mark.parametrize("part", range(2))
def test_drains_take_pixels_of_the_accumulators_with_strides(config: Config, part: int):
    g = random.Random(f"strides {part}")
    for number in range(6):
        pool = g.choice(list(Pool))
        program = tiles_program(config, g, [g.randint(1, 3)], early=1)
        (at,) = [n for n, command in enumerate(program.commands) if command.mnemonic == "DRAIN"]
        x_step, y_step = g.randint(0, 3), g.randint(0, 2)
        window = (1, 1) if pool is Pool.NONE else (g.randint(1, 2), g.randint(1, 2))
        width = g.randint(1, 2) if x_step else 3
        height = 2 if y_step < 3 - window[0] else 1
        width = min(width, 1 + (5 - window[1]) // x_step) if x_step else width
        result = replace(program.results[0], height=height, width=width)
        drain = drain_operands(
            Source.ACCUMULATOR,
            Map(0, 0, result.channels, 0, g.choice([5, 5, 4, 0])),
            result,
            Params(program.commands[at]["params"]),
            pool,
            window,
            (y_step, x_step),
        )
        commands = list(program.commands)
        commands[at] = Command("DRAIN", drain)
        commands[-2] = transfer("STORE", config, result, {Unit.DRAIN: 2})
        check(replace(program, commands=commands, results=(result,)), (number, drain))


@BOTH
def test_a_maximum_is_that_of_the_requantized_values_where_the_bias_overflows(config: Config):
    g = random.Random(12)
    values = Map.at(config, 0, 3, 4, 3)
    result = Map.at(config, values.end, 2, 3, 3)
    drain = drain_operands(Source.SCRATCHPAD, values, result, pool=Pool.MAX, window=(2, 2))
    for bias, shift in (
        ((1 << 31) - 1, -24),
        (-(1 << 31), -24),
        ((1 << 31) - 60, -23),
        ((1 << 24) - 1, 7),
        (1 << 30, 1),
    ):
        requant = with_operand(random_requant(g), bias=bias, shift=shift, minimum=-128, maximum=127, zero_point=0)
        commands = [
            transfer("LOAD", config, values, {}),
            requant,
            Command("DRAIN", drain, {Unit.LOAD: 1}),
            transfer("STORE", config, result, {Unit.DRAIN: 2}),
            Command("END"),
        ]
        program = TestProgram(config, commands, b"", g.randbytes(values.bytes(config)), (result,))
        check(program, (bias, shift))


def pixel_program(
    config: Config, g: random.Random, operands: dict[str, int], tiles: int, image_bytes: int
) -> TestProgram:
    """A CONVOLVE or DEPTHWISE of an image of one row, with random weights."""
    image = Map.at(config, 0, 1, 1, image_bytes)
    stream, constants = random_stream(config, g, Params.UNIFORM, 1, tiles)
    mnemonic = "DEPTHWISE" if "taps" in operands else "CONVOLVE"
    place = {"base": 0, "pitch": image.pitch, "height": 1, "row_bytes": image_bytes, "pad": 5}
    convolve = smallest(mnemonic, **place | operands)
    width, height = convolve["tile_width"], convolve["tile_height"]
    result = Map.at(config, image.end, height, width, config.cols)
    drain = drain_operands(Source.ACCUMULATOR, Map(0, 0, config.cols, 0, width), result)
    commands = [
        transfer("LOAD", config, image, {}),
        stream,
        with_operand(random_requant(g), shift=-5),
        replace(convolve, waits={Unit.LOAD: 1}),
        Command("DRAIN", drain),
        transfer("STORE", config, result, {Unit.DRAIN: 2}),
        Command("END"),
    ]
    program = TestProgram(config, commands, constants, g.randbytes(image.bytes(config)), (result,))
    return without_unused_weights(program)


FAR = {
    "rows below": {"y_start": 634, "kernel_rows": 251, "row_step": 63, "x_step": 4, "tile_width": 16},
    "rows far above": {"y_start": -4096, "y_step": 15, "tile_height": 3},
    "taps to the right": {"x_start": 16, "tap_count": 17, "tap_step": 65535, "length": 4},
    "pixels to the right": {"x_start": 8319, "x_step": 8191, "tile_width": 128, "length": 4},
    "far left": {"x_start": -131072, "x_step": 8191, "tile_width": 17, "length": 4},
    "columns": {"taps": 2, "x_stride": 2, "x_step": 4100, "tile_width": 2},
}


TOO_FAR = ("rows below", "taps to the right", "pixels to the right", "columns")
"""Further than the engine counts (LAST_ROW, LAST_BYTE, LAST_STEP of the firmware's header)."""


@BOTH
@pytest.mark.parametrize("case", FAR)
def test_what_lies_far_outside_of_the_image_is_padding_or_refused(config: Config, case: str):
    operands = FAR[case]
    if operands.get("tile_width", 1) > config.accumulator_depth:
        operands = operands | {"tile_width": config.accumulator_depth}
    full = smallest("DEPTHWISE" if "taps" in operands else "CONVOLVE", **operands)
    tiles = full["tap_count"]
    if "taps" not in operands:
        tiles *= pass_count(config.rows, full["kernel_rows"], full["length"], full["row_step"])
    image_bytes = 8300 if case == "columns" else 64
    program = pixel_program(config, random.Random(case), operands, tiles, image_bytes)
    if case not in TOO_FAR:
        check(program)
        return
    (at,) = [n for n, command in enumerate(program.commands) if command.mnemonic == full.mnemonic]
    core = ready(config)
    assert core.run(program.commands, program.windows) == Stop(ErrorCode.ILLEGAL_OPERAND, COMMAND_BYTES * at)
    core.reset()


@BOTH
def test_two_programs_in_a_row_do_not_know_of_each_other(config: Config):
    """Settings, skips, blocks and what is left of a command are gone with the next start."""
    g = random.Random(33)
    kinds = (Combine.ADD, Combine.TABLE)
    programs = [without_unused_weights(fused_program(config, g, kind, Pool.NONE)) for kind in kinds]
    combine = replace(random_combine(g, Map.at(config, 9, 2, 2, 2), Combine.ADD), waits={})
    halted = [random_requant(g), combine, smallest("LOAD", base=65535), Command("END")]
    unset = Command("DRAIN", smallest("DRAIN", source=Source.SCRATCHPAD, channels=4, out_step=4).operands)
    result = Map.at(config, 0, 1, 1, 4)
    plain = TestProgram(
        config,
        [unset, transfer("STORE", config, result, {Unit.DRAIN: 1}), Command("END")],
        b"",
        b"",
        (result,),
    )
    core = ready(config)
    for program in programs:
        assert core.run(halted, {}).code
        core.reset()
        check(program)
        check(plain)


@pytest.mark.parametrize("interrupted", range(0, 40_000, 4_000))
def test_a_program_that_is_interrupted_leaves_nothing_to_the_next(interrupted: int):
    g = random.Random(6)
    core = ready(FOUR)
    program = layer_program(FOUR, g, depthwise=True, skips=True)
    core.load(program.commands, program.windows)
    core.start()
    core.link.step(interrupted)
    core.reset()
    check(without_unused_weights(layer_program(FOUR, g)))
    check(without_unused_weights(fused_program(FOUR, g, Combine.ADD, Pool.MAX)))


@BOTH
def test_nothing_depends_on_what_the_memory_of_the_firmware_holds_at_power_on(config: Config):
    core = ready(config)
    layout = core.layout
    noise = random.Random(2).randbytes(layout.registers - layout.data - 512)  # the stack's end is in use
    for content in (noise, b"\xff" * len(noise)):
        core.link.write_memory(layout.data, content)
        g = random.Random(71)
        for combine, pool in ((Combine.NONE, Pool.NONE), (Combine.TABLE, Pool.NONE), (Combine.NONE, Pool.MAX)):
            core.link.write_memory(layout.data, content)
            check(without_unused_weights(fused_program(config, g, combine, pool)), (combine, pool))
        check(without_unused_weights(layer_program(config, g)))


# Layers and networks


KINDS = ("conv_2d", "depthwise_conv_2d", "add", "max_pool_2d", "average_pool_2d", "mean", "fully_connected")
GRAPHS = (
    "conv_table_max_pool",
    "conv_add_residual",
    "depthwise_pointwise",
    "pad_conv",
    "conv_mean_fully_connected_softmax",
)


@BOTH
@pytest.mark.parametrize("kind", [*KINDS, *GRAPHS, "tanh", "quantize"])
def test_random_layers_are_those_of_the_golden_model(config: Config, kind: str):
    wanted = 5 if kind in ("conv_2d", "depthwise_conv_2d") else 2
    for seed in range(1000, 1100):
        try:
            program, images = compiled(random_case(seed, kind), config)
        except CompileError:  # its scales are none that the accelerator has
            continue
        run_both(program, images)
        wanted -= any(isinstance(step, AcceleratorStep) for step in program.steps)
        if not wanted:
            return
    pytest.fail("hardly any of these layers can be compiled")


@BOTH
def test_a_network_computes_what_tflite_micro_does_image_after_image(config: Config):
    images = np.random.default_rng(17).integers(-128, 128, (5, 6, 6, 3), dtype=np.int8)
    expected = np.concatenate([run_tflite_micro(network(), [image[np.newaxis]])[0] for image in images])
    assert len(np.unique(expected, axis=0)) > 1
    program = compile_model(network(), config, name="net")
    found = run_both(program, {program.inputs[0]: images}, repeat=2)[program.outputs[0]]
    assert np.array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize(
    ("config", "style", "seed"), [(FOUR, "resnet", 3), (EIGHT, "mobilenet_v1", 2), (EIGHT, "vgg", 1)]
)
def test_random_networks_compute_what_tflite_micro_does(config: Config, style: str, seed: int):
    case = random_network(seed, style)
    program, images = compiled(case, config)
    outputs = run_both(program, images)
    expected = Oracle(case.model_bytes).run(case.inputs)
    for name, values in zip(program.outputs, expected, strict=True):
        assert np.array_equal(outputs[name].reshape(values.shape), values)


@pytest.mark.parametrize(("style", "seed"), [("mobilenet_v1", 100), ("keywords", 27)])
def test_networks_whose_rows_go_through_rings_compute_what_tflite_micro_does(style: str, seed: int):
    case = random_network(seed, style)
    program, images = compiled(case, BARE)
    steps = [step for step in program.steps if isinstance(step, AcceleratorStep)]
    assert any(command.operands.get("ring") for step in steps for command in decode_program(step.commands))
    (name,) = images
    again = np.flip(images[name], axis=1)
    found = run_both(program, {name: np.concatenate([images[name], again])})
    for number, image in enumerate((images[name], again)):
        (expected,) = Oracle(case.model_bytes).run([image])
        (values,) = found.values()
        assert np.array_equal(values[number].reshape(expected.shape), expected)
