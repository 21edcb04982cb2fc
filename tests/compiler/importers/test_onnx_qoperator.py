# SPDX-License-Identifier: Apache-2.0
"""QOperator models (QLinearConv, QLinearAdd, ...), compared with ONNX Runtime on just these operators."""

from typing import Any

import numpy as np
import pytest

from loomwork.compiler.graph import Layer, Table
from tests.compiler.onnx_check import check, layers
from tests.onnx_models import SCALE, Case, QdqBuilder

TYPES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
IMAGE = (1, 8, 9, 10)
MICROSOFT = "com.microsoft"


class QOperatorBuilder(QdqBuilder):
    """Builds models of operators between 8-bit tensors; each quantized tensor is three names: stored, scale, zero."""

    def __init__(self, dtype: str = "int8") -> None:
        super().__init__(dtype=dtype, stored=True)

    def given(self, shape: tuple[int, ...], scale: float = SCALE, zero_point: int = 3) -> tuple[str, str, str]:
        """An input."""
        return (self.stored(self.input(shape, scale=scale, zero_point=zero_point)), *self.rule(scale, zero_point))

    def kernel(self, shape: tuple[int, ...], scale: Any = 0.00413, *, unsigned: bool = False) -> tuple[str, str, str]:
        """Weights."""
        largest = 127 if self.dtype == "int8" else 63
        stored = self.rng.integers(-largest, largest + 1, shape)
        kind, zero = (np.uint8, 128) if unsigned else (np.int8, 0)
        steps = np.asarray(scale, np.float32)
        parts = (stored + zero).astype(kind), steps, np.full(steps.shape, zero, kind)
        first, second, third = map(self.constant, parts)
        return first, second, third

    def bias32(self, count: int) -> str:
        """A bias, int32."""
        return self.constant(self.rng.integers(-3000, 3000, count).astype(np.int32))

    def rule(self, scale: float, zero_point: int) -> tuple[str, str]:
        """Scale and zero point."""
        return self._quantization(scale, zero_point)

    def result(self, stored: str, shape: tuple[int, ...]) -> Case:
        """The case whose output is an 8-bit tensor."""
        self.stored_output(stored, shape)
        return self.case()


def only_layer(case: Case, **options: Any) -> Layer:
    (layer,) = layers(check(case, **options))
    return layer


