# SPDX-License-Identifier: Apache-2.0
"""Layers of which no row fits the scratchpad are computed in parts, exactly."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from loomwork.arch.command import Command, decode_program
from loomwork.arch.config import SMALL, TINY, Config
from loomwork.arch.isa import Window
from loomwork.compiler.divide import divide
from loomwork.compiler.driver import compile_graph
from loomwork.compiler.graph import AveragePool, Convolution, Graph, MaxPool
from loomwork.compiler.lower import lower
from loomwork.compiler.report import build_report
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.weights import ConstantPool
from tests.compiler.execution import check
from tests.compiler.hazards import check_hazards, simulate
from tests.compiler.random_graphs import GraphMaker, random_graph

SCANT = replace(TINY, name="scant", scratchpad_kib=1)
"""64 words of 4 bytes in each bank: a row of 20 pixels of 4 channels takes a third of it."""
NARROW_BUS = replace(SMALL, name="narrow_bus", scratchpad_kib=1, bus_bytes=2, requant_lanes=4)


def divided(graph: Graph, config: Config) -> Graph:
    return divide(graph, lower(graph, config, ConstantPool()), config)


def _convolution(maker: GraphMaker, source: str) -> str:
    return maker.convolution(source, 7, kernel=(3, 4), pad=(1, 2), stride=(1, 1))


def _strided(maker: GraphMaker, source: str) -> str:
    return maker.convolution(source, 8, kernel=(3, 5), pad=(1, 2), stride=(2, 3), dilation=(1, 2))


def _depthwise(maker: GraphMaker, source: str) -> str:
    return maker.convolution(source, maker.maps[source].channels, pad=(1, 1), stride=(2, 2), depthwise=True)


def _residual(maker: GraphMaker, source: str) -> str:
    return maker.add(maker.convolution(source, maker.maps[source].channels, pad=(1, 1)), source)


def _pooled(maker: GraphMaker, source: str) -> str:
    """Fused: convolution, addition and pooling."""
    return maker.pool(MaxPool, _residual(maker, source), window=(2, 2), stride=(2, 2))


def _maximum(maker: GraphMaker, source: str) -> str:
    x = maker.maps[source]
    size = ((x.height + 1) // 2, (x.width + 1) // 2)
    return maker.pool(MaxPool, source, window=(3, 3), stride=(2, 2), pad=(1, 1), size=size)


def _average(maker: GraphMaker, source: str) -> str:
    x = maker.maps[source]
    return maker.pool(AveragePool, source, window=(3, 3), stride=(1, 1), pad=(1, 1), size=(x.height, x.width))


KINDS: dict[str, Callable[[GraphMaker, str], str]] = {
    "convolution": _convolution,
    "strided": _strided,
    "depthwise": _depthwise,
    "residual": _residual,
    "pooled": _pooled,
    "maximum": _maximum,
    "average": _average,
    "rescaling": GraphMaker.rescale,
    "addition": lambda maker, source: maker.add(source, source),
}


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_strips_of_every_kind_of_layer_are_exact(kind: str, channels: int) -> None:
    maker = GraphMaker(channels)
    source = maker.input(7, 400 // channels, channels)
    graph = maker.graph(KINDS[kind](maker, source))
    for config in (SCANT, NARROW_BUS):
        assert len(divided(graph, config).layers) > len(graph.layers)
        for fuse in (True, False):
            check(maker, graph, config, fuse=fuse)


@pytest.mark.parametrize("seed", range(60))
def test_networks_of_wide_images_are_exact(seed: int) -> None:
    """Where not even a strip of one column fits, the layer is refused, as it was before."""
    maker = random_graph(seed, layers=5, largest=40)
    graph = maker.graph(list(maker.maps)[-1], list(maker.maps)[2])
    try:
        check(maker, graph, SCANT)
    except UnsupportedLayerError:
        # The least that was seen: five rows of 12 channels under a kernel of nine columns.
        assert any(m.channels * m.height >= 60 for m in graph.maps.values())


@pytest.mark.parametrize("kind", ["mean", "average", "maximum"])
def test_a_reduction_of_the_whole_image_takes_some_channels_at_a_time(kind: str) -> None:
    maker = GraphMaker(5)
    source = maker.convolution(maker.input(7, 6, 3), 32, kernel=(1, 1))
    reductions: dict[str, Callable[[], str]] = {
        "mean": lambda: maker.mean(source),
        "average": lambda: maker.pool(AveragePool, source, window=(7, 6), stride=(7, 6)),
        "maximum": lambda: maker.pool(MaxPool, source, window=(7, 6), stride=(7, 6)),
    }
    result = reductions[kind]()
    graph = maker.graph(maker.convolution(result, 5, kernel=(1, 1)))
    parts = [layer for layer in divided(graph, SCANT).layers if layer.output.startswith(f"{result}[")]
    assert len(parts) > 1
    check(maker, graph, SCANT)


@pytest.mark.parametrize("fused", [False, True])
def test_a_column_that_is_too_deep_is_divided_by_channels(*, fused: bool) -> None:
    maker = GraphMaker(7)
    source = maker.input(5, 4, 96)
    result = maker.convolution(source, 96, pad=(1, 1), depthwise=True)
    graph = maker.graph(maker.add(result, source) if fused else result)
    channels = [part.channels for part in divided(graph, SCANT).maps.values() if part.part]
    assert len(channels) >= 4
    assert max(channels) < 96
    check(maker, graph, SCANT, fuse=fused)


@pytest.mark.parametrize("shape", [(5000, 1, 2), (1, 4500, 16), (2, 9000, 8)], ids=str)
def test_images_that_no_command_can_name_are_exact(shape: tuple[int, int, int]) -> None:
    """More than 4095 rows, 65535 bytes in a row, or 4095 words."""
    maker = GraphMaker(8)
    kernel, stride = ((9, 1), (4, 1)) if shape[0] > shape[1] else ((1, 9), (1, 4))
    first = maker.convolution(maker.input(*shape), 8, kernel=kernel)
    second = maker.convolution(first, 8, kernel=kernel, stride=stride, depthwise=True)
    graph = maker.graph(maker.pool(MaxPool, second, window=stride, stride=stride))
    step, _ = compile_graph(graph, TINY)
    assert step.workspace_bytes >= first_bytes(graph)
    check(maker, graph, TINY)


def first_bytes(graph: Graph) -> int:
    """Of the first layer's output."""
    feature_map = graph.maps[graph.layers[0].output]
    return feature_map.height * feature_map.row_bytes


