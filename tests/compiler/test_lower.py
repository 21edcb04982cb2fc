# SPDX-License-Identifier: Apache-2.0
"""Lowering of single layers: structure of the commands, order of the weights, limits of the command set."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from loomwork.arch.command import Command, decode_program
from loomwork.arch.config import BASE, SMALL, TINY, Config
from loomwork.arch.isa import Params
from loomwork.arch.reduction import passes
from loomwork.compiler.driver import compile_graph
from loomwork.compiler.graph import AveragePool, CompileError, Convolution, FeatureMap, MaxPool
from loomwork.compiler.mapping import map_convolution
from loomwork.compiler.sparsity import BlockRun
from loomwork.compiler.weights import ConstantPool, pack_weights, params_mode
from loomwork.sim.golden import Golden
from loomwork.sim.memory import pack_inputs, unpack_outputs, window_bytes
from tests.compiler.execution import check
from tests.compiler.random_graphs import GraphMaker

SHALLOW = Config(name="shallow", rows=4, cols=4, scratchpad_kib=512, accumulator_depth=16, bus_bytes=4, requant_lanes=4)


def commands_of(maker: GraphMaker, output: str, config: Config, mnemonic: str) -> list[Command]:
    step, _ = compile_graph(maker.graph(output), config)
    return [command for command in decode_program(step.commands) if command.mnemonic == mnemonic]


def convolution(maker: GraphMaker) -> tuple[Convolution, FeatureMap]:
    layer = maker.layers[-1]
    assert isinstance(layer, Convolution)
    return layer, maker.maps[layer.input]


@pytest.mark.parametrize(
    ("channels", "outputs", "dilation", "depthwise"),
    [(3, 5, 1, False), (3, 5, 2, False), (8, 8, 1, True), (4, 8, 1, True), (3, 9, 1, True), (1, 6, 2, True)],
)
def test_weights_lie_in_the_order_of_the_array(channels: int, outputs: int, dilation: int, depthwise: bool) -> None:
    maker = GraphMaker(5)
    maker.convolution(maker.input(9, 9, channels), outputs, dilation=(1, dilation), depthwise=depthwise)
    layer, source = convolution(maker)
    mapping = map_convolution(layer, source, replace(TINY, depthwise=False))
    data = pack_weights(layer, mapping, TINY, [BlockRun(0, outputs, mapping.blocks)])
    words = iter(np.frombuffer(data, dtype=np.int8).reshape(-1, TINY.cols))
    for block, tap in product(range(mapping.blocks), range(mapping.tap_count)):
        first_byte = block * mapping.block_step + tap * mapping.tap_step
        for segments in passes(TINY.rows, mapping.kernel_rows, mapping.length, mapping.row_step):
            origin = {
                segment.row + i: (segment.kernel_row, first_byte + segment.start + i)
                for segment in segments
                for i in range(segment.length)
            }
            for row in range(TINY.rows):
                expected = [
                    weight_of_byte(layer, source, *origin[row], block * TINY.cols + column) if row in origin else 0
                    for column in range(TINY.cols)
                ]
                assert next(words).tolist() == expected
        if tap == mapping.tap_count - 1:
            params = b"".join(next(words).tobytes() for _ in range(9))
            first = block * TINY.cols
            end = min(first + TINY.cols, outputs)
            for values, start, dtype in (
                (layer.requantize.bias, 0, "<i4"),
                (layer.requantize.multiplier, 16, "<i4"),
                (layer.requantize.shift, 32, "i1"),
            ):
                packed = np.frombuffer(params, dtype=dtype, offset=start)
                assert packed[: end - first].tolist() == values[first:end].tolist()
    assert next(words, None) is None


@pytest.mark.parametrize(("kernel", "channels"), [((3, 3), 16), ((5, 7), 21), ((6, 2), 16), ((1, 4), 40)])
@pytest.mark.parametrize("row_step", [1, 2])
def test_depthwise_weights_lie_in_the_groups_of_their_kernel_rows(
    kernel: tuple[int, int], channels: int, row_step: int
) -> None:
    """On 16 rows: 4 groups of 4; a pass takes 4 kernel rows, or 2 when they are two image rows apart."""
    maker = GraphMaker(5)
    maker.convolution(maker.input(20, 20, channels), channels, kernel=kernel, dilation=(row_step, 1), depthwise=True)
    layer, source = convolution(maker)
    mapping = map_convolution(layer, source, BASE)
    words = pack_weights(layer, mapping, BASE, [BlockRun(0, channels, mapping.blocks)])
    found = np.frombuffer(words, dtype=np.int8).reshape(-1, 16)
    per_pass = 2 if row_step == 2 and kernel[0] > 1 else 4
    width = -(-kernel[1] // -(-kernel[1] // 4))
    position = 0
    for block in range(-(-channels // 16)):
        for group, first in product(range(-(-kernel[1] // width)), range(0, kernel[0], per_pass)):
            tile = np.zeros((4, 4, 16), dtype=np.int8)
            for row, k, column in product(range(per_pass), range(width), range(16)):
                place = first + row, group * width + k, block * 16 + column
                if place < (kernel[0], 0) and place[1] < kernel[1] and place[2] < channels:
                    tile[row, k, column] = layer.kernel[place[0], place[1], 0, place[2]]
            assert np.array_equal(found[position : position + 16], tile.reshape(16, 16))
            position += 16
        position += 9
    assert position == len(found)


def weight_of_byte(layer: Convolution, source: FeatureMap, kernel_row: int, byte: int, output: int) -> int:
    """The weight that an output channel gives a byte, counted from the kernel's first pixel in that row."""
    pixel, channel = divmod(byte, source.channels)
    column, gap = divmod(pixel, layer.dilation[1])
    if gap or column >= layer.kernel.shape[1] or output >= layer.kernel.shape[3]:
        return 0
    if not layer.depthwise:
        return int(layer.kernel[kernel_row, column, channel, output])
    reads = output // (layer.kernel.shape[3] // source.channels)
    return int(layer.kernel[kernel_row, column, 0, output]) if channel == reads else 0


