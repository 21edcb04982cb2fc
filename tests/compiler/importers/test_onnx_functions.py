# SPDX-License-Identifier: Apache-2.0
"""Functions of one number become tables; what these hold is compared with ONNX Runtime for all 256 numbers."""

from typing import Any

import numpy as np
import pytest

from loomwork.compiler.graph import Add, Multiply, Table
from loomwork.compiler.importers.onnx_operators import FUNCTIONS
from tests.compiler.onnx_check import check, layers
from tests.onnx_models import QdqBuilder

# Constants behind the tensor, and attributes, of functions that have some.
ARGUMENTS: dict[str, tuple[list[float], dict[str, Any]]] = {
    "Celu": ([], {"alpha": 1.7}),
    "Elu": ([], {"alpha": 0.6}),
    "HardSigmoid": ([], {"alpha": 0.31, "beta": 0.43}),
    "LeakyRelu": ([], {"alpha": 0.13}),
    "Max": ([0.731], {}),
    "Min": ([0.731], {}),
    "PRelu": ([0.23], {}),
    "Pow": ([2.0], {}),
    "ThresholdedRelu": ([], {"alpha": 0.71}),
}
POSITIVE = ("Log", "Reciprocal", "Sqrt")
FEW_VALUES = ("Ceil", "Floor", "Round", "Sign")
OPSETS = {"Gelu": 20, "Mish": 18, "Swish": 24}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("op", FUNCTIONS)
def test_table(op: str, dtype: str) -> None:
    constants, attributes = ARGUMENTS.get(op, ([], {}))
    m = QdqBuilder(dtype=dtype, opset=OPSETS.get(op, 17))
    x = m.input((1, 8, 9, 10), scale=0.1273 if op in FEW_VALUES else 0.05173, zero_point=-128 if op in POSITIVE else 3)
    if op in POSITIVE:  # of numbers above zero
        x = m.quantize(m.node("Relu", m.node("Add", x, m.constant(0.9))), zero_point=-128)
        x = m.quantize(m.node("Clip", x, m.constant(0.5)), scale=0.0531, zero_point=-128)
    y = m.node(op, x, *map(m.constant, constants), **attributes)
    m.output(m.quantize(y, scale=0.0217 if op in FEW_VALUES else None), stored=True)
    found = layers(check(m.case(2), fewest=3 if op in FEW_VALUES else 12))
    assert isinstance(found[-1], Table)
    assert found[-1].operator == op


def test_clamp_behind_a_function() -> None:
    m = QdqBuilder()
    y = m.node("Clip", m.node("Tanh", m.input((1, 8, 9, 10))), m.constant(-0.311), m.constant(0.622))
    m.output(m.quantize(y, scale=0.00731))
    (layer,) = layers(check(m.case(2)))
    assert isinstance(layer, Table)


def test_the_product_with_a_sigmoid_is_one_table() -> None:
    """SiLU as PyTorch exports it: both factors are functions of one tensor, and so is their product."""
    m = QdqBuilder()
    x = m.quantize(m.node("Relu", m.input((1, 8, 9, 10))), zero_point=-128)
    gate = m.quantize(m.node("Sigmoid", x), scale=1 / 255.3, zero_point=-128)
    y = m.quantize(m.node("Mul", x, gate))
    m.output(m.quantize(m.node("Relu", y), zero_point=-128))
    found = layers(check(m.case(2)))
    assert [layer.operator for layer in found if isinstance(layer, Table)] == ["Mul"]


def test_a_tensor_beside_a_function_of_it_is_not_taken_for_that_tensor_twice() -> None:
    m = QdqBuilder()
    x = m.quantize(m.node("Relu", m.input((1, 8, 9, 10))), zero_point=-128)
    m.output(m.quantize(m.node("Concat", x, m.quantize(m.node("Tanh", x)), axis=1)))
    check(m.case(2))


def test_the_product_of_two_tensors_is_no_table() -> None:
    m = QdqBuilder()
    x, other = m.quantize(m.node("Relu", m.input((1, 8, 9, 10)))), m.input((1, 8, 9, 10))
    m.output(m.quantize(m.node("Mul", x, m.quantize(m.node("Sigmoid", other), scale=1 / 255.3, zero_point=-128))))
    kinds = [type(layer) for layer in layers(check(m.case(2)))]
    assert (kinds.count(Multiply), kinds.count(Table)) == (1, 1)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1)])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [0.0371, 0.2219])
def test_a_slope_for_each_channel(scale: float, dtype: str, shape: tuple[int, ...]) -> None:
    m = QdqBuilder(dtype=dtype)
    slopes = np.array([0.13, 0.41, -0.27, 0, 1, 1.73, -1.31, 0.0021], np.float32).reshape(shape)
    for zero_point in (-128, 11, 127):
        x = m.input((1, 8, 9, 10), zero_point=zero_point)
        m.output(m.quantize(m.node("PRelu", x, m.constant(slopes)), scale=scale), stored=True)
    clamped = m.node(
        "Clip", m.node("PRelu", m.input((1, 8, 9, 10)), m.constant(slopes)), m.constant(-0.7), m.constant(1.9)
    )
    m.output(m.quantize(clamped, scale=scale, zero_point=-9))
    kinds = [type(layer) for layer in layers(check(m.case(4), fewest=8))]
    assert (kinds.count(Add), kinds.count(Table)) == (4, 0)


def test_a_slope_for_each_pixel_is_left_to_the_host() -> None:
    m = QdqBuilder()
    x = m.quantize(m.node("Relu", m.input((1, 8, 9, 10))), zero_point=-128)
    slopes = np.linspace(0.1, 0.4, 90).astype(np.float32).reshape(9, 10)
    m.output(m.quantize(m.node("PRelu", x, m.constant(slopes))))
    check(m.case(2), host=["PRelu"])
