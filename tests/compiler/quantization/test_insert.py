# SPDX-License-Identifier: Apache-2.0
"""The QDQ model has the form that an importer reads: every operator between DequantizeLinear and QuantizeLinear."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from loomwork.compiler.quantization import quantize
from tests.compiler.quantization.graphs import Node, conv_relu_conv, model, node, normal, samples
from tests.compiler.quantization.qdq import Reader
from tests.onnx_models import onnxruntime_session

X = [1, 4, 6, 6]
SPATIAL = {
    "Relu": ([node("Relu", "x", "y")], X),
    "Clip": ([node("Clip", "x low high", "y")], X),
    "Clip above 0": ([node("Clip", "x half high", "y")], X),
    "LeakyRelu": ([node("LeakyRelu", "x", "y", alpha=0.1)], X),
    "PRelu": ([node("PRelu", "x slope", "y")], X),
    "Sigmoid": ([node("Sigmoid", "x", "y")], X),
    "HardSigmoid": ([node("HardSigmoid", "x", "y")], X),
    "HardSwish": ([node("HardSwish", "x", "y")], X),
    "Tanh": ([node("Tanh", "x", "y")], X),
    "Gelu": ([node("Gelu", "x", "y")], X),
    "Softmax": ([node("Softmax", "x", "y", axis=1)], X),
    "Add": ([node("Add", "x x2", "y")], X),
    "Add a constant": ([node("Add", "x plane", "y")], X),
    "Sub": ([node("Sub", "x x2", "y")], X),
    "Mul": ([node("Mul", "x x2", "y")], X),
    "MaxPool": ([node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])], [1, 4, 3, 3]),
    "AveragePool": ([node("AveragePool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])], [1, 4, 3, 3]),
    "GlobalAveragePool": ([node("GlobalAveragePool", "x", "y")], [1, 4, 1, 1]),
    "ReduceMean": ([node("ReduceMean", "x hw", "y", keepdims=1)], [1, 4, 1, 1]),
    "Concat": ([node("Concat", "x x2", "y", axis=1)], [1, 8, 6, 6]),
    "Split": ([node("Split", "x", "a b", axis=1, num_outputs=2), node("Concat", "b a", "y", axis=1)], X),
    "Slice": ([node("Slice", "x one three hw1", "y")], [1, 4, 2, 6]),
    "Pad": ([node("Pad", "x pads", "y")], [1, 4, 8, 8]),
    "Pad with 1": ([node("Pad", "x pads high", "y")], [1, 4, 8, 8]),
    "Pad by reflection": ([node("Pad", "x pads", "y", mode="reflect")], [1, 4, 8, 8]),
    "Resize": ([node("Resize", "x - twice", "y", mode="nearest")], [1, 4, 12, 12]),
    "Resize linearly": ([node("Resize", "x - twice", "y", mode="linear")], [1, 4, 12, 12]),
    "DepthToSpace": ([node("DepthToSpace", "x", "y", blocksize=2)], [1, 1, 12, 12]),
    "Reshape": ([node("Reshape", "x flat", "y")], [1, 144]),
    "Transpose": ([node("Transpose", "x", "y", perm=[0, 2, 3, 1])], [1, 6, 6, 4]),
    "Flatten": ([node("Flatten", "x", "y")], [1, 144]),
    "Conv": ([node("Conv", "x kernel bias", "y")], [1, 5, 4, 4]),
    "Conv depthwise": ([node("Conv", "x depth", "y", group=4)], [1, 4, 4, 4]),
    "ConvTranspose": ([node("ConvTranspose", "x kernel_t bias", "y")], [1, 5, 8, 8]),
    "Gemm": ([node("Flatten", "x", "f"), node("Gemm", "f dense bias", "y", transB=1)], [1, 5]),
    "MatMul": ([node("MatMul", "x square", "y")], [1, 4, 6, 5]),
    "MatMul of two maps": ([node("MatMul", "x x2", "y")], X),
}
CONSTANTS = {
    "low": np.array(-1, np.float32),
    "half": np.array(0.5, np.float32),
    "high": np.array(1, np.float32),
    "slope": normal(4, 1, 1),
    "plane": normal(4, 1, 1, seed=3),
    "hw": np.array([2, 3]),
    "one": np.array([1]),
    "three": np.array([3]),
    "hw1": np.array([2]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "flat": np.array([1, -1]),
    "kernel": normal(5, 4, 3, 3),
    "kernel_t": normal(4, 5, 3, 3),
    "depth": normal(4, 1, 3, 3),
    "bias": normal(5),
    "dense": normal(5, 144),
    "square": normal(6, 5),
}
SAME_SCALE = (
    *("MaxPool", "AveragePool", "Concat", "Split", "Slice", "Pad", "Pad by reflection", "Resize"),
    *("Resize linearly", "DepthToSpace", "Reshape", "Transpose", "Flatten"),
)


def quantized(nodes: list[Node], shape: list[int], constants: dict[str, np.ndarray] = CONSTANTS) -> onnx.ModelProto:
    used = {name for _, read, _, _ in nodes for name in read}
    inputs = {name: X for name in ("x", "x2") if name in used}
    network = model(
        nodes, inputs, {"y": shape}, {name: constants[name] for name in constants if name in used}, opset=20
    )
    data = {name: samples(8, *X[1:], seed=seed) * (seed + 1) for seed, name in enumerate(inputs)}
    result = quantize(network, data, method="minmax", equalize=False, correct_bias=False).model
    onnx.checker.check_model(result, full_check=True)
    wanted = run(network, {name: values[:1] for name, values in data.items()})
    got = run(result, {name: values[:1] for name, values in data.items()})
    assert got.dtype == np.float32
    # A tenth of the signal is far more than int8 loses on one operator.
    assert np.square(got - wanted).mean() < 0.01 * np.square(wanted).mean()
    return result


def run(network: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime_session(network)
    return np.asarray(session.run(["y"], feed)[0])


@pytest.mark.parametrize("name", SPATIAL)
def test_an_operator_alone_is_between_dequantize_and_quantize(name: str):
    nodes, shape = SPATIAL[name]
    result = quantized(nodes, shape)
    reader = Reader(result)
    assert reader.violations() == []
    kinds = [node.op_type for node in reader.operators()]
    assert name.split(maxsplit=1)[0] in kinds
    assert [value.name for value in result.graph.output] == ["y"]
    assert {value.type.tensor_type.elem_type for value in (*result.graph.input, *result.graph.output)} == {
        TensorProto.FLOAT
    }
    integers = {reader.types[made.output[0]] for made in result.graph.node if made.op_type == "QuantizeLinear"}
    assert integers == {TensorProto.INT8}


@pytest.mark.parametrize("name", [name for name in SPATIAL if SPATIAL[name][0][0][1][0] == "x"])
def test_an_operator_behind_a_convolution_is_between_dequantize_and_quantize(name: str):
    nodes, shape = SPATIAL[name]
    # Conv reads what was x, the operator what Conv makes. Relu and Clip become saturation, a constant part of the bias.
    moved = [(kind, ["c" if item == "x" else item for item in read], made, rest) for kind, read, made, rest in nodes]
    first = node("Conv", "x first", "c", pads=[1, 1, 1, 1])
    reader = Reader(quantized([first, *moved], shape, CONSTANTS | {"first": normal(4, 4, 3, 3, seed=5)}))
    assert reader.violations() == []
    kinds = [node.op_type for node in reader.operators()]
    assert (name.split(maxsplit=1)[0] in kinds) == (name not in ("Relu", "Clip", "Add a constant"))


@pytest.mark.parametrize("name", SAME_SCALE)
def test_what_moves_values_keeps_their_scale(name: str):
    nodes, shape = SPATIAL[name]
    reader = Reader(quantized(nodes, shape))
    mover = reader.only(name.split(maxsplit=1)[0])
    read = [reader.input_scale(mover, index) for index in range(2 if name == "Concat" else 1)]
    made = [reader.output_scale(mover, index) for index in range(len(mover.output))]
    assert len({(float(item.scale), int(item.zero_point)) for item in (*read, *made)}) == 1


def test_a_concat_gets_the_range_of_all_that_it_joins():
    nodes = [
        node("Conv", "x kernel", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Concat", "p x2", "y", axis=1),
    ]
    reader = Reader(quantized(nodes, [1, 9, 6, 6]))
    concat, pool, relu = reader.only("Concat"), reader.only("MaxPool"), reader.only("Relu")
    found = [
        *(reader.input_scale(concat, 0), reader.input_scale(concat, 1), reader.output_scale(concat)),
        *(reader.input_scale(pool), reader.output_scale(pool), reader.output_scale(relu)),
    ]
    assert len({(float(item.scale), int(item.zero_point)) for item in found}) == 1
    # x2 has negative values, what the Relu leaves has none: so the saturation of this scale cannot stand for it.
    assert found[0].zero_point > -128


def test_a_relu_becomes_the_saturation_of_the_convolution():
    result = quantize(
        conv_relu_conv(), {"x": samples(8, 3, 6, 6)}, method="minmax", equalize=False, correct_bias=False
    ).model
    reader = Reader(result)
    assert [node.op_type for node in reader.operators()] == ["Conv", "Conv"]
    assert reader.output_scale(reader.operators()[0]).zero_point == -128
    assert reader.violations() == []


def test_a_relu_behind_a_pool_stays_so_that_the_pool_keeps_its_scale():
    nodes = [
        node("Conv", "x kernel", "c"),
        node("MaxPool", "c", "p", kernel_shape=[2, 2]),
        node("Relu", "p", "y"),
    ]
    reader = Reader(quantized(nodes, [1, 5, 3, 3]))
    pool = reader.only("MaxPool")
    assert reader.input_scale(pool) == reader.output_scale(pool)
    assert reader.violations() == []
    assert reader.only("Relu")


def test_a_relu_on_a_tensor_with_other_readers_stays():
    nodes = [node("Conv", "x depth", "c", group=4), node("Relu", "c", "r"), node("Add", "r c", "y")]
    reader = Reader(quantized(nodes, [1, 4, 4, 4]))
    assert [node.op_type for node in reader.operators()] == ["Conv", "Relu", "Add"]
    assert reader.violations() == []


@pytest.mark.parametrize(
    ("name", "constant", "axis"),
    [
        ("Conv", "kernel", 0),
        ("Conv depthwise", "depth", 0),
        ("ConvTranspose", "kernel_t", 1),
        ("Gemm", "dense", 0),
        ("MatMul", "square", 1),
    ],
)
def test_weights_are_symmetric_per_output_channel(name: str, constant: str, axis: int):
    nodes, shape = SPATIAL[name]
    reader = Reader(quantized(nodes, shape))
    weighted = reader.only(name.split(maxsplit=1)[0])
    weights = reader.makers[weighted.input[1]]
    found = reader.scale(weights)
    assert found.axis == axis
    assert not found.zero_point.any()
    source = CONSTANTS[constant]
    others = tuple(index for index in range(source.ndim) if index != axis)
    np.testing.assert_allclose(found.scale, np.abs(source).max(axis=others) / 127, rtol=0.01)
    assert reader.constants[weights.input[0]].dtype == np.int8


def test_columns_of_a_stack_of_matrices_have_a_scale_each():
    reader = Reader(quantized([node("MatMul", "x stack", "y")], [1, 4, 6, 5], {"stack": normal(4, 6, 5)}))
    found = reader.input_scale(reader.only("MatMul"), 1)
    assert (found.axis, found.scale.shape) == (2, (5,))


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose", "Gemm"])
def test_biases_are_int32_in_the_scale_of_the_products(name: str):
    nodes, shape = SPATIAL[name]
    reader = Reader(quantized(nodes, shape))
    weighted = reader.only(name)
    bias = reader.makers[weighted.input[2]]
    assert reader.constants[bias.input[0]].dtype == np.int32
    product = reader.input_scale(weighted, 0).scale * reader.input_scale(weighted, 1).scale
    np.testing.assert_allclose(reader.scale(bias).scale, product, rtol=1e-6)
    np.testing.assert_allclose(reader.constants[bias.input[0]] * product, CONSTANTS["bias"], atol=product.max())


def test_a_transposed_convolution_of_groups_has_one_scale():
    # Its axis of output channels counts those of one group, and a scale for them would serve different channels.
    nodes = [node("ConvTranspose", "x kernel_t bias", "y", group=2)]
    constants = {"kernel_t": normal(4, 3, 3, 3), "bias": normal(6)}
    reader = Reader(quantized(nodes, [1, 6, 8, 8], constants))
    assert reader.input_scale(reader.only("ConvTranspose"), 1).scale.shape == ()


def test_constants_on_the_left_of_a_matmul_have_one_scale():
    # With a scale per column, the columns of the constant would be those of the sum.
    nodes = [node("MatMul", "left x", "y")]
    reader = Reader(quantized(nodes, X, {"left": normal(6, 6)}))
    assert reader.input_scale(reader.only("MatMul"), 0).scale.shape == ()


def test_a_gemm_with_factors_and_a_matrix_of_biases_computes_the_same():
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f dense row", "y", transB=1, alpha=0.5, beta=3.0)]
    reader = Reader(quantized(nodes, [1, 5], {"dense": normal(5, 144), "row": 20 * normal(1, 5)}))
    gemm = reader.only("Gemm")
    assert {item.name: item.f for item in gemm.attribute if item.name in ("alpha", "beta")} == {"alpha": 1, "beta": 1}
    assert reader.violations() == []


def test_an_operator_that_is_not_quantized_stays_float():
    nodes = [node("Conv", "x kernel", "c"), node("Exp", "c", "e"), node("Relu", "e", "y")]
    result = quantize(
        model(nodes, {"x": X}, {"y": [1, 5, 4, 4]}, {"kernel": normal(5, 4, 3, 3) / 10}),
        {"x": samples(4, *X[1:])},
        method="minmax",
    )
    reader = Reader(result.model)
    assert reader.makers[reader.only("Exp").input[0]].op_type == "DequantizeLinear"
    assert reader.makers[reader.only("Relu").input[0]].op_type == "DequantizeLinear"
    assert result.unquantized == ("Exp n1",)


def test_nodes_come_behind_what_they_read():
    reader = Reader(quantized(*SPATIAL["Conv"]))
    known = {"x", *reader.constants}
    for item in reader.model.graph.node:
        assert set(item.input) <= known
        known.update(item.output)