@pytest.mark.parametrize(
    ("kernel", "channels", "outputs", "depthwise", "dilation", "diagonal", "taps"),
    [
        ((3, 3), 16, 16, False, (1, 1), False, 1),
        ((3, 3), 16, 16, False, (2, 2), False, 3),
        # Dilation in x parts the columns that a depthwise pass takes; in y it does not.
        ((3, 3), 64, 64, True, (1, 2), True, 3),
        ((3, 3), 64, 64, True, (2, 2), True, 3),
        ((3, 3), 64, 64, True, (2, 1), False, 1),
        ((3, 3), 64, 64, True, (1, 1), False, 1),
        # 5 columns are two groups of 3.
        ((5, 5), 64, 64, True, (1, 1), False, 2),
        # Each channel makes two.
        ((3, 3), 32, 64, True, (1, 1), True, 3),
        # One input channel: the kernel's rows fill the array.
        ((10, 8), 1, 8, True, (1, 1), False, 1),
        # 3 does not divide the array's width.
        ((3, 3), 8, 24, True, (1, 1), False, 1),
    ],
)
def test_the_mapping_with_the_fewest_cycles_is_taken(
    kernel: tuple[int, int],
    channels: int,
    outputs: int,
    depthwise: bool,
    dilation: tuple[int, int],
    diagonal: bool,
    taps: int,
) -> None:
    maker = GraphMaker(0)
    maker.convolution(maker.input(20, 20, channels), outputs, kernel=kernel, dilation=dilation, depthwise=depthwise)
    mapping = map_convolution(*convolution(maker), BASE)
    assert (mapping.diagonal, mapping.tap_count) == (diagonal, taps)


@pytest.mark.parametrize(("config", "passes"), [(TINY, 3), (SMALL, 2), (BASE, 1), (replace(BASE, depthwise=False), 9)])
def test_passes_of_a_depthwise_block(config: Config, passes: int) -> None:
    """As many as it takes for 3 kernel rows, with one group, two, four; without them one for each tap."""
    maker = GraphMaker(0)
    maker.convolution(maker.input(20, 20, 64), 64, depthwise=True)
    mapping = map_convolution(*convolution(maker), config)
    assert (mapping.passes, mapping.depthwise) == (passes, config.depthwise)


@pytest.mark.parametrize(("stride", "depthwise"), [(1, True), (2, True), (4, False), (9, False)])
def test_few_outputs_of_many_columns_are_no_depthwise_pass(stride: int, depthwise: bool) -> None:
    """A 1x9 kernel on 16 rows: 3 passes of `stride` columns per output, or 9 of one each."""
    maker = GraphMaker(0)
    source = maker.input(1, 250, 64)
    maker.convolution(source, 64, kernel=(1, 9), stride=(1, stride), depthwise=True)
    assert map_convolution(*convolution(maker), BASE).depthwise == depthwise


def test_strides_and_columns_beyond_the_command_keep_the_diagonal() -> None:
    wide = GraphMaker(0)
    wide.convolution(wide.input(8, 8, 8192), 8192, depthwise=True)
    assert map_convolution(*convolution(wide), BASE).diagonal
    far = GraphMaker(0)
    far.convolution(far.input(40, 40, 64), 64, stride=(1, 16), depthwise=True)
    assert map_convolution(*convolution(far), BASE).diagonal


