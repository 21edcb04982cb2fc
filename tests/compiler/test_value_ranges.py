# SPDX-License-Identifier: Apache-2.0
"""Ranges hold every value that occurs, and are no wider than need be."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from loomwork.arch.numerics import INT32_MAX, INT32_MIN, Rounding
from loomwork.compiler.graph import Convolution, Graph
from loomwork.compiler.value_ranges import reaches_padding, value_ranges
from tests.compiler.random_graphs import GraphMaker, random_graph
from tests.reference import run_graph


def with_all_outputs(maker: GraphMaker) -> Graph:
    return maker.graph(*(layer.output for layer in maker.layers))


@pytest.mark.parametrize("seed", range(60))
def test_every_value_is_in_its_range(seed: int) -> None:
    maker = random_graph(seed, layers=6, products=seed % 2 == 1)
    graph = with_all_outputs(maker)
    ranges = value_ranges(graph)
    assert set(ranges) == set(graph.maps)
    noise = np.random.default_rng(seed)
    images = [
        *({name: value[i] for name, value in maker.values(4).items()} for i in range(2)),
        *({name: noise.choice([-128, 127], value[0].shape) for name, value in maker.values(1).items()} for _ in "ab"),
        {name: np.full_like(value[0], -128) for name, value in maker.values(1).items()},
    ]
    for inputs in images:
        for name, value in run_graph(graph, inputs).items():
            assert (value >= ranges[name].low).all(), name
            assert (value <= ranges[name].high).all(), name
            assert (value == ranges[name].low)[..., ranges[name].constant].all(), name


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("seed", range(10))
def test_ranges_of_a_single_layer_are_attained(seed: int, rounding: Rounding) -> None:
    """Every combination of the ends of two channels: sums are linear, so that the extremes are among them."""
    maker = GraphMaker(seed)
    output = maker.convolution(maker.input(1, 1, 2), 6, kernel=(1, 1))
    layer = maker.layers[0]
    assert isinstance(layer, Convolution)
    maker.layers[0] = replace(layer, requantize=replace(layer.requantize, rounding=rounding))
    graph = maker.graph(output)
    found = [run_graph(graph, {"m0": np.array(ends)})[output][0, 0] for ends in product((-128, 127), repeat=2)]
    np.testing.assert_array_equal(value_ranges(graph)[output].low, np.min(found, axis=0))
    np.testing.assert_array_equal(value_ranges(graph)[output].high, np.max(found, axis=0))


@pytest.mark.parametrize(("bias", "shift"), [(INT32_MAX, 0), (INT32_MIN, 0), ((1 << 24) - 1, 7), (-(1 << 24), 7)])
def test_where_sums_may_wrap_around_only_the_clamp_is_certain(bias: int, shift: int) -> None:
    maker = GraphMaker(0)
    maker.clamps = [(-5, 99)]
    output = maker.convolution(maker.input(1, 1, 1), 1, kernel=(1, 1))
    layer = maker.layers[0]
    assert isinstance(layer, Convolution)
    rule = replace(layer.requantize, bias=np.array([bias]), shift=np.array([shift]))
    maker.layers[0] = replace(layer, kernel=np.ones_like(layer.kernel), requantize=rule)
    graph = maker.graph(output)
    found = {int(run_graph(graph, {"m0": np.array([value])})[output].item()) for value in (-128, 127)}
    assert found == {-5, 99}
    assert (value_ranges(graph)[output].low, value_ranges(graph)[output].high) == (-5, 99)


@pytest.mark.parametrize("kind", ["add", "mean", "rescale"])
@pytest.mark.parametrize("seed", range(10))
def test_ranges_of_other_layers_are_attained(seed: int, kind: str) -> None:
    maker = GraphMaker(seed)
    first, second = maker.input(3, 3, 1), maker.input(3, 3, 1)
    output = {"add": lambda: maker.add(first, second), "mean": lambda: maker.mean(first)}.get(
        kind, lambda: maker.rescale(first)
    )()
    graph = maker.graph(output)
    low, high = (
        run_graph(graph, {name: np.full((3, 3, 1), end) for name in graph.inputs})[output][0, 0] for end in (-128, 127)
    )
    np.testing.assert_array_equal(value_ranges(graph)[output].low, low)
    np.testing.assert_array_equal(value_ranges(graph)[output].high, high)


@pytest.mark.parametrize(
    ("window", "reaches"),
    [
        ({}, False),
        ({"pad": (1, 0)}, True),
        ({"pad": (0, 1)}, True),
        ({"size": (6, 4)}, True),
        ({"size": (4, 6)}, True),
        ({"size": (4, 4)}, False),
        ({"size": (2, 2), "stride": (3, 3)}, False),
        ({"size": (2, 2), "stride": (3, 4)}, True),
        ({"size": (2, 2), "dilation": (2, 2)}, False),
        ({"size": (3, 2), "dilation": (2, 2)}, True),
    ],
)
def test_windows_that_leave_the_image_are_found(window: dict[str, Any], reaches: bool) -> None:
    maker = GraphMaker(0)
    graph = maker.graph(maker.convolution(maker.input(6, 6, 1), 1, **window))
    layer = graph.layers[0]
    assert isinstance(layer, Convolution)
    assert reaches_padding(graph, layer) is reaches


@pytest.mark.parametrize("seed", range(10))
def test_ranges_of_products_are_attained(seed: int) -> None:
    """Somewhere among the corners, where the operands are clamped on either side of their zero points."""
    maker = GraphMaker(seed)
    maker.clamps = [(-100, 90), (-128, 127), (-128, 127)]
    first, second = maker.rescale(maker.input(1, 1, 1)), maker.input(1, 1, 1)
    graph = maker.graph(maker.multiply(first, second))
    ends = [dict(zip(graph.inputs, pair, strict=True)) for pair in product(range(-128, 128, 5), (-128, 127))]
    found = [
        run_graph(graph, {name: np.full((1, 1, 1), end) for name, end in pair.items()})[graph.outputs[0]].item()
        for pair in (*ends, *(dict.fromkeys(graph.inputs, end) for end in (-128, 127)))
    ]
    (bounds,) = (value_ranges(graph)[name] for name in graph.outputs)
    assert (bounds.low.item(), bounds.high.item()) == (min(found), max(found))


def test_a_table_gives_the_ends_of_what_can_be_looked_up() -> None:
    """Of a table that falls and rises, the least entry lies between those of the ends."""
    every = np.arange(-128, 128)
    maker = GraphMaker(3)
    output = maker.table(maker.table(maker.input(1, 1, 2)))
    for index, table in enumerate((every.clip(-20, 50), np.abs(every).clip(0, 127))):
        maker.layers[index] = replace(maker.layers[index], table=table.astype(np.int8))
    ranges = value_ranges(maker.graph(output))
    assert ranges[output].low.tolist() == [0, 0]
    assert ranges[output].high.tolist() == [50, 50]


def test_a_table_of_one_value_makes_a_constant() -> None:
    maker = GraphMaker(3)
    output = maker.table(maker.input(1, 1, 2))
    maker.layers[-1] = replace(maker.layers[-1], table=np.full(256, -9, np.int8))
    ranges = value_ranges(maker.graph(output))
    assert ranges[output].constant.all()
    assert ranges[output].low.tolist() == [-9, -9]
