# SPDX-License-Identifier: Apache-2.0
"""Weights of nine bits, as asymmetric quantization makes them: in two parts, with the result of ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loomwork.arch.config import SMALL
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import Convolution, Graph, HostPart, Partition, Rearrange
from loomwork.compiler.importers.onnx import import_onnx
from loomwork.compiler.unsupported import NothingAcceleratedError
from loomwork.sim.backend import run_program
from loomwork.sim.golden import GoldenBackend
from tests.onnx_models import onnxruntime_session

RNG = np.random.default_rng(29)
SEED = 0
"""With it, every result has more than a few values."""
OPERATORS = {
    "Conv": ((1, 5, 7, 8), (6, 5, 3, 3), (1, 6, 5, 6)),
    "MatMul of rows": ((1, 4, 20), (20, 7), (1, 4, 7)),
    "MatMul of one": ((1, 40), (40, 7), (1, 7)),
}
"""Shapes of input, weights and result."""


def model(name: str, stored: np.ndarray, zero_point: int, group: int = 1) -> onnx.ModelProto:
    """int8 input and result, weights with a zero point."""
    given, _, made = OPERATORS[name]
    constants = {
        "s": np.float32(0.0213),
        "z": np.int8(-7),
        "w": stored,
        "ws": np.float32(0.00517),
        "wz": np.array(zero_point, stored.dtype),
        "ys": np.float32(0.0871),
    }
    op = name.split(maxsplit=1)[0]
    attributes: dict[str, Any] = {"group": group} if op == "Conv" else {}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["x_real"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["w_real"]),
        helper.make_node(op, ["x_real", "w_real"], ["y_real"], **attributes),
        helper.make_node("QuantizeLinear", ["y_real", "ys", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.INT8, given)],
        [helper.make_tensor_value_info("y", TensorProto.INT8, made)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def kinds(partition: Partition) -> list[type]:
    return [type(layer) for part in partition.parts if isinstance(part, Graph) for layer in part.layers]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 90), ("uint8", 255), ("int8", 127), ("int8", -60)])
def test_the_result_is_that_of_onnx_runtime(name: str, dtype: str, zero_point: int):
    given, weights, _ = OPERATORS[name]
    limits = np.iinfo(dtype)
    # Of its own, so that the numbers do not depend on which tests ran before.
    rng = np.random.default_rng([SEED, list(OPERATORS).index(name), abs(zero_point)])
    # Without 255 itself, which no two numbers of int8 make.
    stored = rng.integers(limits.min, limits.max, weights, endpoint=True).clip(None, zero_point + 254).astype(dtype)
    proto = model(name, stored, zero_point)
    assert kinds(import_onnx(proto, "model")) == [Rearrange, Convolution]
    x = rng.integers(-128, 128, given, dtype=np.int8)
    y = run_program(compile_model(proto, SMALL), {"x": x}, GoldenBackend()).outputs["y"]
    session = onnxruntime_session(proto)
    expected = np.asarray(session.run(None, {"x": x})[0])
    assert len(np.unique(expected)) > 5
    steps = np.abs(y.astype(int) - expected)
    assert steps.max() <= 1
    assert np.count_nonzero(steps) <= 1


def test_weights_that_fit_are_not_shared_out():
    stored = RNG.integers(0, 200, OPERATORS["Conv"][1]).astype(np.uint8)
    assert kinds(import_onnx(model("Conv", stored, 100), "model")) == [Convolution]


def test_what_two_parts_do_not_reach_stays_on_the_host():
    stored = np.full(OPERATORS["Conv"][1], 255, np.uint8)
    with pytest.raises(NothingAcceleratedError, match="are 255 to 255; the accelerator needs -256 to 254"):
        import_onnx(model("Conv", stored, 0), "model")


def test_groups_are_not_shared_out():
    stored = np.full((5, 1, 3, 3), 250, np.uint8)
    proto = model("Conv", stored, 0, group=5)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(NothingAcceleratedError, match="its weights without their zero point do not fit int8"):
        import_onnx(proto, "model")


def test_nothing_runs_on_the_host():
    stored = RNG.integers(0, 250, OPERATORS["Conv"][1]).astype(np.uint8)
    partition = import_onnx(model("Conv", stored, 0), "model")
    operators = [name for part in partition.parts if isinstance(part, HostPart) for name, _ in part.operators]
    assert [name for name in operators if name.startswith("Conv")] == []