@pytest.mark.parametrize("config", [TINY, SMALL, BASE, replace(SMALL, depthwise=False)], ids=lambda c: c.name)
@pytest.mark.parametrize(
    ("kernel", "channels", "stride", "dilation"),
    [
        ((3, 3), 19, (1, 1), (1, 1)),
        ((5, 7), 33, (2, 2), (1, 1)),
        ((3, 3), 16, (1, 2), (2, 1)),
        ((3, 2), 9, (3, 1), (4, 1)),
    ],
)
def test_depthwise_layers_are_exact(
    config: Config, kernel: tuple[int, int], channels: int, stride: tuple[int, int], dilation: tuple[int, int]
) -> None:
    maker = GraphMaker(7)
    output = maker.convolution(
        maker.input(15, 11, channels), channels, kernel=kernel, stride=stride, dilation=dilation, depthwise=True
    )
    graph = maker.graph(output)
    check(maker, graph, config)
    step, _ = compile_graph(graph, config)
    mnemonics = {command.mnemonic for command in decode_program(step.commands)}
    assert ("DEPTHWISE" in mnemonics) == config.depthwise


def test_shared_multipliers_stay_out_of_the_stream() -> None:
    maker = GraphMaker(0)
    maker.convolution(maker.input(4, 4, 4), 4, per_channel=False)
    assert params_mode(convolution(maker)[0].requantize) is Params.BIAS
    maker.convolution(maker.input(4, 4, 4), 4, per_channel=True)
    assert params_mode(convolution(maker)[0].requantize) is Params.PER_CHANNEL


def test_constants_are_stored_once_and_aligned() -> None:
    pool = ConstantPool()
    assert [pool.add(b"a"), pool.add(b"b" * 65), pool.add(b"a"), pool.add(b"c")] == [0, 64, 0, 192]
    assert len(bytes(pool)) == 256


def test_all_tiles_stream_the_same_constants() -> None:
    maker = GraphMaker(0)
    streams = commands_of(maker, maker.convolution(maker.input(16, 16, 4), 8), SHALLOW, "STREAM")
    assert len(streams) == 14
    assert {stream["offset"] for stream in streams} == {0}


def test_settings_are_sent_once() -> None:
    maker = GraphMaker(0)
    output = maker.rescale(maker.convolution(maker.input(16, 16, 4), 8))
    assert len(commands_of(maker, output, SHALLOW, "REQUANT")) == 2


def test_inputs_are_loaded_as_they_are_needed_and_outputs_stored_as_they_come() -> None:
    maker = GraphMaker(0)
    output = maker.convolution(maker.input(16, 16, 4), 8, pad=(1, 1))
    assert [(load["row"], load["rows"]) for load in commands_of(maker, output, SHALLOW, "LOAD")][:3] == [
        (0, 2),
        (2, 1),
        (3, 1),
    ]
    stores = commands_of(maker, output, SHALLOW, "STORE")
    assert [(store["row"], store["rows"]) for store in stores] == [(row, 1) for row in range(16)]


def test_inputs_are_loaded_one_tile_ahead() -> None:
    maker = GraphMaker(0)
    step, _ = compile_graph(maker.graph(maker.convolution(maker.input(16, 16, 4), 8, pad=(1, 1))), SHALLOW)
    units = [command.mnemonic for command in decode_program(step.commands)]
    order = [mnemonic for mnemonic in units if mnemonic in ("LOAD", "CONVOLVE")]
    assert order[:6] == ["LOAD", "LOAD", "CONVOLVE", "LOAD", "CONVOLVE", "LOAD"]


def test_long_reductions_are_exact() -> None:
    """A sum of 3000 products has more bits than float32, with which the golden model does the short ones."""
    maker = GraphMaker(0)
    source = maker.input(1, 1, 3000)
    maker.dense(source, 8)
    layer, _ = convolution(maker)
    kernel = maker.numpy.integers(100, 128, layer.kernel.shape).astype(np.int8)
    wanted = np.arange(8)
    identity = replace(
        layer.requantize,
        multiplier=np.array([1 << 30]),
        shift=np.array([1]),
        bias=wanted - 127 * kernel.astype(np.int64).sum(axis=(0, 1, 2)),
        zero_point=0,
        minimum=-128,
        maximum=127,
    )
    maker.layers[-1] = replace(layer, kernel=kernel, requantize=identity)
    step, _ = compile_graph(maker.graph(layer.output), SMALL)
    window = pack_inputs(step, {source: np.full((1, 1, 1, 3000), 127, np.int8)})
    outputs = unpack_outputs(step, Golden(SMALL).run(step, window, window_bytes(step.outputs)))
    assert outputs[layer.output][0].tolist() == wanted.tolist()


