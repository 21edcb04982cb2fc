# SPDX-License-Identifier: Apache-2.0
"""The ONNX backend: the interface that onnx asks for, results as ONNX Runtime has them, and where each operator ran."""

import unittest
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test import BackendTest
from onnx.backend.test import runner as onnx_runner

from loomwork.arch.config import PRESETS
from loomwork.cli import onnx_backend
from loomwork.cli.onnx_backend import BackendError
from loomwork.cli.onnx_node_tests import load_tests
from tests.onnx_models import onnxruntime_session

RNG = np.random.default_rng(17)


def conv(batch: int | str = 1, *, tail: tuple[onnx.NodeProto, ...] = (), result: str = "y") -> onnx.ModelProto:
    """A quantized convolution of images [batch, 3, 6, 6], int8 to int8, and what may follow."""
    constants = {
        "scale": np.float32(0.0513),
        # The factor of the sums is no round number: where one lies between two steps, ONNX Runtime takes either.
        "y_scale": np.float32(0.0391),
        "zero": np.int8(-4),
        "weight_scale": np.float32(0.0107),
        "weight_zero": np.int8(0),
        "w": RNG.integers(-100, 100, (4, 3, 3, 3), dtype=np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["x_real"]),
        helper.make_node("DequantizeLinear", ["w", "weight_scale", "weight_zero"], ["w_real"]),
        helper.make_node("Conv", ["x_real", "w_real"], ["y_real"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["y_real", "y_scale", "zero"], ["y"]),
        *tail,
    ]
    kind = TensorProto.FLOAT if tail else TensorProto.INT8
    rank = 4 if result == "y" else 3
    return model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.INT8, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info(result, kind, [None] * rank)],
        constants,
    )


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def runtime(proto: onnx.ModelProto, *values: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime makes of it."""
    session = onnxruntime_session(proto)
    names = [value.name for value in session.get_inputs()]
    return [np.asarray(result) for result in session.run(None, dict(zip(names, values, strict=True)))]


def images(count: int) -> np.ndarray:
    return RNG.integers(-128, 128, (count, 3, 6, 6), dtype=np.int8)


def ran(rep: onnx_backend.LoomworkRep) -> dict[str, str]:
    """Where operators ran, by type, without those that only turn tensors over."""
    computed = [item for item in rep.operators if item.where == "accelerator" or onnx_backend.computes_on_host(item)]
    return {item.operator.split()[0]: item.where for item in computed}


def test_onnx_runs_its_tests_on_the_module(monkeypatch: pytest.MonkeyPatch):
    names = ("test_relu", "test_concat_2d_axis_1", "test_qlinearmatmul_2D_int8_float32", "test_reshape_negative_dim")
    tests = load_tests(["Relu", "Concat", "QLinearMatMul", "Reshape"])
    cases = [case for found in tests.values() for case in found if case.name in names]
    assert len(cases) == len(names)
    monkeypatch.setattr(onnx_runner, "load_model_tests", lambda kind: cases if kind == "node" else [])
    backend: Any = onnx_backend  # onnx declares a class, its documentation and its own backends are modules
    suite = BackendTest(backend, __name__).test_suite
    result = unittest.TestResult()
    suite.run(result)
    assert [text for _, text in (*result.failures, *result.errors)] == []
    # The tests for CUDA are left out, those for CPU are not.
    assert (result.testsRun, len(result.skipped)) == (2 * len(names), len(names))


@pytest.mark.parametrize("engine", ["golden", "verilator"])
def test_a_quantized_convolution_runs_on_the_accelerator(engine: str):
    proto, x = conv(), images(1)
    rep = onnx_backend.prepare(proto, config="tiny", engine=engine)
    (y,) = rep.run([x])
    (expected,) = runtime(proto, x)
    assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(y, expected)
    assert ran(rep) == {"Conv": "accelerator"}
    assert rep.program is not None
    assert rep.program.config == PRESETS["tiny"]


def test_inputs_may_come_alone_in_order_or_by_name():
    rep, x = onnx_backend.prepare(conv()), images(1)
    (y,) = rep.run(x)
    assert np.array_equal(rep.run([x])[0], y)
    assert np.array_equal(rep.run({"x": x})[0], y)


def test_a_batch_runs_image_by_image_where_that_is_the_same():
    proto, x = conv(3), images(3)
    rep = onnx_backend.prepare(proto)
    (y,) = rep.run([x])
    assert np.array_equal(y, runtime(proto, x)[0])
    assert ran(rep) == {"Conv": "accelerator"}


def test_a_batch_that_is_mixed_stays_whole():
    """The mean goes over all images, so that one by one it would be another network."""
    tail = (
        helper.make_node("DequantizeLinear", ["y", "y_scale", "zero"], ["z"]),
        helper.make_node("ReduceMean", ["z", "axes"], ["mean"], keepdims=0),
    )
    proto, x = conv(3, tail=tail, result="mean"), images(3)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axes"))
    rep = onnx_backend.prepare(proto)
    (y,) = rep.run([x])
    assert np.allclose(y, runtime(proto, x)[0], atol=1e-6)
    assert ran(rep)["Conv"] == "host"
    (reason,) = [item.reason for item in rep.operators if item.operator.startswith("Conv")]
    assert "batch of 1" in reason
    assert "ReduceMean 'mean' is not known to treat each image of a batch by itself" in reason


def test_an_open_batch_is_compiled_for_what_comes():
    proto = conv("images")
    rep = onnx_backend.prepare(proto)
    for count in (1, 4, 2):
        x = images(count)
        assert np.array_equal(rep.run([x])[0], runtime(proto, x)[0])
        assert ran(rep) == {"Conv": "accelerator"}


def test_weights_that_are_inputs_are_compiled_in():
    """Another run with other weights is another program."""
    proto = conv()
    (weights,) = [tensor for tensor in proto.graph.initializer if tensor.name == "w"]
    proto.graph.initializer.remove(weights)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.INT8, [4, 3, 3, 3]))
    assert onnx_backend.parameters(proto) == frozenset()  # DequantizeLinear may read what is computed
    qlinear = model(
        [helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"])],
        [
            helper.make_tensor_value_info("x", TensorProto.INT8, [1, 3, 6, 6]),
            helper.make_tensor_value_info("w", TensorProto.INT8, [2, 3, 3, 3]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [1, 2, 4, 4])],
        {"z": np.int8(0)},
    )
    rep = onnx_backend.prepare(qlinear)
    assert rep.operators == []
    x = images(1)
    for _ in range(2):
        w, scale = RNG.integers(-100, 100, (2, 3, 3, 3), dtype=np.int8), np.array(0.00317, np.float32)
        (y,) = rep.run([x, w, scale])
        assert np.array_equal(y, runtime(qlinear, x, w, scale)[0])
        assert ran(rep) == {"Conv": "accelerator"}


def test_what_cannot_be_accelerated_runs_on_the_host_with_its_reason():
    node = helper.make_node("Relu", ["x"], ["y"])
    x = np.array([[-1.5, 2.0]], np.float32)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    rep = onnx_backend.prepare(model([node], info[:1], info[1:], {}))
    assert np.array_equal(rep.run([x])[0], np.array([[0.0, 2.0]], np.float32))
    assert rep.operators == [("Relu y", "host", "its input 'x' is float32, not quantized to 8 bits")]
    assert rep.program is None
    assert np.array_equal(onnx_backend.run_node(node, [x])[0], np.array([[0.0, 2.0]], np.float32))


def test_an_operator_of_int8_runs_alone_on_the_accelerator():
    x = RNG.integers(-128, 128, (1, 2, 4, 4), dtype=np.int8)
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    (y,) = onnx_backend.run_node(node, [x], outputs_info=[(np.dtype(np.int8), (1, 2, 2, 2))], config="tiny")
    assert np.array_equal(y, x.reshape(1, 2, 2, 2, 2, 2).max(axis=(3, 5)))


def test_devices():
    assert onnx_backend.supports_device("CPU")
    assert onnx_backend.supports_device("CPU:0")
    assert not onnx_backend.supports_device("CUDA")
    assert not onnx_backend.supports_device("NPU")
    with pytest.raises(BackendError, match="there is no device 'CUDA'"):
        onnx_backend.prepare(conv(), "CUDA")


def test_mistakes_are_named():
    with pytest.raises(BackendError, match="engine must be one of golden, verilator, not 'fpga'"):
        onnx_backend.prepare(conv(), engine="fpga")
    rep = onnx_backend.prepare(conv())
    with pytest.raises(BackendError, match=r"input 'x' must have shape \[1, 3, 6, 6\], not \[2, 3, 6, 6\]"):
        rep.run([images(2)])
    with pytest.raises(BackendError, match="input 'x' must be int8, not float32"):
        rep.run([images(1).astype(np.float32)])
    with pytest.raises(BackendError, match="input 'x' is missing"):
        rep.run([])
    with pytest.raises(BackendError, match="the model takes 1 inputs, not 2"):
        rep.run([images(1), images(1)])


def test_a_model_is_compatible_unless_it_is_damaged():
    assert onnx_backend.is_compatible(conv())
    damaged = conv()
    damaged.graph.node[2].op_type = "Convolve"
    assert not onnx_backend.is_compatible(damaged)
