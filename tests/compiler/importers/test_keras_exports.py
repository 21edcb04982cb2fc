# SPDX-License-Identifier: Apache-2.0
"""Keras networks as tf2onnx writes them: channels last, with transposes around the convolutions."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loomwork.arch.config import SMALL
from loomwork.arch.program import AcceleratorStep
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import Convolution, Graph, MaxPool
from loomwork.compiler.importers.onnx import import_onnx
from loomwork.compiler.quantization import quantize
from loomwork.sim.backend import run_program
from loomwork.sim.golden import GoldenBackend
from tests.onnx_models import onnxruntime_session

RNG = np.random.default_rng(17)
TO_FRONT, TO_BACK = [0, 3, 1, 2], [0, 2, 3, 1]


def channels_last_network() -> onnx.ModelProto:
    """Two convolutions, pooling and a dense layer on `[1, 12, 12, 3]`, as tf2onnx writes a Keras network."""

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(RNG.normal(0, scale, shape).astype(np.float32), name)

    constants = [
        *(weights("w1", 8, 3, 3, 3), weights("b1", 8), weights("w2", 16, 8, 3, 3), weights("b2", 16)),
        *(weights("w3", 6 * 6 * 16, 5), weights("b3", 5), numpy_helper.from_array(np.array([-1, 576]), "flat")),
    ]
    nodes = [
        helper.make_node("Transpose", ["image"], ["front"], perm=TO_FRONT),
        helper.make_node("Conv", ["front", "w1", "b1"], ["c1"], auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Transpose", ["r1"], ["back"], perm=TO_BACK),
        helper.make_node("Transpose", ["back"], ["front2"], perm=TO_FRONT),
        helper.make_node("MaxPool", ["front2"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Transpose", ["r2"], ["last"], perm=TO_BACK),
        # Keras flattens pixel by pixel, so that the dense layer's weights are in that order, too.
        helper.make_node("Reshape", ["last", "flat"], ["vector"]),
        helper.make_node("MatMul", ["vector", "w3"], ["m"]),
        helper.make_node("Add", ["m", "b3"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "keras",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 12, 12, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 5])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_no_transpose_is_left_and_results_are_those_of_onnx_runtime() -> None:
    samples = RNG.uniform(0, 1, (24, 12, 12, 3)).astype(np.float32)
    model = quantize(channels_last_network(), {"image": samples}, method="minmax").model
    graphs = [part for part in import_onnx(model, "keras").parts if isinstance(part, Graph)]
    (graph,) = graphs
    assert [type(layer) for layer in graph.layers] == [Convolution, MaxPool, Convolution, Convolution]
    program = compile_model(model, SMALL, require_accelerator=True)
    assert sum(isinstance(step, AcceleratorStep) for step in program.steps) == 1
    session = onnxruntime_session(model)
    images = RNG.uniform(0, 1, (8, 12, 12, 3)).astype(np.float32)
    expected = np.concatenate([np.asarray(session.run(None, {"image": image[None]})[0]) for image in images])
    result = run_program(program, {"image": images}, GoldenBackend()).outputs["scores"]
    step = next(tensor.scale for tensor in program.tensors if tensor.scale and tensor.shape == (1, 5))
    assert np.abs(result - expected).max() <= 1.01 * step
    assert np.isclose(result, expected, atol=step / 2).mean() >= 0.97
