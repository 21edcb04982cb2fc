# SPDX-License-Identifier: Apache-2.0
"""Models that cannot be quantized, and the sentences about them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loomwork.compiler.quantization import QuantizeError, quantize
from loomwork.compiler.quantization.check import check_model
from tests.compiler.quantization.graphs import conv_relu_conv, model, node, normal, samples


def test_a_good_model_passes():
    check_model(conv_relu_conv())


def test_a_quantized_model_is_refused():
    result = quantize(conv_relu_conv(), {"x": samples(2, 3, 6, 6)}, method="minmax", correct_bias=False).model
    with pytest.raises(
        QuantizeError, match=r"the model is quantized already: it has \w+ \S+; give the float model instead$"
    ):
        check_model(result)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(value: float):
    network = conv_relu_conv()
    weights = normal(5, 4, 3, 3)
    weights[0, 0, 0, :2] = value
    network.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights, "w2"))
    with pytest.raises(
        QuantizeError, match="initializer w2 has 2 values that are NaN or infinite: export the model from"
    ):
        check_model(network)


@pytest.mark.parametrize(("kind", "name"), [(TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "double")])
def test_models_of_other_floats_are_refused(kind: int, name: str):
    network = model([node("Relu", "x", "y")], {"x": [1, 3]}, {"y": [1, 3]})
    for value in (network.graph.input[0], network.graph.output[0]):
        value.type.tensor_type.elem_type = kind
    with pytest.raises(
        QuantizeError, match=f"tensor x is {name}: only float32 models are quantized; convert the model"
    ):
        check_model(network)


def test_an_unknown_operator_set_is_named():
    network = conv_relu_conv(opset=99)
    with pytest.raises(
        QuantizeError,
        match=r"the model uses ONNX operator set 99, which onnxruntime [\d.]+ does not know: export it with a set",
    ):
        check_model(network)


def test_a_model_without_an_operator_set_is_refused():
    network = conv_relu_conv()
    del network.opset_import[:]
    network.opset_import.append(helper.make_opsetid("my.domain", 1))
    with pytest.raises(QuantizeError, match=r"the model uses ONNX operator set \(none\)"):
        check_model(network)


@pytest.mark.parametrize(("domain", "where"), [("my.domain", " of domain my.domain"), ("", "")])
def test_an_unknown_operator_is_named(domain: str, where: str):
    network = model([node("Relu", "x", "a"), node("Wobble", "a", "y", domain=domain)], {"x": [1, 3]}, {"y": [1, 3]})
    network.opset_import.append(helper.make_opsetid("my.domain", 1))
    with pytest.raises(
        QuantizeError,
        match=f"ONNX Runtime has no operator Wobble{where}, which node n1 is: replace it by operators of",
    ):
        check_model(network)


def test_what_onnx_runtime_refuses_is_told():
    # Known to ONNX, but the sizes do not fit.
    network = model([node("MatMul", "x w", "y")], {"x": [1, 3]}, {"y": [1, 5]}, {"w": normal(4, 5)})
    with pytest.raises(
        QuantizeError, match=r"ONNX Runtime cannot run the model: (?!\[ONNXRuntimeError)\S.*; simplify it"
    ):
        check_model(network)


def test_a_model_with_nothing_to_quantize_is_refused():
    network = model([node("Exp", "x", "y")], {"x": [1, 3]}, {"y": [1, 3]})
    with pytest.raises(QuantizeError, match="the model has no operator that can be quantized, such as Conv or MatMul"):
        quantize(network, {"x": normal(2, 3)})


def test_values_that_overflow_inside_are_named():
    network = model([node("Exp", "x", "a"), node("Relu", "a", "y")], {"x": [1, 3]}, {"y": [1, 3]}, {})
    with pytest.raises(
        QuantizeError, match="tensor a becomes NaN or infinite on the calibration data: check that its scale"
    ):
        quantize(network, {"x": 1000 * np.abs(normal(2, 3))})


def test_values_inside_constants_are_looked_at_too():
    constant = helper.make_node(
        "Constant", [], ["c"], value=numpy_helper.from_array(np.array([np.nan], np.float32), "c")
    )
    network = model([node("Relu", "x", "a"), node("Add", "a c", "y")], {"x": [1, 3]}, {"y": [1, 3]})
    network.graph.node.insert(0, constant)
    with pytest.raises(QuantizeError, match="initializer c has 1 values that are NaN or infinite"):
        check_model(network)
    onnx.checker.check_model(network)
