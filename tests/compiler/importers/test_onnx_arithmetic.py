# SPDX-License-Identifier: Apache-2.0
"""Sums, products, pools, means and clamps of quantized ONNX models compute what ONNX Runtime computes."""

from typing import Any

import numpy as np
import pytest

from loomwork.compiler.graph import Add, AveragePool, Convolution, MaxPool, Mean, Multiply, Rearrange, Rescale, Table
from loomwork.compiler.importers.onnx import import_onnx
from tests.compiler.onnx_check import check, host_operators, layers
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


@TYPES
@pytest.mark.parametrize("shape", [IMAGE, (1, 8, 40), (30, 50), (1, 3, 4, 5, 6), (3, 5, 6, 7)])
def test_products(shape: tuple[int, ...], dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    a, b = m.input(shape, scale=0.0517, zero_point=9), m.input(shape, scale=0.0329, zero_point=-31)
    m.output(m.quantize(m.node("Mul", a, b), scale=0.0617), stored=True)
    assert [type(layer) for layer in layers(check(m.case(4)))] == [Multiply]


@pytest.mark.parametrize("scale", [0.0021, 0.9])
@pytest.mark.parametrize("zero_points", [(-128, -128), (127, -128), (-128, 5)])
def test_products_at_the_ends_of_zero_points(zero_points: tuple[int, int], scale: float) -> None:
    """Differences of 9 bits; a result so fine that products are enlarged, and one so coarse that little is left."""
    m = QdqBuilder()
    a, b = (m.input(IMAGE, scale=0.0517, zero_point=zero) for zero in zero_points)
    m.output(m.quantize(m.node("Mul", a, b), scale=scale))
    check(m.case(), fewest=5)


def test_product_with_itself() -> None:
    m = QdqBuilder()
    x = m.input(IMAGE)
    m.output(m.quantize(m.node("Mul", x, x), scale=0.0911))
    check(m.case())


def test_product_that_is_clamped() -> None:
    m = QdqBuilder()
    y = m.node("Mul", m.input(IMAGE), m.input(IMAGE, scale=0.0329))
    m.output(m.quantize(m.node("Relu", y), scale=0.0713, zero_point=-128))
    assert len(layers(check(m.case()))) == 1


STRETCHED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "channels": (IMAGE, (1, 8, 1, 1)),
    "channels first": ((1, 8, 1, 1), IMAGE),
    "channels without a batch": (IMAGE, (8, 1, 1)),
    "pixels": (IMAGE, (1, 1, 9, 10)),
    "a row": (IMAGE, (10,)),
    "both": ((1, 8, 1, 10), (1, 1, 9, 1)),
    "rows": ((6, 20), (20,)),
    "a number": ((6, 20), (1,)),
}


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
@pytest.mark.parametrize("kind", STRETCHED)
def test_a_tensor_is_stretched_to_the_other(kind: str, op: str) -> None:
    m = QdqBuilder()
    a, b = (m.input(shape, scale=scale) for shape, scale in zip(STRETCHED[kind], (0.0517, 0.0329), strict=True))
    m.output(m.quantize(m.node(op, a, b), scale=0.0617))
    kinds = [type(layer) for layer in layers(check(m.case()))]
    assert kinds[-1] is (Multiply if op == "Mul" else Add)
    assert Rearrange in kinds


def test_a_tensor_is_stretched_to_several_shapes() -> None:
    """The copy for one is not taken for another, and is made once for two readers of one shape."""
    m = QdqBuilder()
    gate = m.input((1, 8, 1, 1), scale=0.0311)
    for shape in (IMAGE, IMAGE, (1, 8, 4, 3)):
        m.output(m.quantize(m.node("Mul", m.input(shape), gate), scale=0.0617))
    check(m.case(), host=None)


def test_squeeze_and_excite() -> None:
    """Mean, two dense layers, a gate that scales the channels: all of it on the accelerator."""
    m = QdqBuilder()
    x = m.quantize(m.node("Conv", m.input(IMAGE), m.weights((12, 8, 3, 3))), scale=0.0613)
    y = m.quantize(m.node("GlobalAveragePool", x), scale=0.0137)
    y = m.quantize(m.node("Relu", m.node("Conv", y, m.weights((4, 12, 1, 1)))), scale=0.0119, zero_point=-128)
    y = m.quantize(m.node("HardSigmoid", m.quantize(m.node("Conv", y, m.weights((12, 4, 1, 1))))), scale=1 / 255)
    m.output(m.quantize(m.node("Mul", x, y), scale=0.0417))
    kinds = [type(layer) for layer in layers(check(m.case()))]
    assert kinds == [Convolution, Mean, Convolution, Convolution, Table, Rearrange, Multiply]


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


@TYPES
@pytest.mark.parametrize("clamped", [False, True])
@pytest.mark.parametrize("kind", ["padded", "padded on one side", "same upper", "same lower", "ceil", "ceil, padded"])
def test_average_pool_that_counts_pixels_of_the_image(kind: str, clamped: bool, dtype: str) -> None:
    shape, attributes = WINDOWS[kind]
    m = QdqBuilder(dtype=dtype)
    y = m.node("AveragePool", m.input(shape), **attributes)
    m.output(m.quantize(m.node("Relu", y) if clamped else y, scale=0.0347), stored=True)
    (layer,) = layers(check(m.case()))
    assert isinstance(layer, AveragePool)


def test_average_pool_whose_windows_leave_the_padding_is_left_to_the_host() -> None:
    """Where ONNX Runtime's own kernels divide by different numbers."""
    shape, attributes = WINDOWS["ceil"]
    m = QdqBuilder()
    y = m.quantize(m.node("AveragePool", m.input(shape), **attributes, count_include_pad=1))
    m.output(m.quantize(m.node("Relu", y), zero_point=-128))
    (reason,) = host_operators(import_onnx(m.case().model, "model")).values()
    assert reason.startswith("its last windows leave the padding that counts (ceil_mode)")


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
