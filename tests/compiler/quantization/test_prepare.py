# SPDX-License-Identifier: Apache-2.0
"""Preparation: what a model computes stays, what stands in the way of good scales goes."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from loomwork.compiler.quantization.prepare import prepare
from loomwork.compiler.quantization.shapes import fix_shapes
from tests.compiler.quantization.graphs import Node, model, node, normal, samples
from tests.onnx_models import onnxruntime_session

X = [1, 4, 6, 6]


def run(network: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime_session(network)
    return np.asarray(session.run(["y"], {"x": x})[0])


def prepared(network: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes of the prepared model, which computes the same."""
    result = prepare(fix_shapes(network, {}))
    onnx.checker.check_model(result, full_check=True)
    assert result.opset_import[0].version >= 13
    x = samples(*X)
    np.testing.assert_allclose(run(result, x), run(network, x), rtol=1e-4, atol=1e-5)
    assert len({item.name for item in result.graph.node}) == len(result.graph.node)
    assert [value.name for value in result.graph.input] == ["x"]
    return list(result.graph.node)


def network(
    nodes: list[Node], shape: list[int], *, opset: int = 13, names: bool = True, **constants: Any
) -> onnx.ModelProto:
    return model(nodes, {"x": X}, {"y": shape}, constants, opset=opset, names=names)


def test_batch_normalization_is_folded_into_the_convolution():
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c scale shift mean variance", "y")]
    statistics: dict[str, Any] = {"scale": normal(5), "shift": normal(5, seed=2), "mean": normal(5, seed=3)}
    statistics["variance"] = normal(5) ** 2 + 1
    found = prepared(network(nodes, [1, 5, 4, 4], w=normal(5, 4, 3, 3), **statistics))
    assert [item.op_type for item in found] == ["Conv"]
    assert len(found[0].input) == 3


def test_initializers_that_are_inputs_are_folded_too():
    """As files of old operator sets have them; a caller might replace them, but nobody does."""
    nodes = [node("Conv", "x w", "c"), node("Add", "c bias", "y")]
    old = network(nodes, [1, 5, 4, 4], opset=8, w=normal(5, 4, 3, 3), bias=normal(5, 1, 1))
    old.ir_version = 3
    for name, shape in (("w", [5, 4, 3, 3]), ("bias", [5, 1, 1])):
        old.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    assert [item.op_type for item in prepared(old)] == ["Conv"]


def test_an_addition_behind_a_product_becomes_a_gemm():
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w", "m"), node("Add", "m bias", "y")]
    found = prepared(network(nodes, [1, 5], w=normal(144, 5), bias=normal(5)))
    assert [item.op_type for item in found] == ["Flatten", "Gemm"]


def test_shape_computations_are_folded():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n", "u", axes=[0]),
        node("Concat", "u rest", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    found = prepared(network(nodes, [1, 144], opset=11, zero=np.array(0), rest=np.array([-1])))
    assert [item.op_type for item in found] == ["Reshape"]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("kind", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_resizing_of_old_operator_sets_means_the_same(kind: str, opset: int, mode: str):
    scales = np.array([1, 1, 2, 2], np.float32)
    found = prepared(network([node(kind, "x scales", "y", mode=mode)], [1, 4, 12, 12], opset=opset, scales=scales))
    assert [item.op_type for item in found] == ["Resize"]


def test_softmax_of_old_operator_sets_means_the_same():
    # Until operator set 12 over all dimensions from the axis on, since 13 over the axis alone.
    kinds = [item.op_type for item in prepared(network([node("Softmax", "x", "y", axis=1)], X, opset=11))]
    assert "Softmax" in kinds


@pytest.mark.parametrize("swapped", [False, True])
def test_a_hard_sigmoid_times_its_input_is_one_operator(swapped: bool):
    nodes = [
        node("HardSigmoid", "x", "g", alpha=1 / 6, beta=0.5),
        node("Mul", "g x" if swapped else "x g", "y"),
    ]
    assert [item.op_type for item in prepared(network(nodes, X))] == ["HardSwish"]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("HardSigmoid", "x", "g", alpha=0.2, beta=0.5), node("Mul", "x g", "y")],
        [node("HardSigmoid", "x", "g", alpha=1 / 6, beta=0.5), node("Mul", "g g", "y")],
        [node("HardSigmoid", "x", "g", alpha=1 / 6), node("Mul", "x g", "m"), node("Add", "m g", "y")],
    ],
)
def test_another_hard_sigmoid_is_not(nodes: list[Node]):
    assert "HardSwish" not in [item.op_type for item in prepared(network(nodes, X))]


def test_factors_of_a_gemm_are_folded():
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w bias", "y", alpha=0.5, beta=2.0)]
    result = prepare(fix_shapes(network(nodes, [1, 5], w=normal(144, 5), bias=normal(1, 1)), {}))
    (gemm,) = [item for item in result.graph.node if item.op_type == "Gemm"]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in result.graph.initializer}
    assert shapes[gemm.input[2]] == (5,)
    prepared(network(nodes, [1, 5], w=normal(144, 5), bias=normal(1, 1)))


def test_nodes_without_a_name_get_one():
    found = prepared(network([node("Relu", "x", "a"), node("Sigmoid", "a", "y")], X, names=False))
    assert all(item.name for item in found)
