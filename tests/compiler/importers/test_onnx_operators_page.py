# SPDX-License-Identifier: Apache-2.0
"""The reference page of ONNX operators is current, and every operator on it becomes a layer."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loomwork.compiler.graph import (
    Add,
    Convolution,
    Graph,
    HostPart,
    Layer,
    MaxPool,
    Mean,
    Multiply,
    Rearrange,
    Rescale,
    Table,
)
from loomwork.compiler.importers.onnx import LAYOUT_REASON, OUTPUT_REASON, import_onnx
from loomwork.compiler.importers.onnx_codes import LAYOUTS
from loomwork.compiler.importers.onnx_operators import FUNCTIONS, RULES, VARIANTS, operators_page
from tests.models import CHECKOUT

PAGE = CHECKOUT / "docs" / "reference" / "onnx-operators.md"
IMAGE = (1, 4, 6, 6)
RNG = np.random.default_rng(5)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An operator on images of 4 channels. layer: what becomes of it. rest: its constants; weights are quantized."""

    layer: type[Layer]
    result: tuple[int, ...] = IMAGE
    computed: int = 1
    shape: tuple[int, ...] = IMAGE
    weights: tuple[int, ...] | None = None
    rest: tuple[np.ndarray, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    same_scale: bool = False


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def real(value: float) -> np.ndarray:
    return np.array(value, np.float32)


CONSTANTS: dict[str, tuple[np.ndarray, ...]] = {
    "Max": (real(0.5),),
    "Min": (real(0.5),),
    "PRelu": (real(0.25),),
    "Pow": (real(2.0),),
}
CASES = {
    "Conv": Case(layer=Convolution, weights=(5, 4, 3, 3), result=(1, 5, 4, 4)),
    "Gemm": Case(layer=Convolution, shape=(1, 24), weights=(24, 5), result=(1, 5)),
    "MatMul": Case(layer=Convolution, shape=(3, 24), weights=(24, 5), result=(3, 5)),
    "Add": Case(layer=Add, computed=2),
    "Sub": Case(layer=Add, computed=2),
    "MaxPool": Case(layer=MaxPool, attributes={"kernel_shape": [2, 2]}, result=(1, 4, 5, 5), same_scale=True),
    "GlobalMaxPool": Case(layer=MaxPool, result=(1, 4, 1, 1), same_scale=True),
    "AveragePool": Case(layer=Convolution, attributes={"kernel_shape": [2, 2]}, result=(1, 4, 5, 5)),
    "GlobalAveragePool": Case(layer=Mean, result=(1, 4, 1, 1)),
    "ReduceMean": Case(layer=Mean, rest=(ints(2, 3),), result=(1, 4, 1, 1)),
    "Relu": Case(layer=Rescale),
    "Clip": Case(layer=Rescale, rest=(real(-0.5), real(0.5))),
    "ConvTranspose": Case(
        layer=Convolution, weights=(4, 5, 2, 2), attributes={"strides": [2, 2]}, result=(1, 5, 12, 12)
    ),
    "Mul": Case(layer=Convolution, rest=(np.array([0.5, 2, -1, 1], np.float32).reshape(1, 4, 1, 1),)),
    "Div": Case(layer=Convolution, rest=(np.array([0.5, 2, -1, 1], np.float32).reshape(1, 4, 1, 1),)),
    **{op: Case(layer=Table, rest=CONSTANTS.get(op, ())) for op in FUNCTIONS},
    "Mul of two tensors": Case(layer=Multiply, computed=2),
    "PRelu with a slope for each channel": Case(
        layer=Add, rest=(np.array([0.5, 2, -1, 1], np.float32).reshape(4, 1, 1),)
    ),
    "Concat": Case(layer=Rearrange, computed=3, attributes={"axis": 1}, result=(1, 12, 6, 6)),
    "Slice": Case(layer=Rearrange, rest=(ints(1), ints(5), ints(2)), result=(1, 4, 4, 6)),
    "Pad": Case(layer=Rearrange, rest=(ints(0, 0, 1, 2, 0, 0, 1, 0),), result=(1, 4, 8, 8)),
    "Resize": Case(
        layer=Rearrange,
        rest=(np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)),
        attributes={"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        result=(1, 4, 12, 12),
    ),
    "DepthToSpace": Case(layer=Rearrange, attributes={"blocksize": 2}, result=(1, 1, 12, 12)),
    "SpaceToDepth": Case(layer=Rearrange, attributes={"blocksize": 2}, result=(1, 16, 3, 3)),
    "Gather": Case(layer=Rearrange, rest=(ints(3, 1),), attributes={"axis": 1}, result=(1, 2, 6, 6)),
    "Tile": Case(layer=Rearrange, rest=(ints(1, 1, 2, 1),), result=(1, 4, 12, 6)),
    "Expand": Case(layer=Rearrange, shape=(1, 4, 1, 6), rest=(ints(1, 4, 6, 6),)),
}


def model_of(op: str, case: Case) -> onnx.ModelProto:
    """int8 inputs, DequantizeLinear, the operator, QuantizeLinear."""
    constants = [
        numpy_helper.from_array(real(0.02), "scale"),
        numpy_helper.from_array(real(0.02 if case.same_scale else 0.05), "result_scale"),
        numpy_helper.from_array(np.array(3, np.int8), "zero"),
    ]
    nodes, inputs, read = list[onnx.NodeProto](), list[onnx.ValueInfoProto](), list[str]()

    def dequantize(name: str) -> None:
        nodes.append(helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"{name}_real"]))
        read.append(f"{name}_real")

    for number in range(case.computed):
        inputs.append(helper.make_tensor_value_info(f"x{number}", TensorProto.INT8, case.shape))
        dequantize(f"x{number}")
    if case.weights is not None:
        stored = RNG.integers(-100, 100, case.weights, dtype=np.int8)
        constants.append(numpy_helper.from_array(stored, "weights"))
        dequantize("weights")
    for number, value in enumerate(case.rest):
        constants.append(numpy_helper.from_array(value, f"constant{number}"))
        read.append(f"constant{number}")
    nodes.append(helper.make_node(op, read, ["real"], **case.attributes))
    nodes.append(helper.make_node("QuantizeLinear", ["real", "result_scale", "zero"], ["y"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT8, case.result)]
    graph = helper.make_graph(nodes, op, inputs, outputs, constants)
    # Of the functions, Swish is the youngest.
    opset = max(21, onnx.defs.get_schema(op).since_version if op == "Swish" else 0)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def requantization() -> onnx.ModelProto:
    """From one scale to another."""
    model = model_of("Relu", Case(layer=Rescale))
    position = next(place for place, node in enumerate(model.graph.node) if node.op_type == "Relu")
    model.graph.node[position + 1].input[0] = model.graph.node[position].input[0]
    del model.graph.node[position]
    return model


def accelerated(model: onnx.ModelProto) -> list[Layer]:
    """All layers of the accelerator; fails when the host computes something."""
    partition = import_onnx(model, "model")
    on_host = [operator for part in partition.parts if isinstance(part, HostPart) for operator in part.operators]
    assert [name for name, reason in on_host if reason not in (LAYOUT_REASON, OUTPUT_REASON)] == []
    return [layer for part in partition.parts if isinstance(part, Graph) for layer in part.layers]


@pytest.mark.parametrize("title", CASES)
def test_every_operator_becomes_the_layer_that_the_page_promises(title: str):
    op = title.split(maxsplit=1)[0]
    layers = accelerated(model_of(op, CASES[title]))
    assert {layer.operator for layer in layers} == {op}
    assert CASES[title].layer in {type(layer) for layer in layers}


def test_a_change_of_scale_becomes_a_rescaling():
    (layer,) = accelerated(requantization())
    assert (layer.operator, type(layer)) == ("QuantizeLinear", Rescale)


@pytest.mark.parametrize("op", ["Add", "Mul", "Div", "Sub"])
def test_with_a_single_constant_it_becomes_a_table(op: str):
    (layer,) = accelerated(model_of(op, Case(layer=Table, rest=(real(0.75),))))
    assert (layer.operator, type(layer)) == (op, Table)


def test_there_is_a_case_for_every_rule():
    assert CASES.keys() | {"QuantizeLinear"} == RULES.keys() | VARIANTS.keys()


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == operators_page(), (
        "out of date; run python -m loomwork.compiler.importers.onnx_operators > docs/reference/onnx-operators.md"
    )


def test_the_page_lists_every_operator():
    page = operators_page()
    headings = [line for line in page.splitlines() if line.startswith("### ")]
    listed = [op for line in headings for op in line.removeprefix("### ").split(", ")]
    assert sorted(listed) == sorted([*RULES, *VARIANTS])
    for rule in (*RULES.values(), *VARIANTS.values()):
        assert all(f"- {phrase}\n" in page for phrase in (rule.form.needs, *rule.needs))
    free = page.split("## Free", 1)[1].split("## On the host", 1)[0]
    assert all(op in free for op in (*LAYOUTS, "DequantizeLinear", "QuantizeLinear"))