def test_wide_images_are_split_into_columns() -> None:
    maker = GraphMaker(1)
    check(maker, maker.graph(maker.convolution(maker.input(3, 50, 2), 5, pad=(1, 1))), SHALLOW)


def test_more_channels_than_a_command_names() -> None:
    maker = GraphMaker(2)
    hidden = maker.convolution(maker.input(1, 2, 4), 4500, kernel=(1, 1))
    check(maker, maker.graph(hidden, maker.dense(hidden, 3)), SHALLOW)


def test_poolings_of_more_channels_than_a_command_names() -> None:
    maker = GraphMaker(3)
    source = maker.input(2, 2, 4500)
    pooled = maker.pool(MaxPool, source, window=(2, 2), stride=(2, 2))
    averaged = maker.pool(AveragePool, source, window=(2, 1), stride=(1, 1))
    check(maker, maker.graph(pooled, averaged, maker.mean(source)), SHALLOW)


def test_depthwise_of_more_channels_than_a_command_names() -> None:
    maker = GraphMaker(4)
    check(maker, maker.graph(maker.convolution(maker.input(3, 3, 4200), 4200, depthwise=True)), SHALLOW)


@pytest.mark.parametrize("stride", [(16, 17), (40, 1), (3, 40)])
def test_strides_larger_than_a_command_names(stride: tuple[int, int]) -> None:
    maker = GraphMaker(5)
    source = maker.input(90, 90, 2)
    outputs = maker.convolution(source, 3, stride=stride), maker.pool(MaxPool, source, window=(2, 2), stride=stride)
    check(maker, maker.graph(*outputs), SHALLOW)


def test_pixels_of_more_bytes_than_a_command_steps() -> None:
    maker = GraphMaker(6)
    source = maker.input(2, 3, 5000)
    check(maker, maker.graph(maker.convolution(source, 3, kernel=(2, 1), stride=(1, 2))), SHALLOW)


def test_large_kernels_and_dilations() -> None:
    maker = GraphMaker(7)
    source = maker.input(14, 14, 2)
    outputs = (
        maker.convolution(source, 3, kernel=(11, 11), pad=(5, 5)),
        maker.convolution(source, 3, dilation=(5, 6)),
        maker.convolution(source, 2, dilation=(4, 4), depthwise=True),
    )
    check(maker, maker.graph(*outputs), SHALLOW)


def test_padding_larger_than_the_image() -> None:
    maker = GraphMaker(8)
    check(maker, maker.graph(maker.convolution(maker.input(2, 2, 3), 3, kernel=(5, 5), pad=(4, 4))), SHALLOW)


def test_a_kernel_with_too_many_rows_is_refused() -> None:
    maker = GraphMaker(9)
    graph = maker.graph(maker.convolution(maker.input(300, 1, 1), 1, kernel=(300, 1)))
    with pytest.raises(CompileError, match=r"layer 'layer0' \(CONVOLUTION\): it has 300 kernel rows, .* 255"):
        compile_graph(graph, SHALLOW)


def test_a_pooling_window_with_too_many_rows_is_refused() -> None:
    maker = GraphMaker(10)
    graph = maker.graph(maker.mean(maker.input(300, 2, 1)))
    with pytest.raises(CompileError, match=r"layer 'layer0' \(MEAN\): it pools over 300x2 pixels, .* at most 255x255"):
        compile_graph(graph, SHALLOW)


def test_a_configuration_without_activation_table_refuses_tables() -> None:
    maker = GraphMaker(12)
    output = maker.table(maker.convolution(maker.input(3, 3, 4), 4, kernel=(1, 1)))
    config = Config.from_dict({**SMALL.to_dict(), "activation_table": False})
    with pytest.raises(CompileError, match=r"layer 'layer1' \(TABLE\): configuration small leaves it out"):
        compile_graph(maker.graph(output), config)


@pytest.mark.parametrize(("kind", "field"), [("add", "residual_add"), ("multiply", "elementwise_multiply")])
def test_a_configuration_without_what_two_tensors_need_refuses_them(kind: str, field: str) -> None:
    maker = GraphMaker(11)
    source = maker.input(3, 3, 4)
    output = getattr(maker, kind)(maker.convolution(source, 4, kernel=(1, 1)), source)
    config = Config.from_dict({**SMALL.to_dict(), field: False})
    operator = kind.upper()
    with pytest.raises(CompileError, match=rf"layer 'layer1' \({operator}\): configuration small leaves it out"):
        compile_graph(maker.graph(output), config)
