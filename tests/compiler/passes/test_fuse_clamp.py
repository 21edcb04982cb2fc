# SPDX-License-Identifier: Apache-2.0
"""Clamps are fused exactly, and only where they are nothing but clamps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomwork.arch.numerics import IDENTITY_MULTIPLIER, IDENTITY_SHIFT
from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Convolution,
    FeatureMap,
    Graph,
    Layer,
    MaxPool,
    Mean,
    Requantize,
    Rescale,
)
from loomwork.compiler.passes.fuse_clamp import fuse_clamp
from loomwork.compiler.verify import verify
from tests.reference import run_graph


def requantize(minimum: int, maximum: int, *, zero_point: int = 0, shift: int = IDENTITY_SHIFT) -> Requantize:
    return Requantize(
        multiplier=np.array([IDENTITY_MULTIPLIER]),
        shift=np.array([shift]),
        bias=np.array([-zero_point]),
        zero_point=zero_point,
        minimum=minimum,
        maximum=maximum,
    )


def producer(kind: str, low: int, high: int) -> Layer:
    names: dict[str, Any] = {"name": kind, "operator": kind, "input": "x", "output": "y"}
    match kind:
        case "convolution":
            return Convolution(**names, kernel=np.array([[[[3]]]], np.int8), requantize=requantize(low, high, shift=0))
        case "mean":
            return Mean(**names, requantize=requantize(low, high))
        case "rescale":
            return Rescale(**names, requantize=requantize(low, high, shift=0))
        case "max":
            return MaxPool(**names, window=(1, 1), stride=(1, 1), minimum=low, maximum=high)
        case "average":
            return AveragePool(**names, window=(1, 1), stride=(1, 1), minimum=low, maximum=high)
        case _:
            return Add(
                **names, operand="x", multiplier_input=1 << 30, shift_input=0, zero_input=0,
                multiplier_operand=1 << 30, shift_operand=0, zero_operand=0, multiplier=1 << 30, shift=-18,
                zero_point=0, minimum=low, maximum=high,
            )  # fmt: skip


def graph_of(first: Layer, *clamps: Requantize) -> Graph:
    size = 1 if isinstance(first, Mean) else 16
    names = ["y", *(f"y{i}" for i in range(len(clamps)))]
    maps = {name: FeatureMap(name=name, height=size, width=size, channels=1, zero_point=0) for name in names}
    maps["x"] = FeatureMap(name="x", height=16, width=16, channels=1, zero_point=0)
    rescales = [
        Rescale(name=target, operator="RELU", input=source, output=target, requantize=clamp)
        for source, target, clamp in zip(names, names[1:], clamps, strict=False)
    ]
    return Graph(maps=maps, layers=(first, *rescales), inputs=("x",), outputs=(names[-1],))


KINDS = ("convolution", "mean", "rescale", "max", "average", "add")
BOUNDS = st.tuples(st.integers(-128, 127), st.integers(-128, 127)).map(sorted)


@given(st.sampled_from(KINDS), BOUNDS, BOUNDS, BOUNDS, st.integers(-128, 127))
def test_clamps_join_every_kind_of_layer(
    kind: str, own: list[int], first: list[int], second: list[int], zero_point: int
):
    graph = graph_of(
        producer(kind, own[0], own[1]),
        requantize(first[0], first[1], zero_point=zero_point),
        requantize(second[0], second[1]),
    )
    verify(graph)
    fused = fuse_clamp(graph)
    verify(fused)
    assert len(fused.layers) == 1
    assert fused.outputs == graph.outputs
    image = {"x": np.arange(-128, 128, dtype=np.int8).reshape(16, 16, 1)}
    np.testing.assert_array_equal(run_graph(fused, image)["y1"], run_graph(graph, image)["y1"])


def test_a_rescaling_that_changes_values_stays():
    graph = graph_of(producer("max", -128, 127), requantize(0, 127, shift=0))
    assert fuse_clamp(graph) is graph


@pytest.mark.parametrize("bias", [-3, 4])
def test_a_rescaling_to_another_zero_point_stays(bias: int):
    clamp = replace(requantize(0, 127, zero_point=4), bias=np.array([bias]))
    graph = graph_of(producer("max", -128, 127), clamp)
    assert fuse_clamp(graph) is graph


def test_a_value_that_is_also_an_output_stays():
    graph = graph_of(producer("max", -128, 127), requantize(0, 127))
    graph = replace(graph, outputs=("y", "y0"))
    assert fuse_clamp(graph) is graph


def test_a_clamp_of_the_graphs_input_stays():
    graph = graph_of(producer("rescale", -5, 5))
    clamp = Rescale(name="y", operator="RELU", input="x", output="y", requantize=requantize(-5, 5))
    graph = replace(graph, layers=(clamp,))
    assert fuse_clamp(graph) is graph
