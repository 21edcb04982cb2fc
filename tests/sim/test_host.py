# SPDX-License-Identifier: Apache-2.0
"""Host steps on tflite-micro and on ONNX Runtime."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from loomwork.arch.program import HostRuntime, HostStep
from loomwork.compiler.tflite_writer import ModelBuilder
from loomwork.sim import host
from loomwork.sim.host import HostError, HostRunner
from tests.programs import SCALE, ZERO_POINT, quantize_step


def add_step() -> HostStep:
    """`c = a + b` and `d = a`, where a and b have the same scale and c half of it, so that the sum is exact."""
    model = ModelBuilder()
    a, b = (model.input(name, (1, 2, 3), scale=0.5, zero_point=0) for name in "ab")
    model.output(model.add(a, b, scale=0.5, zero_point=0), model.reshape(a, (1, 6)))
    operators = (("ADD", "for the test"), ("RESHAPE", "for the test"))
    return HostStep(model=model.build(), inputs=("a", "b"), outputs=("c", "d"), operators=operators)


def test_quantize_follows_the_definition():
    values = np.array([[0.0, 0.25, -1.0, 1.1], [30.0, -40.0, 0.2, -0.2]], np.float32)
    (result,) = HostRunner(quantize_step((1, 4))).run({"real": values}).items()
    expected = np.clip(np.round(values / SCALE) + ZERO_POINT, -128, 127)
    assert result[0] == "x"
    assert result[1].dtype == np.int8
    assert result[1].tolist() == expected[:, np.newaxis].tolist()


def test_inputs_go_by_name_and_each_image_alone():
    generator = np.random.default_rng(1)
    a, b = generator.integers(-60, 60, (2, 5, 2, 3)).astype(np.int8)
    result = HostRunner(add_step()).run({"b": b, "a": a, "unused": a})
    assert list(result) == ["c", "d"]
    assert np.array_equal(result["c"], (a + b)[:, np.newaxis])
    assert np.array_equal(result["d"], a.reshape(5, 1, 6))


def test_an_image_may_have_any_shape_with_the_right_number_of_values():
    values = np.ones((3, 2, 2), np.float32)
    assert HostRunner(quantize_step((1, 4))).run({"real": values})["x"].shape == (3, 1, 4)


def test_a_runner_can_be_used_again():
    runner = HostRunner(quantize_step((1, 2)))
    first = runner.run({"real": np.zeros((1, 2), np.float32)})["x"]
    runner.run({"real": np.ones((1, 2), np.float32)})
    assert first.tolist() == [[[ZERO_POINT, ZERO_POINT]]], "a result changed under the next run"


@pytest.mark.parametrize(("kind", "largest"), [("uint8", 255), ("int8", -128)])
def test_quantized_sums_do_not_overflow(kind: str, largest: int):
    """On x86 without VNNI kernels for uint8 and int8 would add pairs of products in 16 bits."""
    kinds = {"uint8": onnx.TensorProto.UINT8, "int8": onnx.TensorProto.INT8}
    weights = numpy_helper.from_array(np.full((64, 8), 127, np.int8), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weights"], ["y"])],
        "sums",
        [helper.make_tensor_value_info("x", kinds[kind], (1, 64))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, (1, 8))],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    step = HostStep(
        model=model.SerializeToString(),
        inputs=("x",),
        outputs=("y",),
        operators=(("MatMulInteger", "for the test"),),
        runtime=HostRuntime.ONNX_RUNTIME,
    )
    result = HostRunner(step).run({"x": np.full((1, 64), largest, kind)})["y"]
    assert np.unique(result).tolist() == [64 * 127 * largest]


def test_a_step_that_needs_more_memory_gets_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "ARENA_BYTES", 1 << 12)
    step = quantize_step((1, 1 << 16))  # 64 KiB out of 256 KiB
    values = np.full((1, 1 << 16), 10 * SCALE, np.float32)
    assert np.all(HostRunner(step).run({"real": values})["x"] == ZERO_POINT + 10)
    monkeypatch.setattr(host, "LARGEST_ARENA_BYTES", 1 << 18)
    with pytest.raises(HostError, match="cannot prepare the host operators QUANTIZE: TFLM failed to allocate tensors"):
        HostRunner(step)


@pytest.mark.parametrize("model", [b"", b"not a model", quantize_step((1, 4)).model[:200]])
def test_a_model_that_cannot_be_read_is_named_by_its_operators(model):
    step = HostStep(model=model, inputs=("a",), outputs=("b",), operators=(("SOFTMAX", "x"), ("LOGISTIC", "y")))
    with pytest.raises(HostError, match="cannot prepare the host operators SOFTMAX, LOGISTIC: "):
        HostRunner(step)


def test_a_step_with_more_inputs_than_its_model_is_refused():
    step = replace(quantize_step((1, 4)), inputs=("real", "other"))
    with pytest.raises(HostError, match="cannot prepare the host operators QUANTIZE: "):
        HostRunner(step)


@pytest.mark.parametrize("values", [np.zeros((1, 5), np.float32), np.zeros((1, 4), np.int8)])
def test_values_that_do_not_fit_are_refused(values):
    with pytest.raises(HostError, match="failed in the host operators QUANTIZE: "):
        HostRunner(quantize_step((1, 4))).run({"real": values})
