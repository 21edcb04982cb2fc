# SPDX-License-Identifier: Apache-2.0
"""Random programs of commands, made from the command table alone, with the memory they need."""

import random
from dataclasses import dataclass

from loomwork.arch.command import Command
from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Params, Pool, Source, Unit, Window
from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.arch.reduction import depthwise_passes, pass_count
from loomwork.arch.skip import skip_operands
from loomwork.sim.testbench.commands import (
    Map,
    convolve_pixels,
    drain_operands,
    random_combine,
    random_requant,
    random_stream,
    random_tables,
    transfer,
)


@dataclass(frozen=True)
class TestProgram:
    """Commands, the windows they use, and the tensors they leave in the OUTPUTS window, end to end.

    STORE copies whole words; what lies behind the last byte of a row in its last word has no defined value.
    """

    __test__ = False

    config: Config
    commands: list[Command]
    constants: bytes
    inputs: bytes
    results: tuple[Map, ...]

    @property
    def output_bytes(self) -> int:
        """Size of the OUTPUTS window."""
        return sum(result.bytes(self.config) for result in self.results)

    def defined(self, window: bytes) -> bytes:
        """The bytes of the OUTPUTS window that have a defined value."""
        kept = bytearray()
        position = 0
        for result in self.results:
            for _ in range(result.height):
                kept += window[position : position + result.width * result.channels]
                position += result.pitch * self.config.rows
        return bytes(kept)

    @property
    def windows(self) -> dict[Window, bytes]:
        """Contents of all windows but the commands."""
        return {
            Window.CONSTANTS: self.constants,
            Window.INPUTS: self.inputs,
            Window.OUTPUTS: bytes(self.output_bytes),
            Window.WORKSPACE: b"",
        }


def copy_program(config: Config, generator: random.Random) -> TestProgram:
    """LOAD a tensor and STORE it again."""
    tensor = Map.at(config, 3, generator.randint(1, 9), generator.randint(1, 6), generator.randint(1, 2 * config.rows))
    commands = [
        transfer("LOAD", config, tensor, {}),
        transfer("STORE", config, tensor, {Unit.LOAD: 1}),
        Command("END"),
    ]
    inputs = generator.randbytes(tensor.bytes(config))
    return TestProgram(config, commands, b"", inputs, (tensor,))


