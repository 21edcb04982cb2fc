# SPDX-License-Identifier: Apache-2.0
"""Tables go where their values are made, and no value changes."""

from dataclasses import replace

import numpy as np
import pytest

from loomwork.arch.config import SMALL, TINY
from loomwork.arch.isa import Combine, Source
from loomwork.compiler.driver import compile_graph
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import AveragePool, Graph, Layer, MaxPool, Rescale, Table
from loomwork.compiler.passes.fuse_table import fuse_table
from tests.compiler.execution import check
from tests.compiler.random_graphs import GraphMaker
from tests.reference import run_graph

RISING = np.sort(np.random.default_rng(1).integers(-128, 128, 256)).astype(np.int8)
VALLEY = np.abs(np.arange(-128, 128) + 40).clip(0, 127).astype(np.int8)


def with_table(maker: GraphMaker, source: str, table: np.ndarray) -> str:
    output = maker.table(source)
    maker.layers[-1] = replace(maker.layers[-1], table=table)
    return output


def fused(graph: Graph) -> tuple[Layer, ...]:
    return fuse_table(graph).layers


@pytest.mark.parametrize("depthwise", [False, True])
def test_behind_a_convolution(depthwise: bool) -> None:
    maker = GraphMaker(1)
    source = maker.convolution(maker.input(9, 7, 3), 3, pad=(1, 1), depthwise=depthwise)
    graph = maker.graph(with_table(maker, source, VALLEY))
    (layer,) = fused(graph)
    assert isinstance(layer, FusedConvolution)
    assert layer.operator == "CONVOLUTION + TABLE"
    check(maker, graph, TINY)


def test_no_value_goes_through_the_scratchpad_before_it_is_looked_up() -> None:
    maker = GraphMaker(1)
    graph = maker.graph(with_table(maker, maker.convolution(maker.input(9, 7, 3), 5), VALLEY))
    _, compiled = compile_graph(graph, TINY)
    drains = [task.command for task in compiled.tasks if task.command.mnemonic == "DRAIN"]
    assert drains
    assert all(c["combine"] == Combine.TABLE and c["source"] == Source.ACCUMULATOR for c in drains)


def test_the_table_is_set_once_for_all_tiles() -> None:
    maker = GraphMaker(1)
    graph = maker.graph(with_table(maker, maker.convolution(maker.input(16, 16, 3), 5), VALLEY))
    _, compiled = compile_graph(graph, TINY)
    mnemonics = [task.command.mnemonic for task in compiled.tasks]
    assert mnemonics.count("DRAIN") > 2
    assert mnemonics.count("TABLE") == 16


def test_entries_that_two_tables_share_are_set_once() -> None:
    maker = GraphMaker(1)
    other = VALLEY.copy()
    other[[17, 200]] += 1
    first = maker.convolution(maker.input(5, 5, 3), 3, kernel=(1, 1))
    graph = maker.graph(with_table(maker, maker.convolution(with_table(maker, first, VALLEY), 3, kernel=(1, 1)), other))
    _, compiled = compile_graph(graph, SMALL)
    tables = [task.command for task in compiled.tasks if task.command.mnemonic == "TABLE"]
    assert [command["index"] for command in tables] == [*range(16), 1, 12]
    check(maker, graph, SMALL)


@pytest.mark.parametrize("table", [RISING, VALLEY], ids=["rising", "valley"])
@pytest.mark.parametrize("order", ["table then pool", "pool then table"])
def test_beside_a_maximum(order: str, table: np.ndarray) -> None:
    maker = GraphMaker(3)
    maker.clamps = [(-128, 127), (-60, 70)]
    name = maker.convolution(maker.input(8, 6, 3), 5, pad=(1, 1))
    if order == "table then pool":
        name = with_table(maker, name, table)
    name = maker.pool(MaxPool, name, window=(2, 2), stride=(2, 2))
    if order == "pool then table":
        name = with_table(maker, name, table)
    graph = maker.graph(name)
    alone = order == "pool then table" and table is VALLEY
    _, compiled = compile_graph(graph, TINY)
    assert [type(layer) for layer in compiled.graph.layers] == [FusedConvolution] + [Table] * alone
    check(maker, graph, TINY)


def test_a_pooling_that_is_not_fused_still_follows_the_table() -> None:
    """Windows that overlap: the exchange remains, the maximum reads the scratchpad."""
    maker = GraphMaker(4)
    name = maker.convolution(maker.input(9, 9, 3), 5, pad=(1, 1))
    name = with_table(maker, maker.pool(MaxPool, name, window=(3, 3), stride=(2, 2), pad=(1, 1)), RISING)
    graph = maker.graph(maker.convolution(name, 4, pad=(1, 1)))
    assert [type(layer) for layer in fused(graph)][:2] == [FusedConvolution, MaxPool]
    check(maker, graph, TINY)


def test_functions_of_one_value_become_one_table() -> None:
    maker = GraphMaker(5)
    source = maker.input(4, 4, 16)
    name = maker.rescale(with_table(maker, maker.table(maker.rescale(source)), VALLEY))
    graph = maker.graph(name)
    (layer,) = fused(graph)
    assert isinstance(layer, Table)
    # Every value there is, through the layers one by one.
    every = np.arange(-128, 128).astype(np.int8).reshape(4, 4, 16)
    expected = run_graph(graph, {source: every})[name]
    np.testing.assert_array_equal(layer.table, expected.ravel())


def test_rescalings_alone_stay() -> None:
    maker = GraphMaker(6)
    graph = maker.graph(maker.rescale(maker.rescale(maker.input(3, 3, 3))))
    assert [type(layer) for layer in fused(graph)] == [Rescale, Rescale]


def test_what_others_read_stays() -> None:
    maker = GraphMaker(7)
    branch = maker.convolution(maker.input(5, 5, 4), 4, kernel=(1, 1))
    table = with_table(maker, branch, VALLEY)
    for outputs in ((table, branch), (maker.add(table, branch),)):
        graph = maker.graph(*outputs)
        assert any(isinstance(layer, Table) for layer in fused(graph))
        check(maker, graph, TINY)


def test_a_table_behind_a_sum_is_a_layer_of_its_own() -> None:
    maker = GraphMaker(8)
    source = maker.input(5, 5, 4)
    total = maker.add(maker.convolution(source, 4, kernel=(1, 1)), source)
    graph = maker.graph(with_table(maker, total, VALLEY))
    _, compiled = compile_graph(graph, TINY)
    assert [type(layer) for layer in compiled.graph.layers] == [FusedConvolution, Table]
    check(maker, graph, TINY)


def test_a_table_in_front_of_an_average_is_not_moved() -> None:
    maker = GraphMaker(9)
    name = maker.pool(AveragePool, maker.convolution(maker.input(6, 6, 4), 4), window=(2, 2), stride=(2, 2))
    graph = maker.graph(with_table(maker, name, RISING))
    assert [type(layer) for layer in fused(graph)] == [type(layer) for layer in graph.layers]
    check(maker, graph, TINY)
