"""Random programs of commands, made from the command table alone, with the memory they need."""

import random
from dataclasses import dataclass

from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Command, Params, Pool, Source, Unit, Window, params_words
from loomwork.arch.numerics import INT8_MAX, INT8_MIN, Rounding
from loomwork.arch.reduction import pass_count


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
    results: tuple["Map", ...]

    @property
    def output_bytes(self) -> int:
        """Size of the OUTPUTS window."""
        return sum(result.height * result.pitch * self.config.rows for result in self.results)

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


@dataclass(frozen=True)
class Map:
    """A tensor `[height, width, channels]` and its place in the scratchpad."""

    height: int
    width: int
    channels: int
    base: int
    pitch: int

    @classmethod
    def at(cls, config: Config, base: int, height: int, width: int, channels: int) -> "Map":
        """A map that begins at word `base`, its rows packed as tightly as the scratchpad allows."""
        return cls(height, width, channels, base, -(-width * channels // config.rows))

    @property
    def end(self) -> int:
        """First word behind it in every bank."""
        return self.base + -(-self.height // 4) * self.pitch


def transfer(mnemonic: str, config: Config, tensor: Map, waits: dict[Unit, int]) -> Command:
    """LOAD or STORE of a whole tensor that lies alone in its window."""
    return Command(
        mnemonic,
        {
            "window": Window.INPUTS if mnemonic == "LOAD" else Window.OUTPUTS,
            "offset": 0,
            "row_stride": tensor.pitch * config.rows,
            "base": tensor.base,
            "pitch": tensor.pitch,
            "row": 0,
            "rows": tensor.height,
            "words": tensor.pitch,
        },
        waits,
    )


def copy_program(config: Config, generator: random.Random) -> TestProgram:
    """LOAD a tensor and STORE it again."""
    tensor = Map.at(config, 3, generator.randint(1, 9), generator.randint(1, 6), generator.randint(1, 2 * config.rows))
    commands = [
        transfer("LOAD", config, tensor, {}),
        transfer("STORE", config, tensor, {Unit.LOAD: 1}),
        Command("END"),
    ]
    inputs = generator.randbytes(tensor.height * tensor.pitch * config.rows)
    return TestProgram(config, commands, b"", inputs, (tensor,))


def layer_program(config: Config, generator: random.Random) -> TestProgram:
    """One random convolution with everything the commands allow, then a random pooling, both stored as one tensor."""
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
    length, blocks = kernel_w * channels, -(-out_channels // config.cols)
    words = blocks * (taps * pass_count(config.rows, kernel_h, length, row_step) * config.rows + params_words(params))
    constants = bytearray(g.randbytes(words * config.cols + -words * config.cols % config.bus_bytes))
    _make_params_legal(constants, config, params, blocks, words // blocks)
    convolve = Command(
        "CONVOLVE",
        {
            "base": source.base,
            "pitch": source.pitch,
            "height": height,
            "row_bytes": width * channels,
            "x_start": g.randint(-2, 2) * channels + g.choice([0, 0, 1]),
            "x_step": stride * channels,
            "y_start": g.randint(-3, 2),
            "y_step": stride,
            "tap_count": taps,
            "tap_step": g.randint(0, 2) * channels,
            "row_step": row_step,
            "length": length,
            "kernel_rows": kernel_h,
            "tile_width": tile_width,
            "tile_height": tile_height,
            "blocks": blocks,
            "block_step": g.choice([0, config.cols]),
            "pad": g.randint(INT8_MIN, INT8_MAX),
            "params": params,
        },
        {Unit.LOAD: 1},
    )
    drain = Command(
        "DRAIN",
        _drain(Source.ACCUMULATOR, Map(0, 0, out_channels, 0, tile_width), result, params=params),
        {},
    )
    pool_height, pool_width = g.randint(1, tile_height), g.randint(1, tile_width)
    pooled = Map.at(config, result.end, tile_height - pool_height + 1, tile_width - pool_width + 1, out_channels)
    pool = Command(
        "DRAIN",
        _drain(
            Source.SCRATCHPAD, result, pooled, pool=g.choice([Pool.MAX, Pool.SUM]), window=(pool_height, pool_width)
        ),
        {Unit.DRAIN: 2},
    )
    commands = [
        transfer("LOAD", config, source, {}),
        Command("STREAM", {"window": Window.CONSTANTS, "offset": 0, "words": words}),
        _requant(g),
        convolve,
        drain,
        _requant(g),
        pool,
        transfer("STORE", config, result, {Unit.DRAIN: 2}),
    ]
    store = transfer("STORE", config, pooled, {Unit.DRAIN: 4})
    result_bytes = result.height * result.pitch * config.rows
    commands += [Command("STORE", {**store.operands, "offset": result_bytes}, store.waits), Command("END")]
    inputs = g.randbytes(height * source.pitch * config.rows)
    return TestProgram(config, commands, bytes(constants), inputs, (result, pooled))


def _requant(g: random.Random) -> Command:
    low, high = sorted((g.randint(INT8_MIN, INT8_MAX), g.randint(INT8_MIN, INT8_MAX)))
    if g.random() < 0.7:
        low, high = INT8_MIN, INT8_MAX
    return Command(
        "REQUANT",
        {
            "bias": g.randint(-(1 << 12), 1 << 12),
            "multiplier": g.randint(1 << 30, (1 << 31) - 1),
            "shift": g.choice([-10, -7, -5, -1, 0, 1]),
            "zero_point": g.randint(INT8_MIN, INT8_MAX),
            "minimum": low,
            "maximum": high,
            "rounding": g.choice(list(Rounding)),
        },
    )


def _drain(
    source: Source,
    tensor: Map,
    result: Map,
    *,
    params: Params = Params.UNIFORM,
    pool: Pool = Pool.NONE,
    window: tuple[int, int] = (1, 1),
) -> dict[str, int]:
    return {
        "source": source,
        "in_base": tensor.base,
        "in_pitch": tensor.pitch,
        "in_row": 0,
        "in_offset": 0,
        "in_step": tensor.channels,
        "out_base": result.base,
        "out_pitch": result.pitch,
        "out_row": 0,
        "out_offset": 0,
        "out_step": result.channels,
        "width": result.width,
        "height": result.height,
        "channels": result.channels,
        "pool": pool,
        "pool_height": window[0],
        "pool_width": window[1],
        "pool_y_step": 1,
        "pool_x_step": 1,
        "combine": Combine.NONE,
        "params": params,
    }


def _make_params_legal(constants: bytearray, config: Config, params: Params, blocks: int, words_per_block: int) -> None:
    """Random bytes are legal weights, but multipliers must not be negative and shifts stay in range."""
    if params is not Params.PER_CHANNEL:
        return
    for block in range(blocks):
        end = (block + 1) * words_per_block * config.cols
        shifts = end - config.cols
        for channel in range(config.cols):
            constants[shifts - 4 * config.cols + 4 * channel + 3] &= 0x7F
            constants[shifts + channel] = (constants[shifts + channel] % 16 - 12) & 0xFF
