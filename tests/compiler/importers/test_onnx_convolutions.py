# SPDX-License-Identifier: Apache-2.0
"""Quantized convolutions and matrix products of ONNX models compute what ONNX Runtime computes."""

from typing import Any

import numpy as np
import pytest

from loomwork.compiler.graph import Convolution, Rearrange
from tests.compiler.onnx_check import check, layers
from tests.onnx_models import SCALE, QdqBuilder

TYPES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
KINDS = pytest.mark.parametrize(
    ("dtype", "per_channel"), [("int8", True), ("uint8", False)], ids=["int8, a scale per channel", "uint8, one scale"]
)


def scales(count: int, per_channel: bool) -> Any:
    return np.geomspace(0.00113, 0.00897, count) if per_channel else 0.00413


# Shapes of image and kernel, and attributes.
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1x1": ((1, 8, 9, 10), (7, 8, 1, 1), {}),
    "3x3": ((1, 8, 9, 10), (6, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    "asymmetric pads": ((1, 5, 9, 10), (6, 5, 3, 4), {"pads": [2, 0, 1, 3]}),
    "strides": ((1, 8, 11, 12), (9, 8, 3, 3), {"pads": [1, 0, 0, 1], "strides": [2, 3]}),
    "dilated": ((1, 4, 12, 13), (5, 4, 3, 2), {"dilations": [2, 3], "pads": [1, 2, 3, 0]}),
    "same upper": ((1, 6, 9, 10), (5, 6, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((1, 6, 9, 10), (5, 6, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "valid": ((1, 6, 9, 10), (5, 6, 3, 4), {"auto_pad": "VALID"}),
    "grouped": ((1, 8, 9, 10), (6, 4, 3, 3), {"group": 2}),
    "depthwise": ((1, 8, 9, 10), (8, 1, 3, 3), {"group": 8, "pads": [1, 1, 1, 1]}),
    "depthwise, dilated": ((1, 8, 12, 10), (8, 1, 3, 2), {"group": 8, "dilations": [3, 2], "strides": [1, 2]}),
    "depthwise with a multiplier": ((1, 5, 9, 10), (15, 1, 3, 3), {"group": 5, "auto_pad": "SAME_UPPER"}),
    "one input channel": ((1, 1, 12, 13), (6, 1, 3, 3), {"group": 1}),
    "1-D": ((1, 8, 60), (6, 8, 5), {"pads": [3, 1], "strides": [2]}),
    "1-D, dilated": ((1, 8, 60), (6, 8, 3), {"dilations": [4], "pads": [2, 7]}),
    "1-D, depthwise": ((1, 12, 40), (12, 1, 3), {"group": 12, "pads": [1, 1]}),
    "kernel as large as the image": ((1, 5, 6, 7), (300, 5, 6, 7), {}),
}


@KINDS
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_conv(kind: str, dtype: str, per_channel: bool) -> None:
    image, kernel, attributes = CONVOLUTIONS[kind]
    m = QdqBuilder(dtype=dtype)
    steps = scales(kernel[0], per_channel)
    w, b = m.weights(kernel, scale=steps), m.bias((kernel[0],), SCALE * steps)
    m.output(m.quantize(m.node("Conv", m.input(image), w, b, **attributes)), stored=True)
    (layer,) = layers(check(m.case(3)))
    assert isinstance(layer, Convolution)
    assert layer.depthwise == ("depthwise" in kind)


@TYPES
@pytest.mark.parametrize("per_channel", [False, True])
def test_conv_with_unsigned_weights(dtype: str, per_channel: bool) -> None:
    m = QdqBuilder(dtype=dtype)
    w = m.weights((9, 8, 3, 3), scale=scales(9, per_channel), unsigned=True)
    m.output(m.quantize(m.node("Conv", m.input((1, 8, 9, 10)), w)), stored=True)
    check(m.case(4))


@TYPES
@pytest.mark.parametrize("zero_point", [-128, 127, 0])
def test_conv_at_the_ends_of_zero_points(dtype: str, zero_point: int) -> None:
    m = QdqBuilder(dtype=dtype)
    x = m.input((1, 8, 9, 10), zero_point=zero_point)
    y = m.quantize(m.node("Conv", x, m.weights((9, 8, 3, 3)), pads=[1, 1, 1, 1]), zero_point=-1 - zero_point)
    m.output(y, stored=True)
    check(m.case(4))


def test_conv_with_one_bias_of_another_scale() -> None:
    """Float biases, and those with a scale of their own, are rounded to the scale of the sums."""
    m = QdqBuilder()
    b = m.constant(np.linspace(-2, 2, 6).astype(np.float32))
    m.output(m.quantize(m.node("Conv", m.input((1, 4, 9, 10)), m.weights((6, 4, 3, 3)), b)))
    check(m.case(4))


@pytest.mark.parametrize("stored_bias", [False, True])
@pytest.mark.parametrize(("alpha", "beta"), [(0.37, 1.0), (1.0, 2.3), (1.9, -0.41), (0.7, 0.0)])
def test_gemm_with_factors(alpha: float, beta: float, stored_bias: bool) -> None:
    m = QdqBuilder()
    b = m.bias((12,), SCALE * 0.00413) if stored_bias else m.constant(np.linspace(-2, 2, 12).astype(np.float32))
    y = m.node("Gemm", m.input((30, 40)), m.weights((40, 12)), b, alpha=alpha, beta=beta)
    m.output(m.quantize(y))
    check(m.case(4))


def test_gemm_with_a_negative_factor_is_left_to_the_host() -> None:
    m = QdqBuilder()
    x = m.quantize(m.node("Relu", m.input((30, 40))), zero_point=-128)
    m.output(m.quantize(m.node("Gemm", x, m.weights((40, 12)), alpha=-0.5)))
    check(m.case(4), host=["Gemm"])


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "2x2, stride 2": ((1, 8, 5, 6), (8, 5, 2, 2), {"strides": [2, 2]}),
    "4x4, stride 2": ((1, 8, 5, 6), (8, 5, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "output padding": (
        (1, 8, 5, 6),
        (8, 5, 3, 3),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "asymmetric": ((1, 6, 5, 6), (6, 5, 5, 3), {"strides": [3, 2], "pads": [2, 0, 1, 1], "output_padding": [1, 0]}),
    "stride 1": ((1, 6, 8, 9), (6, 5, 3, 3), {"pads": [1, 0, 1, 2]}),
    "gaps": ((1, 8, 5, 6), (8, 5, 2, 2), {"strides": [3, 3]}),
    "same upper": ((1, 8, 5, 6), (8, 5, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same lower": ((1, 8, 5, 6), (8, 5, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "valid": ((1, 8, 5, 6), (8, 5, 3, 3), {"strides": [2, 1], "auto_pad": "VALID"}),
    "output shape": ((1, 8, 5, 6), (8, 5, 3, 3), {"strides": [2, 2], "output_shape": [10, 12]}),
    "output shape, same upper": (
        (1, 8, 5, 6),
        (8, 5, 3, 4),
        {"strides": [2, 2], "output_shape": [10, 11], "auto_pad": "SAME_UPPER"},
    ),
    "groups": ((1, 8, 5, 6), (8, 3, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 4}),
    "depthwise": ((1, 8, 5, 6), (8, 1, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 8}),
    "1-D": ((1, 8, 30), (8, 5, 4), {"strides": [2], "pads": [1, 1]}),
}


@TYPES
@pytest.mark.parametrize("kind", TRANSPOSED)
def test_conv_transpose(kind: str, dtype: str) -> None:
    image, kernel, attributes = TRANSPOSED[kind]
    m = QdqBuilder(dtype=dtype)
    channels = kernel[1] * attributes.get("group", 1)
    w, b = m.weights(kernel, axis=1), m.bias((channels,), SCALE * 0.00413)
    m.output(m.quantize(m.node("ConvTranspose", m.input(image), w, b, **attributes)), stored=True)
    kinds = [type(layer) for layer in layers(check(m.case(3)))]
    assert kinds == [Convolution, Rearrange]


def test_conv_transpose_with_a_scale_for_each_channel() -> None:
    m = QdqBuilder()
    steps = scales(5, per_channel=True)
    w, b = m.weights((8, 5, 4, 4), scale=steps, axis=1), m.bias((5,), SCALE * steps)
    y = m.node("ConvTranspose", m.input((1, 8, 5, 6)), w, b, strides=[2, 2], pads=[1, 1, 1, 1])
    m.output(m.quantize(y))
    check(m.case(4))


@KINDS
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (60,), (1, 60)], ids=["no bias", "N", "1xN"])
@pytest.mark.parametrize("rows", [1, 40])
def test_gemm(rows: int, bias: tuple[int, ...] | None, transposed: int, per_channel: bool, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    steps = scales(60, per_channel)
    w = m.weights((60, 64) if transposed else (64, 60), scale=steps, axis=1 - transposed)
    others = [m.bias(bias, SCALE * steps)] if bias else []
    m.output(m.quantize(m.node("Gemm", m.input((rows, 64)), w, *others, transB=transposed)), stored=True)
    check(m.case(20 if rows == 1 else 1))


@KINDS
@pytest.mark.parametrize("shape", [(1, 96), (30, 64), (1, 30, 64), (1, 3, 10, 64)])
def test_matmul(shape: tuple[int, ...], per_channel: bool, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    w = m.weights((shape[-1], 40), scale=scales(40, per_channel), axis=1)
    m.output(m.quantize(m.node("MatMul", m.input(shape), w)), stored=True)
    check(m.case(30 if shape == (1, 96) else 1))


def test_matmul_with_unsigned_weights() -> None:
    m = QdqBuilder(dtype="uint8")
    m.output(m.quantize(m.node("MatMul", m.input((1, 30, 64)), m.weights((64, 12), unsigned=True))), stored=True)
    check(m.case(4))


@pytest.mark.parametrize(
    ("clamp", "bounds"), [("Relu", ()), ("Clip", (-0.3, 2.13)), ("Clip", (None, 1.37)), ("Clip", (-0.71,))]
)
def test_what_is_clamped_becomes_one_layer(clamp: str, bounds: tuple[float | None, ...]) -> None:
    m = QdqBuilder()
    y = m.node("Conv", m.input((1, 8, 9, 10)), m.weights((6, 8, 3, 3)))
    limits = ["" if bound is None else m.constant(float(bound)) for bound in bounds]
    m.output(m.quantize(m.node(clamp, y, *limits), scale=0.0317), stored=True)
    assert len(layers(check(m.case(4)))) == 1


def test_clamp_between_quantizations() -> None:
    """Conv, Q, DQ, Relu, Q, DQ, Conv, as some exporters leave it."""
    m = QdqBuilder()
    y = m.quantize(m.node("Conv", m.input((1, 8, 9, 10)), m.weights((6, 8, 3, 3))), zero_point=7)
    y = m.quantize(m.node("Relu", y), zero_point=-128)
    y = m.quantize(m.node("Clip", y, m.constant(0.0), m.constant(6.0)), zero_point=-100)
    m.output(m.quantize(m.node("Conv", y, m.weights((7, 6, 2, 2)))))
    check(m.case(4))
