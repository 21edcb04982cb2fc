# SPDX-License-Identifier: Apache-2.0
"""Sums, products, pools, means and clamps of quantized ONNX models compute what ONNX Runtime computes."""

from typing import Any

import numpy as np
import pytest

from loomwork.compiler.graph import Add, Convolution, MaxPool, Mean, Rescale, Table
from tests.compiler.onnx_check import check, layers
from tests.onnx_models import SCALE, ZERO_POINT, QdqBuilder

TYPES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
IMAGE = (1, 8, 9, 10)


@TYPES
@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("shape", [IMAGE, (1, 8, 40), (30, 50), (1, 3, 4, 5, 6)])
def test_sums(shape: tuple[int, ...], op: str, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    a, b = m.input(shape, scale=0.0517, zero_point=9), m.input(shape, scale=0.0329, zero_point=-31)
    m.output(m.quantize(m.node(op, a, b)), stored=True)
    kinds = [type(layer) for layer in layers(check(m.case(4)))]
    assert kinds == ([Add] if op == "Add" else [Convolution, Add])


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_differences_at_the_ends_of_zero_points(zero_point: int) -> None:
    m = QdqBuilder()
    a, b = m.input(IMAGE, zero_point=-1 - zero_point), m.input(IMAGE, scale=0.0431, zero_point=zero_point)
    m.output(m.quantize(m.node("Sub", a, b)))
    check(m.case())


@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_sums_of_very_different_scales(op: str) -> None:
    m = QdqBuilder()
    a, b = m.input(IMAGE, scale=0.83), m.input(IMAGE, scale=0.00119)
    m.output(m.quantize(m.node(op, a, b)))
    check(m.case())


def test_sum_with_itself() -> None:
    m = QdqBuilder()
    x = m.input(IMAGE)
    m.output(m.quantize(m.node("Add", x, x), scale=0.0911))
    check(m.case())


def test_sum_that_is_clamped() -> None:
    m = QdqBuilder()
    y = m.node("Add", m.input(IMAGE), m.input(IMAGE, scale=0.0329))
    m.output(m.quantize(m.node("Relu", y), zero_point=-128))
    assert len(layers(check(m.case()))) == 1


@TYPES
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_one_constant_makes_a_table(op: str, first: bool, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    x, c = m.input(IMAGE, zero_point=-128 if (op, first) == ("Div", True) else 3), m.constant(-1.327)
    if (op, first) == ("Div", True):
        x = m.quantize(m.node("Add", x, m.constant(0.731)), zero_point=-128)
    m.output(m.quantize(m.node(op, c, x) if first else m.node(op, x, c)), stored=True)
    assert {type(layer) for layer in layers(check(m.case()))} == {Table}


@TYPES
@pytest.mark.parametrize("op", ["Mul", "Div"])
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1)])
def test_products_with_a_constant_for_each_channel(shape: tuple[int, ...], op: str, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    factors = np.linspace(-1.13, 2.17, 8).astype(np.float32).reshape(shape)
    m.output(m.quantize(m.node(op, m.input(IMAGE), m.constant(factors))), stored=True)
    (layer,) = layers(check(m.case()))
    assert isinstance(layer, Convolution)


def test_products_with_stored_factors() -> None:
    m = QdqBuilder()
    m.output(m.quantize(m.node("Mul", m.weights((1, 8, 1, 1), scale=0.0173), m.input(IMAGE))))
    check(m.case())


# Shape, and attributes of the window.
WINDOWS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2x2": ((1, 8, 10, 12), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "3x2": ((1, 8, 10, 12), {"kernel_shape": [3, 2], "strides": [1, 3]}),
    "padded": ((1, 8, 10, 12), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "padded on one side": ((1, 8, 10, 12), {"kernel_shape": [3, 4], "strides": [2, 2], "pads": [0, 2, 1, 1]}),
    "same upper": ((1, 8, 9, 11), {"kernel_shape": [2, 4], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same lower": ((1, 8, 9, 11), {"kernel_shape": [2, 4], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "valid": ((1, 8, 9, 11), {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "VALID"}),
    "ceil": ((1, 8, 9, 11), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "ceil, padded": ((1, 8, 10, 12), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 0, 1]}),
    "1-D": ((1, 8, 60), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
}


@TYPES
@pytest.mark.parametrize("kind", WINDOWS)
def test_max_pool(kind: str, dtype: str) -> None:
    shape, attributes = WINDOWS[kind]
    m = QdqBuilder(dtype=dtype)
    y = m.quantize(m.node("MaxPool", m.input(shape), **attributes), scale=SCALE, zero_point=ZERO_POINT)
    m.output(m.quantize(m.node("MaxPool", y, kernel_shape=[2] * (len(shape) - 2)), scale=0.0413), stored=True)
    kinds = [type(layer) for layer in layers(check(m.case()))]
    assert kinds == [MaxPool, MaxPool, Rescale]


def test_max_pool_of_stored_numbers() -> None:
    """Between DequantizeLinear and QuantizeLinear in the standard form; on int8 where a tool took them away."""
    m = QdqBuilder(stored=True)
    y = m.node("MaxPool", m.stored(m.input((1, 8, 10, 12))), kernel_shape=[3, 3], strides=[2, 2])
    m.output(m.dequantize(y, SCALE, ZERO_POINT), stored=True)
    check(m.case())


@TYPES
@pytest.mark.parametrize("kind", ["2x2", "3x2", "valid", "1-D", "padded", "padded on one side", "same upper"])
def test_average_pool(kind: str, dtype: str) -> None:
    shape, attributes = WINDOWS[kind]
    m = QdqBuilder(dtype=dtype)
    m.output(m.quantize(m.node("AveragePool", m.input(shape), **attributes, count_include_pad=1)), stored=True)
    check(m.case())


@pytest.mark.parametrize("kind", ["padded", "ceil", "same upper"])
def test_average_pool_of_unequal_windows_is_left_to_the_host(kind: str) -> None:
    shape, attributes = WINDOWS[kind]
    m = QdqBuilder()
    y = m.quantize(m.node("AveragePool", m.input(shape), **attributes))
    m.output(m.quantize(m.node("Relu", y), zero_point=-128))
    check(m.case(), host=["AveragePool"])


@TYPES
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 60, 5, 6), (1, 60, 13)])
def test_global_pools(shape: tuple[int, ...], op: str, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    m.output(m.quantize(m.node(op, m.input(shape))), stored=True)
    found = layers(check(m.case(20)))
    assert isinstance(found[0], Mean if op == "GlobalAveragePool" else MaxPool)


@TYPES
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 60, 5, 6), (2, 3)),
        ((1, 60, 5, 6), (-1, -2)),
        ((1, 60, 13), (-1,)),
        ((1, 13, 60), (1,)),
        ((1, 60, 5, 6), (3, -2)),
    ],
)
@pytest.mark.parametrize("opset", [17, 18])
def test_reduce_mean(shape: tuple[int, ...], axes: tuple[int, ...], keep: int, opset: int, dtype: str) -> None:
    """Axes are an attribute in opset 17 and an input in opset 18."""
    m = QdqBuilder(dtype=dtype, opset=opset)
    x = m.input(shape)
    if opset == 17:
        y = m.node("ReduceMean", x, axes=list(axes), keepdims=keep)
    else:
        y = m.node("ReduceMean", x, m.constant(axes), keepdims=keep)
    m.output(m.quantize(y), stored=True)
    (layer,) = layers(check(m.case(20)))
    assert isinstance(layer, Mean)


def test_mean_over_channels_is_left_to_the_host() -> None:
    m = QdqBuilder()
    y = m.quantize(m.node("Relu", m.input((1, 8, 10, 12))))
    m.output(m.quantize(m.node("ReduceMean", y, axes=[1])))
    check(m.case(), host=["ReduceMean"])


@TYPES
@pytest.mark.parametrize("shape", [IMAGE, (1, 60), (1, 7, 30), (5, 60), (60,)])
@pytest.mark.parametrize("op", ["Relu", "Clip", "QuantizeLinear"])
def test_rescaling(op: str, shape: tuple[int, ...], dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    y = m.input(shape)
    if op != "QuantizeLinear":
        y = m.node(op, y, *([m.constant(-1.1), m.constant(3.7)] if op == "Clip" else []))
    m.output(m.quantize(y, scale=0.0413, zero_point=-11), stored=True)
    (layer,) = layers(check(m.case(20)))
    assert isinstance(layer, Rescale)
