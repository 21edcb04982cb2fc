# SPDX-License-Identifier: Apache-2.0
"""Small float ONNX models, written with onnx.helper, and calibration data for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Node = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    """Inputs and outputs are separated by blanks; `-` is an input left out."""
    return kind, ["" if name == "-" else name for name in inputs.split()], outputs.split(), attributes


def model(
    nodes: Sequence[Node],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 13,
    names: bool = True,
) -> onnx.ModelProto:
    """A model of float32 inputs and outputs. names: whether nodes get one, n0, n1 and so on."""
    graph = helper.make_graph(
        [
            helper.make_node(kind, list(read), list(made), name=f"n{index}" if names else "", **attributes)
            for index, (kind, read, made, attributes) in enumerate(nodes)
        ],
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def samples(count: int, *shape: int, seed: int = 1) -> np.ndarray:
    return normal(count, *shape, seed=seed)


def conv_relu_conv(*, opset: int = 13) -> onnx.ModelProto:
    """x [1, 3, 6, 6] to y [1, 5, 6, 6], with a Relu between two 3x3 convolutions of 4 and 5 channels."""
    return model(
        [
            node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
            node("Relu", "c", "r"),
            node("Conv", "r w2 b2", "y", pads=[1, 1, 1, 1]),
        ],
        {"x": [1, 3, 6, 6]},
        {"y": [1, 5, 6, 6]},
        {
            "w1": normal(4, 3, 3, 3, seed=10),
            "b1": normal(4, seed=11),
            "w2": normal(5, 4, 3, 3, seed=12),
            "b2": normal(5, seed=13),
        },
        opset=opset,
    )