def test_a_layer_that_fits_is_left_alone() -> None:
    maker = GraphMaker(0)
    graph = maker.graph(_depthwise(maker, _convolution(maker, maker.input(20, 4, 3))))
    assert divided(graph, SCANT) is graph


def test_the_fewest_rows_are_needed_by_parts_of_one_row() -> None:
    """Three rows of a strip may lie in two groups of four rows; as a part of their own they take one."""
    maker = GraphMaker(1)
    graph = maker.graph(maker.convolution(maker.input(9, 9, 64), 4, pad=(1, 1)))
    assert len(divided(graph, SCANT).layers) >= 9 / 2
    check(maker, graph, SCANT)


def _transfers(commands: list[Command], mnemonic: str, config: Config) -> list[tuple[int, set[int]]]:
    """Numbers of the LOADs or STOREs of WORKSPACE, and the bytes that they touch there."""
    return [
        (
            number,
            {
                command["offset"] + row * command["row_stride"] + byte
                for row in range(command["rows"])
                for byte in range(command["words"] * config.rows)
            },
        )
        for number, command in enumerate(commands)
        if command.mnemonic == mnemonic and command["window"] == Window.WORKSPACE
    ]


@pytest.mark.parametrize("kind", ["residual", "average", "mean"])
def test_parts_are_loaded_when_all_of_their_bytes_are_stored(kind: str) -> None:
    """By the tickets alone, whatever the units' speed; and no byte is stored twice."""
    maker = GraphMaker(2)
    if kind == "mean":
        graph = maker.graph(maker.mean(maker.convolution(maker.input(4, 4, 4), 64, kernel=(1, 1))))
    else:
        graph = maker.graph(_convolution(maker, KINDS[kind](maker, _convolution(maker, maker.input(9, 60, 4)))))
    step, _ = compile_graph(graph, SCANT)
    commands = decode_program(step.commands)
    check_hazards(commands, SCANT)
    stores, loads = (_transfers(commands, mnemonic, SCANT) for mnemonic in ("STORE", "LOAD"))
    for position, (_, touched) in enumerate(stores):
        assert not any(touched & other for _, other in stores[:position])
    pairs = [(store, load) for load, read in loads for store, written in stores if read & written]
    assert len(pairs) >= 8
    for run in range(5):
        spans = simulate(commands, SCANT, seed=run)
        assert all(spans[store][1] <= spans[load][0] for store, load in pairs)


def test_the_report_joins_the_parts_of_a_layer() -> None:
    maker = GraphMaker(3)
    graph = maker.graph(_depthwise(maker, _convolution(maker, maker.input(9, 60, 4))))
    step, compiled = compile_graph(graph, SCANT)
    report = build_report("net", SCANT, [compiled], [])
    entries = report["layers"]
    assert [entry["name"] for entry in entries] == [layer.name for layer in graph.layers]
    assert all(entry["parts"] > 1 for entry in entries)
    kernels = [layer.kernel for layer in graph.layers if isinstance(layer, Convolution)]
    pixels = [graph.maps[layer.output].height * graph.maps[layer.output].width for layer in graph.layers]
    macs = [kernel.size * count for kernel, count in zip(kernels, pixels, strict=True)]
    assert [entry["macs"] for entry in entries] == [entry["executed_macs"] for entry in entries] == macs
    assert [entry["weight_bytes"] for entry in entries] == [kernel.size for kernel in kernels]
    numbers = sorted(number for entry in entries for number in entry["commands"])
    assert numbers == list(range(len(decode_program(step.commands))))
    assert {entry["first_layer"] for entry in report["memory"]} == {0, 1}
