# SPDX-License-Identifier: Apache-2.0
"""Padding is folded exactly, and only where nothing else reads it."""

from dataclasses import replace

import numpy as np
import pytest

from loomwork.arch.numerics import IDENTITY_MULTIPLIER, IDENTITY_SHIFT
from loomwork.compiler.graph import Convolution, FeatureMap, Graph, MaxPool, Requantize
from loomwork.compiler.passes.fold_pad import fold_pad
from loomwork.compiler.verify import verify
from tests.reference import run_graph

RNG = np.random.default_rng(14)


def identity(channels: int) -> Requantize:
    return Requantize(
        multiplier=np.array([IDENTITY_MULTIPLIER]),
        shift=np.array([IDENTITY_SHIFT]),
        bias=np.zeros(channels, np.int64),
        zero_point=0,
    )


def feature_map(name: str, height: int, width: int, channels: int) -> FeatureMap:
    return FeatureMap(name=name, height=height, width=width, channels=channels, zero_point=-7)


def padding(source: str, target: str, pad: tuple[int, int]) -> Convolution:
    return Convolution(
        name=target, operator="PAD", input=source, output=target, kernel=np.ones((1, 1, 1, 3), np.int8),
        pad=pad, depthwise=True, requantize=identity(1),
    )  # fmt: skip


def convolution(source: str, target: str, channels: int = 2) -> Convolution:
    return Convolution(
        name=target, operator="CONV_2D", input=source, output=target,
        kernel=RNG.integers(-128, 128, (3, 2, 3, channels), dtype=np.int8), stride=(2, 1), pad=(1, 0),
        requantize=Requantize(
            multiplier=np.full(channels, 1 << 30), shift=np.full(channels, -8), bias=np.arange(channels), zero_point=4
        ),
    )  # fmt: skip


GRAPH = Graph(
    maps={
        m.name: m
        for m in (
            feature_map("x", 5, 4, 3),
            feature_map("once", 8, 6, 3),
            feature_map("twice", 9, 7, 3),
            feature_map("a", 4, 6, 2),
            feature_map("b", 4, 6, 2),
        )
    },
    layers=(
        padding("x", "once", (2, 1)),
        padding("once", "twice", (1, 0)),
        convolution("twice", "a"),
        convolution("twice", "b"),
    ),
    inputs=("x",),
    outputs=("a", "b"),
)


def results(graph: Graph) -> list[np.ndarray]:
    verify(graph)
    image = np.random.default_rng(1).integers(-128, 128, (5, 4, 3), dtype=np.int8)
    outputs = run_graph(graph, {"x": image})
    return [outputs["a"], outputs["b"]]


def test_several_paddings_go_into_all_convolutions_behind_them():
    folded = fold_pad(GRAPH)
    assert [layer.output for layer in folded.layers] == ["a", "b"]
    assert [layer.pad for layer in folded.layers if isinstance(layer, Convolution)] == [(4, 1), (4, 1)]
    assert set(folded.maps) == {"x", "a", "b"}
    for before, after in zip(results(GRAPH), results(folded), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": np.full((1, 1, 1, 3), 2, np.int8)},
        {"kernel": np.ones((3, 1, 1, 3), np.int8)},
        {"requantize": replace(identity(1), maximum=100)},
        {"requantize": replace(identity(1), bias=np.array([1]))},
        {"requantize": replace(identity(1), zero_point=1)},
        {"requantize": replace(identity(1), shift=np.array([0]))},
        {"stride": (2, 1)},
    ],
)
def test_what_does_more_than_pad_stays(change: dict[str, object]):
    changed = replace(GRAPH.layers[1], **change)
    graph = replace(GRAPH, layers=(GRAPH.layers[0], changed, *GRAPH.layers[2:]))
    assert any(layer is not changed and layer.output == "twice" for layer in fold_pad(graph).layers)
    assert len(fold_pad(graph).layers) == 3


def test_an_output_stays():
    graph = replace(GRAPH, outputs=("a", "b", "once"))
    assert [layer.output for layer in fold_pad(graph).layers] == ["once", "a", "b"]


def test_pooling_does_not_see_padding_and_keeps_it():
    pool = MaxPool(name="p", operator="MAX_POOL_2D", input="once", output="p", window=(2, 2), stride=(2, 2))
    graph = replace(
        GRAPH,
        maps={**GRAPH.maps, "p": feature_map("p", 4, 3, 3)},
        layers=(*GRAPH.layers, pool),
        outputs=("a", "b", "p"),
    )
    verify(graph)
    assert [layer.output for layer in fold_pad(graph).layers] == ["once", "a", "b", "p"]


def test_another_zero_point_behind_the_padding_stays():
    graph = replace(GRAPH, maps={**GRAPH.maps, "once": replace(GRAPH.maps["once"], zero_point=0)})
    assert len(fold_pad(graph).layers) == 4