@pytest.mark.parametrize(("dtype", "unsigned"), [("int8", False), ("uint8", False), ("uint8", True)])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution(bias: bool, per_channel: bool, unsigned: bool, dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    w = m.kernel((6, 8, 3, 3), np.geomspace(0.0021, 0.0064, 6) if per_channel else 0.00413, unsigned=unsigned)
    rest = [m.bias32(6)] if bias else []
    y = m.node("QLinearConv", *m.given(IMAGE), *w, *m.rule(0.0973, -5), *rest, pads=[1, 0, 1, 2], strides=[1, 2])
    only_layer(m.result(y, (1, 6, 9, 5)))


def test_depthwise_convolution() -> None:
    m = QOperatorBuilder()
    y = m.node("QLinearConv", *m.given(IMAGE), *m.kernel((8, 1, 3, 3), 0.0213), *m.rule(0.0973, -5), group=8)
    only_layer(m.result(y, (1, 8, 7, 8)))


@TYPES
@pytest.mark.parametrize("per_channel", [False, True])
def test_matrix_product(per_channel: bool, dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    w = m.kernel((64, 12), np.geomspace(0.0021, 0.0064, 12) if per_channel else 0.00413)
    y = m.node("QLinearMatMul", *m.given((30, 64)), *w, *m.rule(0.0973, -5))
    only_layer(m.result(y, (30, 12)))


@TYPES
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_gemm(bias: bool, transposed: int, dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    w = m.kernel((40, 64) if transposed else (64, 40), np.geomspace(0.0021, 0.0064, 40))
    c = m.bias32(40) if bias else ""
    rule = m.rule(0.0973, -5)
    y = m.node("QGemm", *m.given((12, 64)), *w, c, *rule, domain=MICROSOFT, alpha=1.0, transB=transposed)
    only_layer(m.result(y, (12, 40)))


@TYPES
def test_sum(dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    a, b = m.given(IMAGE), m.given(IMAGE, 0.0329, -31)
    y = m.node("QLinearAdd", *a, *b, *m.rule(0.0611, -5), domain=MICROSOFT)
    only_layer(m.result(y, IMAGE))


@TYPES
def test_product_with_a_constant_for_each_channel(dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    b = m.kernel((1, 8, 1, 1), 0.0173, unsigned=dtype == "uint8")
    y = m.node("QLinearMul", *m.given(IMAGE), *b, *m.rule(0.0471, -5), domain=MICROSOFT)
    only_layer(m.result(y, IMAGE))


@TYPES
@pytest.mark.parametrize("padded", [False, True])
def test_average_pool(padded: bool, dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    window = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0] if padded else [0, 0, 0, 0]}
    rule = m.rule(0.0371, -5)
    y = m.node("QLinearAveragePool", *m.given(IMAGE), *rule, domain=MICROSOFT, count_include_pad=1, **window)
    only_layer(m.result(y, (1, 8, 5 if padded else 4, 5)))


@TYPES
def test_global_average_pool(dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    y = m.node("QLinearGlobalAveragePool", *m.given((1, 400, 5, 6)), *m.rule(0.0111, -5), domain=MICROSOFT)
    only_layer(m.result(y, (1, 400, 1, 1)))


@TYPES
@pytest.mark.parametrize(
    ("op", "attributes", "scale", "zero_point"),
    [("QLinearLeakyRelu", {"alpha": 0.13}, 0.0471, -90), ("QLinearSigmoid", {}, 0.00397, -128)],
)
def test_functions(op: str, attributes: dict[str, Any], scale: float, zero_point: int, dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    y = m.node(op, *m.given(IMAGE), *m.rule(scale, zero_point), domain=MICROSOFT, **attributes)
    assert isinstance(only_layer(m.result(y, IMAGE)), Table)


@TYPES
def test_concat(dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    a, b = m.given(IMAGE), m.given((1, 5, 9, 10), 0.0329, -31)
    y = m.node("QLinearConcat", *m.rule(SCALE, 3), *a, *b, domain=MICROSOFT, axis=1)
    only_layer(m.result(y, (1, 13, 9, 10)))


@TYPES
def test_softmax_is_left_to_the_host(dtype: str) -> None:
    m = QOperatorBuilder(dtype)
    y = m.node("QLinearConv", *m.given(IMAGE), *m.kernel((20, 8, 9, 10)), *m.rule(0.1973, -5))
    y = m.node("Reshape", y, m.constant([1, 20]))
    y = m.node("QLinearSoftmax", y, *m.rule(0.1973, -5), *m.rule(1 / 256, -128), domain=MICROSOFT, axis=1, opset=13)
    m.stored_output(y, (1, 20))
    check(m.case(40), host=["Softmax"])


def test_a_network_of_them() -> None:
    m = QOperatorBuilder("uint8")
    x = m.given(IMAGE)
    first = (
        m.node("QLinearConv", *x, *m.kernel((8, 8, 3, 3)), *m.rule(0.0973, -128), pads=[1] * 4),
        *m.rule(0.0973, -128),
    )
    pooled = (m.node("MaxPool", first[0], kernel_shape=[3, 3], pads=[1] * 4), *first[1:])
    y = m.node("QLinearAdd", *pooled, *x, *m.rule(0.0911, -30), domain=MICROSOFT)
    y = m.node("QLinearGlobalAveragePool", y, *m.rule(0.0911, -30), *m.rule(0.0351, -60), domain=MICROSOFT)
    y = m.node("Flatten", y)
    y = m.node("QLinearMatMul", y, *m.rule(0.0351, -60), *m.kernel((8, 30)), *m.rule(0.00411, 3))
    m.stored_output(y, (1, 30))
    check(m.case(40))


def test_computed_scales_stay_on_the_host() -> None:
    m = QOperatorBuilder()
    y = m.node("MaxPool", m.given(IMAGE)[0], kernel_shape=[2, 2])
    size = m.node("Cast", m.node("ReduceMax", m.node("Cast", y, to=1), keepdims=0), to=1)
    scale = m.node("Div", size, m.constant(1327.0))
    y = m.node("QLinearConv", y, scale, m.rule(1.0, 3)[1], *m.kernel((6, 8, 3, 3)), *m.rule(0.0973, -5))
    m.stored_output(y, (1, 6, 6, 7))
    check(m.case(), host=["Cast", "ReduceMax", "Div", "QLinearConv"])
