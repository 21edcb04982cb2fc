# SPDX-License-Identifier: Apache-2.0
"""Fusion of convolutions with what follows; that it changes no bit is tested with the driver."""

from dataclasses import replace

import pytest

from loomwork.arch.config import BASE, TINY
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Add, Convolution, Graph, MaxPool, Multiply
from loomwork.compiler.passes.fuse_combination import fuse_combination
from loomwork.compiler.passes.fuse_pool import fuse_pool
from tests.compiler.execution import check
from tests.compiler.random_graphs import GraphMaker


def kinds(graph: Graph) -> list[str]:
    return [layer.operator for layer in graph.layers]


@pytest.mark.parametrize("kind", ["add", "multiply"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_convolution_takes_the_combination_that_alone_uses_it(swapped: bool, kind: str) -> None:
    maker = GraphMaker(0)
    source = maker.input(6, 6, 4)
    branch = maker.convolution(source, 4, pad=(1, 1))
    combine = getattr(maker, kind)
    graph = maker.graph(combine(source, branch) if swapped else combine(branch, source))
    (layer,) = fuse_combination(graph, BASE).layers
    assert isinstance(layer, FusedConvolution)
    assert (layer.input, layer.operand, layer.output) == (source, source, graph.outputs[0])
    check(maker, graph, BASE)


def test_of_two_convolutions_the_later_takes_the_add() -> None:
    maker = GraphMaker(0)
    source = maker.input(6, 6, 4)
    first, second = maker.convolution(source, 4, pad=(1, 1)), maker.convolution(source, 4, kernel=(1, 1))
    graph = maker.graph(maker.add(first, second))
    layers = fuse_combination(graph, BASE).layers
    assert [layer.name for layer in layers] == ["layer0", "layer1"]
    assert isinstance(layers[1], FusedConvolution)
    check(maker, graph, BASE)


def test_an_add_stays_when_others_use_the_convolution() -> None:
    maker = GraphMaker(0)
    source = maker.input(6, 6, 4)
    branch = maker.convolution(source, 4, pad=(1, 1))
    total = maker.add(branch, source)
    assert fuse_combination(maker.graph(total, branch), BASE).layers == tuple(maker.layers)
    assert fuse_combination(maker.graph(total, maker.rescale(branch)), BASE).layers == tuple(maker.layers)


def test_what_the_configuration_leaves_out_stays() -> None:
    maker = GraphMaker(0)
    source = maker.input(6, 6, 4)
    graph = maker.graph(
        maker.add(maker.convolution(source, 4, pad=(1, 1)), source),
        maker.multiply(maker.convolution(source, 4, pad=(1, 1)), source),
    )
    left = {
        field: {type(layer) for layer in fuse_combination(graph, replace(BASE, **{field: False})).layers}
        for field in ("residual_add", "elementwise_multiply")
    }
    assert left["residual_add"] == {Convolution, Add, FusedConvolution}
    assert left["elementwise_multiply"] == {Convolution, Multiply, FusedConvolution}


def test_an_add_of_a_map_to_itself_stays() -> None:
    maker = GraphMaker(0)
    branch = maker.convolution(maker.input(6, 6, 4), 4)
    graph = maker.graph(maker.add(branch, branch))
    assert any(isinstance(layer, Add) for layer in fuse_combination(graph, BASE).layers)
    check(maker, graph, BASE)


def test_a_convolution_takes_the_pooling_too() -> None:
    maker = GraphMaker(0)
    source = maker.input(6, 6, 4)
    total = maker.add(maker.convolution(source, 4, pad=(1, 1)), source)
    graph = maker.graph(maker.pool(MaxPool, total, window=(2, 2), stride=(2, 2)))
    fused = fuse_pool(fuse_combination(graph, BASE), BASE)
    assert kinds(fused) == ["CONVOLUTION + ADD + MAXPOOL"]
    assert fused.layers[0].output == graph.outputs[0]
    check(maker, graph, BASE)


@pytest.mark.parametrize(
    ("window", "stride", "pad", "size"),
    [
        ((3, 3), (2, 2), (0, 0), None),  # windows overlap
        ((2, 2), (2, 2), (1, 0), (5, 4)),  # padded
        ((2, 2), (2, 2), (0, 0), (5, 4)),  # the last window leaves the image
        ((7, 7), (7, 7), (0, 0), None),  # larger than 32 accumulators
    ],
)
def test_a_pooling_stays_when_tiles_cannot_hold_its_windows(
    window: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], size: tuple[int, int] | None
) -> None:
    maker = GraphMaker(0)
    source = maker.convolution(maker.input(9, 8, 3), 3, kernel=(1, 1))
    graph = maker.graph(maker.pool(MaxPool, source, window=window, stride=stride, pad=pad, size=size))
    assert kinds(fuse_pool(graph, TINY)) == ["CONVOLUTION", "MAXPOOL"]
    check(maker, graph, TINY)


def test_a_pooling_stays_when_the_clamps_do_not_meet() -> None:
    maker = GraphMaker(0)
    maker.clamps = [(-128, -5), (3, 100)]
    source = maker.convolution(maker.input(4, 4, 3), 3)
    graph = maker.graph(maker.pool(MaxPool, source, window=(2, 2), stride=(2, 2)))
    assert kinds(fuse_pool(graph, TINY)) == ["CONVOLUTION", "MAXPOOL"]
    check(maker, graph, TINY)


@pytest.mark.parametrize("clamps", [[(-60, 50), (-20, 100)], [(-20, 100), (-60, 50)]])
def test_clamps_that_meet_are_joined(clamps: list[tuple[int, int]]) -> None:
    maker = GraphMaker(0)
    maker.clamps = list(clamps)
    source = maker.convolution(maker.input(8, 8, 3), 3)
    graph = maker.graph(maker.pool(MaxPool, source, window=(2, 2), stride=(2, 2)))
    (layer,) = fuse_pool(graph, TINY).layers
    assert isinstance(layer, FusedConvolution)
    assert (layer.convolution.requantize.minimum, layer.convolution.requantize.maximum) == (-20, 50)
    check(maker, graph, TINY)


def test_windows_with_gaps_are_pooled_in_the_drain() -> None:
    maker = GraphMaker(0)
    source = maker.convolution(maker.input(14, 11, 3), 3, kernel=(1, 1))
    graph = maker.graph(maker.pool(MaxPool, source, window=(2, 1), stride=(3, 4)))
    assert kinds(fuse_pool(graph, TINY)) == ["CONVOLUTION + MAXPOOL"]
    check(maker, graph, TINY)
