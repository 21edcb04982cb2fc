# SPDX-License-Identifier: Apache-2.0
"""A batch as single images: only where every operator treats each image by itself; ONNX Runtime is the judge."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loomwork.compiler.importers.onnx_batch import for_one_image
from tests.onnx_models import onnxruntime_session

BATCH = 3
RNG = np.random.default_rng(23)


def model(op: str, shape: tuple[int, ...], constants: dict[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    """One operator on images `[3, *shape]` in float32, with constants behind the images."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, *shape])
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *constants], ["y"], **attributes)],
        op,
        [x],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime_session(proto)
    return np.asarray(session.run(None, {"x": x})[0])


SINGLE = {
    "Conv": model("Conv", (2, 5, 5), {"w": real(3, 2, 3, 3), "b": real(3)}),
    "MaxPool": model("MaxPool", (2, 4, 4), {}, kernel_shape=[2, 2]),
    "Relu": model("Relu", (4,), {}),
    "Add a row": model("Add", (2, 4), {"b": real(4)}),
    "Mul by an image": model("Mul", (2, 4), {"b": real(1, 2, 4)}),
    "MatMul": model("MatMul", (4,), {"w": real(4, 5)}),
    "Gemm": model("Gemm", (4,), {"w": real(5, 4), "b": real(5)}, transB=1),
    "Softmax": model("Softmax", (4,), {}),
    "Flatten": model("Flatten", (2, 4), {}),
    "Reshape": model("Reshape", (2, 4), {"shape": ints(0, -1)}),
    "Transpose": model("Transpose", (2, 4), {}, perm=[0, 2, 1]),
    "ReduceMean": model("ReduceMean", (2, 4, 4), {"axes": ints(-1, 2)}, keepdims=0),
    "Slice": model("Slice", (6,), {"starts": ints(1), "ends": ints(5), "axes": ints(1)}),
    "Pad": model("Pad", (6,), {"pads": ints(0, 1, 0, 2)}),
}
WHOLE = {
    "Softmax over images": model("Softmax", (4,), {}, axis=0),
    "ReduceMean over images": model("ReduceMean", (2, 4), {"axes": ints(0, 2)}),
    "ReduceMean over all": model("ReduceMean", (2, 4), {}),
    "Flatten into one": model("Flatten", (2, 4), {}, axis=2),
    "Reshape to fixed": model("Reshape", (2, 4), {"shape": ints(6, 4)}),
    "Transpose": model("Transpose", (3,), {}, perm=[1, 0]),
    "Transpose all": model("Transpose", (3, 3), {}),
    "Add to each image": model("Add", (4,), {"b": real(BATCH, 4)}),
    "Add a longer one": model("Add", (4,), {"b": real(2, 1, 4)}),
    "Gemm, transposed": model("Gemm", (3,), {"w": real(3, 5)}, transA=1),
    "Gemm, bias of images": model("Gemm", (4,), {"w": real(4, 5), "b": real(BATCH, 5)}),
    "Slice images": model("Slice", (6,), {"starts": ints(1), "ends": ints(3), "axes": ints(0)}),
    "Slice, last image first": model(
        "Slice", (6,), {"starts": ints(-1), "ends": ints(-9), "axes": ints(0), "steps": ints(-1)}
    ),
    "Pad, images shifted": model("Pad", (6,), {"pads": ints(1, 0, -1, 0)}),
    "Pad images": model("Pad", (6,), {"pads": ints(1, 0, 0, 0)}),
    "CumSum over images": model("CumSum", (4,), {"axis": np.array(0, np.int64)}),
    "MatMul by each": model("MatMul", (2, 4), {"w": real(BATCH, 4, 5)}),
    "Squeeze": model("Squeeze", (1, 4), {}),
}


@pytest.mark.parametrize("name", SINGLE)
def test_images_one_by_one_are_the_batch(name: str):
    whole = SINGLE[name]
    single = for_one_image(whole)
    assert not isinstance(single, str), single
    x = real(*(dim.dim_value for dim in whole.graph.input[0].type.tensor_type.shape.dim))
    expected = run(whole, x)
    parts = np.concatenate([run(single, x[image : image + 1]) for image in range(BATCH)])
    assert parts.shape == expected.shape
    assert np.allclose(parts, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_what_reaches_across_images_stays_a_batch(name: str):
    reason = for_one_image(WHOLE[name])
    assert isinstance(reason, str)
    assert "image" in reason or "batch" in reason


def test_positions_of_a_pooling_count_through_the_batch():
    proto = model("MaxPool", (2, 4, 4), {}, kernel_shape=[2, 2])
    proto.graph.node[0].output.append("where")
    assert isinstance(for_one_image(proto), str)


def test_a_softmax_over_images_between_two_transpositions():
    """The shapes are those of a network that treats each image by itself."""
    proto = model("Transpose", (4,), {}, perm=[1, 0])
    proto.graph.node[0].output[0] = "turned"
    proto.graph.node.append(helper.make_node("Softmax", ["turned"], ["shares"], axis=1))
    proto.graph.node.append(helper.make_node("Transpose", ["shares"], ["y"], perm=[1, 0]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, 4]))
    assert isinstance(for_one_image(proto), str)


def test_the_model_stays_as_it_is():
    proto = model("Relu", (4,), {})
    before = proto.SerializeToString(deterministic=True)
    for_one_image(proto)
    assert proto.SerializeToString(deterministic=True) == before
