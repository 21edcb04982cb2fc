# SPDX-License-Identifier: Apache-2.0
"""Every invariant of a graph, broken once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Convolution,
    FeatureMap,
    Graph,
    Layer,
    MaxPool,
    Mean,
    Multiply,
    Requantize,
    Rescale,
    Table,
)
from loomwork.compiler.verify import VerifyError, verify


def requantize(channels: int = 1, **changes: Any) -> Requantize:
    values: dict[str, Any] = {
        "multiplier": np.full(channels, 1 << 30, np.int64),
        "shift": np.full(channels, -4, np.int64),
        "bias": np.zeros(channels, np.int64),
        "zero_point": 3,
    }
    return Requantize(**{**values, **changes})


def feature_map(name: str, height: int, width: int, channels: int) -> FeatureMap:
    return FeatureMap(name=name, height=height, width=width, channels=channels, zero_point=0)


MAPS = {
    m.name: m
    for m in (
        feature_map("x", 8, 6, 4),
        feature_map("conv", 4, 3, 6),
        feature_map("depthwise", 4, 3, 12),
        feature_map("max", 2, 2, 12),
        feature_map("average", 1, 1, 12),
        feature_map("sum", 1, 1, 12),
        feature_map("product", 1, 1, 12),
        feature_map("rescaled", 1, 1, 12),
        feature_map("looked_up", 1, 1, 12),
        feature_map("mean", 1, 1, 12),
    )
}
CONV = Convolution(
    name="conv", operator="CONV_2D", input="x", output="conv", kernel=np.ones((3, 3, 4, 6), np.int8),
    stride=(2, 2), pad=(0, 0), requantize=requantize(6),
)  # fmt: skip
DEPTHWISE = Convolution(
    name="depthwise", operator="DEPTHWISE_CONV_2D", input="conv", output="depthwise",
    kernel=np.ones((3, 3, 1, 12), np.int8), pad=(1, 1), depthwise=True, requantize=requantize(),
)  # fmt: skip
MAX = MaxPool(
    name="max", operator="MAX_POOL_2D", input="depthwise", output="max", window=(2, 3), stride=(2, 2), pad=(0, 1)
)
AVERAGE = AveragePool(
    name="average", operator="AVERAGE_POOL_2D", input="max", output="average", window=(2, 2), stride=(2, 2)
)
ADD = Add(
    name="sum", operator="ADD", input="average", output="sum", operand="average", multiplier_input=1 << 30,
    shift_input=0, zero_input=1, multiplier_operand=1 << 30, shift_operand=-3, zero_operand=2, multiplier=1 << 30,
    shift=-18, zero_point=4,
)  # fmt: skip
RESCALE = Rescale(name="rescale", operator="RELU", input="product", output="rescaled", requantize=requantize())
TABLE = Table(
    name="table", operator="TANH", input="rescaled", output="looked_up", table=np.arange(-128, 128).astype(np.int8)
)
MULTIPLY = Multiply(
    name="product", operator="MUL", input="sum", output="product", operand="average", zero_input=1, zero_operand=-9,
    multiplier=1 << 30, shift=7, zero_point=4,
)  # fmt: skip
MEAN = Mean(name="mean", operator="MEAN", input="looked_up", output="mean", requantize=requantize())
LAYERS: tuple[Layer, ...] = (CONV, DEPTHWISE, MAX, AVERAGE, ADD, MULTIPLY, RESCALE, TABLE, MEAN)
GRAPH = Graph(maps=MAPS, layers=LAYERS, inputs=("x",), outputs=("mean", "conv"))


def with_layer(old: Layer, **changes: Any) -> Graph:
    return replace(GRAPH, layers=tuple(replace(old, **changes) if layer is old else layer for layer in LAYERS))


def with_map(key: str, **changes: Any) -> Graph:
    return replace(GRAPH, maps={**MAPS, key: replace(MAPS[key], **changes)})


def with_requantize(**changes: Any) -> Graph:
    return with_layer(CONV, requantize=requantize(6, **changes))


def test_a_sound_graph_passes():
    verify(GRAPH)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (with_map("x", name="y"), "'x' calls itself 'y'"),
        (with_map("x", height=0), "'x' is empty"),
        (with_map("x", zero_point=128), "'x' has zero point 128"),
        (replace(GRAPH, inputs=("x", "y")), "'y' has no feature map"),
        (replace(GRAPH, outputs=("mean", "mean")), "outputs name a feature map twice"),
        (replace(GRAPH, outputs=("x",)), "no layer writes the graph's output 'x'"),
        (replace(GRAPH, layers=LAYERS[:-1], outputs=("conv",)), r"no layer reads or writes .*\['mean'\]"),
        (replace(GRAPH, layers=(DEPTHWISE, CONV, *LAYERS[2:])), "DEPTHWISE_CONV_2D 'depthwise'.* reads 'conv' before"),
        (replace(GRAPH, layers=(CONV, *LAYERS)), "it writes 'conv', which is there already"),
        (with_layer(CONV, input="gone"), "feature map 'gone' does not exist"),
        (with_layer(ADD, operand="gone"), "feature map 'gone' does not exist"),
        (with_layer(ADD, operand="mean"), "ADD 'sum' .* reads 'mean' before"),
        (with_layer(CONV, kernel=np.ones((3, 3, 4, 6), np.int16)), "must be int8 of 4 dimensions, not int16"),
        (with_layer(CONV, kernel=np.ones((3, 3, 4, 5), np.int8)), "does not give 6 channels"),
        (with_layer(CONV, kernel=np.ones((3, 3, 3, 6), np.int8)), "does not fit 4 input channels"),
        (with_layer(DEPTHWISE, kernel=np.ones((3, 3, 6, 12), np.int8)), "depthwise kernel .* does not fit 6"),
        (with_layer(CONV, dilation=(0, 1)), "dilation .* must be positive"),
        (with_layer(CONV, stride=(0, 2)), "must be positive"),
        (with_layer(CONV, pad=(-1, 0)), "padding .* not negative"),
        (with_layer(CONV, stride=(1, 2)), "height 8, padded by 0, gives more than 4 outputs"),
        (with_layer(CONV, pad=(0, 4)), "width 6, padded by 4, gives more than 3 outputs"),
        (with_layer(MAX, pad=(0, 3)), "misses the image|gives more"),
        (with_layer(MAX, stride=(4, 2)), r"a window of \(2, 3\) padded by \(0, 1\) misses the image"),
        (with_layer(MAX, output="conv", name="again"), "which is there already"),
        (with_map("max", channels=6), "it reads 12 and writes 6 channels"),
        (with_layer(MAX, minimum=5, maximum=4), "minimum must be from -128 to 4, not 5"),
        (with_layer(AVERAGE, maximum=128), "maximum must be from -128 to 127, not 128"),
        (with_map("mean", channels=6), "the mean of 12 channels"),
        (with_map("rescaled", width=2), "differ in shape"),
        (with_map("looked_up", height=2), "TANH 'table' .*differ in shape"),
        (with_layer(TABLE, table=np.zeros(255, np.int8)), r"must be int8 of 256 entries, not int8 \(255,\)"),
        (with_layer(TABLE, table=np.zeros(256, np.int64)), r"must be int8 of 256 entries, not int64 \(256,\)"),
        (with_layer(AVERAGE, rules={3: requantize()}), "it has no rule for a window of 4 pixels"),
        (with_layer(AVERAGE, rules={4: requantize(shift=np.array([8]))}), "shift must be from -31 to 7, not 8"),
        (with_layer(ADD, operand="max"), "differ in shape"),
        (with_layer(ADD, shift=1), "shift must be from -31 to 0, not 1"),
        (with_layer(MULTIPLY, operand="max"), "differ in shape"),
        (with_layer(MULTIPLY, shift=8), "shift must be from -31 to 7, not 8"),
        (with_layer(MULTIPLY, multiplier=1 << 31), "multiplier must be from 0 to 2147483647, not 2147483648"),
        (with_layer(MULTIPLY, zero_operand=128), "zero point must be from -128 to 127, not 128"),
        (with_layer(MULTIPLY, minimum=128), "minimum must be from -128 to 127, not 128"),
        (with_layer(ADD, multiplier_operand=-1), "multiplier must be from 0 to 2147483647, not -1"),
        (with_layer(ADD, zero_input=-129), "zero point must be from -128 to 127, not -129"),
        (with_requantize(multiplier=np.ones(5, np.int64)), r"must be int64 of 1 or 6 values, not int64 \(5,\)"),
        (with_requantize(shift=np.zeros(6, np.int32)), "shift must be int64"),
        (with_requantize(shift=np.full(6, 8)), "shift must be from -31 to 7, not 8"),
        (with_requantize(multiplier=np.full(6, 1 << 31)), "multiplier must be from 0"),
        (with_requantize(bias=np.full(6, -(1 << 31) - 1)), "bias must be from"),
        (with_requantize(zero_point=-129), "zero point must be from"),
        (with_requantize(minimum=-129), "minimum must be from"),
        (replace(GRAPH, layers=(*LAYERS, Layer(name="?", operator="?", input="x", output="mean"))), "already"),
        (
            replace(GRAPH, layers=(*LAYERS[:-1], Layer(name="?", operator="?", input="x", output="mean"))),
            "no such layer is known",
        ),
    ],
)  # fmt: skip
def test_a_broken_graph_is_refused(graph: Graph, message: str):
    with pytest.raises(VerifyError, match=message):
        verify(graph)