def layer_program(
    config: Config, generator: random.Random, *, depthwise: bool = False, skips: bool = False
) -> TestProgram:
    """One random convolution with everything the commands allow, then a random pooling, each stored.

    depthwise: by DEPTHWISE instead of CONVOLVE. skips: with a SKIP in front of it; the configuration must have it.
    """
    g = generator
    kernel_h, kernel_w = g.randint(1, 4), g.randint(1, 3)
    row_step, stride = g.choice([1, 1, 2, 3]), g.randint(1, 2)
    channels, out_channels = g.randint(1, 2 * config.rows), g.randint(1, 2 * config.cols + 1)
    width = g.randint(1, 6)
    height = g.randint(1, 6)
    tile_width = g.randint(1, min(5, config.accumulator_depth))
    tile_height = g.randint(1, min(4, config.accumulator_depth // tile_width))
    taps = g.choice([1, 2])
    source = Map.at(config, g.randint(0, 5), height, width, channels)
    result = Map.at(config, source.end, tile_height, tile_width, out_channels)
    params = g.choice(list(Params))
    blocks = -(-out_channels // config.cols)
    unused: list[int] = []
    if depthwise:
        kernel = {"x_step": channels, "taps": g.randint(1, config.depthwise_taps), "x_stride": stride, "shared": 0}
        cut = list(depthwise_passes(config.depthwise_groups, kernel_h, row_step))
        passes = len(cut)
        executed = _executed(g, taps * passes, skips)
        unused = [
            executed.index(tile) * config.rows + row
            for tile, kernel_rows in enumerate(cut * taps)
            if tile in executed
            for row in range(config.rows)
            if row % config.depthwise_taps >= kernel["taps"] or row // config.depthwise_taps >= len(kernel_rows)
        ]
    else:
        kernel = {"x_step": stride * channels, "length": kernel_w * channels}
        passes = pass_count(config.rows, kernel_h, kernel["length"], row_step)
        executed = _executed(g, taps * passes, skips)
    stream, constants = random_stream(config, g, params, blocks, len(executed), unused)
    convolve = Command(
        "DEPTHWISE" if depthwise else "CONVOLVE",
        {
            **kernel,
            "base": source.base,
            "pitch": source.pitch,
            "height": height,
            "row_bytes": width * channels,
            "x_start": g.randint(-2, 2) * channels + g.choice([0, 0, 1]),
            "y_start": g.randint(-3, 2),
            "y_step": stride,
            "tap_count": taps,
            "tap_step": g.randint(0, 2) * channels,
            "row_step": row_step,
            "kernel_rows": kernel_h,
            "tile_width": tile_width,
            "tile_height": tile_height,
            "blocks": blocks,
            "block_step": g.choice([0, config.cols]),
            "pad": g.randint(INT8_MIN, INT8_MAX),
            "params": params,
            "ring": g.choice([0, 1]),
        },
        {Unit.LOAD: 1},
    )
    drain = Command(
        "DRAIN",
        drain_operands(Source.ACCUMULATOR, Map(0, 0, out_channels, 0, tile_width), result, params=params),
        {},
    )
    pool_height, pool_width = g.randint(1, tile_height), g.randint(1, tile_width)
    pooled = Map.at(config, result.end, tile_height - pool_height + 1, tile_width - pool_width + 1, out_channels)
    pool = Command(
        "DRAIN",
        drain_operands(
            Source.SCRATCHPAD, result, pooled, pool=g.choice([Pool.MAX, Pool.SUM]), window=(pool_height, pool_width)
        ),
        {Unit.DRAIN: 2},
    )
    commands = [
        transfer("LOAD", config, source, {}),
        stream,
        random_requant(g),
        *([Command("SKIP", skip_operands([n in executed for n in range(taps * passes)]))] if skips else []),
        convolve,
        drain,
        random_requant(g),
        pool,
        transfer("STORE", config, result, {Unit.DRAIN: 2}),
        transfer("STORE", config, pooled, {Unit.DRAIN: 4}, result.bytes(config)),
        Command("END"),
    ]
    return TestProgram(config, commands, constants, g.randbytes(source.bytes(config)), (result, pooled))


def _executed(g: random.Random, passes: int, skips: bool) -> list[int]:
    """The numbers of the passes of a block that are executed: all, or some of them."""
    if not skips:
        return list(range(passes))
    return sorted(g.sample(range(passes), g.randint(1, passes)))


def fused_program(config: Config, generator: random.Random, combine: Combine, pool: Pool) -> TestProgram:
    """The same `combine` and `pool` on the accumulators, behind a random 1x1 convolution, and on a scratchpad tensor.

    With ADD and MULTIPLY both take the same tensor as their operand, with TABLE each has a table of its own.
    """
    g = generator
    channels, out_channels = g.randint(1, 2 * config.rows), g.randint(1, 2 * config.cols + 1)
    width = g.randint(1, 5)
    height = g.randint(1, min(6, config.accumulator_depth // width))
    window = (1, 1) if pool is Pool.NONE else (g.randint(1, min(3, height)), g.randint(1, min(3, width)))
    step = (g.randint(1, 3), g.randint(1, 3))
    pooled = ((height - window[0]) // step[0] + 1, (width - window[1]) // step[1] + 1, out_channels)

    image = Map.at(config, g.randint(0, 5), height, width, channels)
    operand = Map.at(config, image.end, height, width, out_channels)
    values = Map.at(config, operand.end, height, width, out_channels)
    results = (first := Map.at(config, values.end, *pooled), Map.at(config, first.end, *pooled))

    params, blocks = g.choice(list(Params)), -(-out_channels // config.cols)
    stream, constants = random_stream(config, g, params, blocks, pass_count(config.rows, 1, channels, 1))
    sources = (
        drain_operands(Source.ACCUMULATOR, Map(0, 0, out_channels, 0, width), results[0], params, pool, window, step),
        drain_operands(Source.SCRATCHPAD, values, results[1], Params.UNIFORM, pool, window, step),
    )
    commands = [stream, convolve_pixels(g, image, blocks, params)]
    offset = 0
    for tensor in (image, operand, values):
        commands.insert(0, transfer("LOAD", config, tensor, {}, offset))
        offset += tensor.bytes(config)
    finished = [0, 0]  # commands of the drain, with each DRAIN
    for number, operands in enumerate(sources):
        commands += [random_requant(g), random_combine(g, operand, combine)]
        commands += random_tables(g) if combine is Combine.TABLE else []
        commands.append(Command("DRAIN", {**operands, "combine": combine}, {Unit.LOAD: 3}))
        finished[number] = sum(command.insn.unit is Unit.DRAIN for command in commands)
    commands.append(transfer("STORE", config, results[0], {Unit.DRAIN: finished[0]}))
    commands.append(transfer("STORE", config, results[1], {Unit.DRAIN: finished[1]}, results[0].bytes(config)))
    return TestProgram(config, [*commands, Command("END")], constants, g.randbytes(offset), results)
