# SPDX-License-Identifier: Apache-2.0
"""ONNX's tests of floating-point operators, quantized: the operator between DequantizeLinear and QuantizeLinear.

Scales and zero points follow from the least and the largest number of a test's own data, weights are symmetric, and
what a test gives as a weight is a constant. The reference is ONNX Runtime on the same model.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase

from loomwork.arch.config import Config
from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.cli.onnx_backend import COMPUTED, BackendError, prepare
from loomwork.cli.onnx_node_tests import Outcome, Verdict, host_reason
from loomwork.compiler.importers.onnx_operators import RULES
from loomwork.sim.host import onnx_session

Array = NDArray[Any]

OPERATORS = (*(op for op in RULES if op != "QuantizeLinear"), "Split")
"""Those that the accelerator executes. QuantizeLinear is part of each test; Split is read as several Slices."""
OPSET = 21
"""Opset of the models, unless the operator is younger. ONNX Runtime has no kernels yet for some of the newest."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is a weight, and whose third a bias."""
VARIADIC = ("Concat", "Max", "Min")
MANY = 1000
"""From so many values on, one of a thousand may be a step off; of fewer, one."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A quantized model, and its inputs by name."""

    model: onnx.ModelProto
    inputs: dict[str, Array]


class _Writer:
    """Appends quantization to a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Array) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def scales(self, name: str, scale: np.float32, zero_point: int, dtype: type) -> list[str]:
        zero = np.array(zero_point, dtype)
        return [self.constant(f"{name}_scale", np.array(scale)), self.constant(f"{name}_zero", zero)]

    def dequantize(self, name: str, rest: list[str]) -> str:
        self.nodes.append(helper.make_node("DequantizeLinear", [name, *rest], [f"{name}_real"]))
        return f"{name}_real"


def quantize_test(case: TestCase) -> Quantized | str:
    """The quantized model of a test, or why it has none."""
    assert case.model is not None
    assert case.data_sets is not None
    (node,) = case.model.graph.node
    ((given, expected),) = case.data_sets
    present = [name for name in node.input if name]
    data = {name: np.asarray(value) for name, value in zip(present, given, strict=True)}
    results = [np.asarray(value) for value in expected]
    computed = len(node.input) if node.op_type in VARIADIC else COMPUTED.get(node.op_type, len(node.input))
    activations = [name for name in node.input[:computed] if name]
    for name, values in (*((name, data[name]) for name in activations), (node.output[0], results[0])):
        if values.dtype != np.float32:
            return f"{name!r} is {values.dtype}, not float32"
        if not values.size or not np.isfinite(values).all():
            return f"{name!r} has no numbers, or some that are not finite"
    writer = _Writer()
    renamed: dict[str, str] = {}
    for name in activations:
        rest = writer.scales(name, *activation_scale(data[name]), np.int8)
        writer.nodes.append(helper.make_node("QuantizeLinear", [name, *rest], [f"{name}_stored"]))
        renamed[name] = writer.dequantize(f"{name}_stored", rest)
    for position, name in enumerate(node.input):
        if name and name not in renamed:
            renamed[name] = _weight(writer, node.op_type, position, name, data[name], data[activations[0]], data)
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    inner.input[:] = [renamed[name] if name else "" for name in node.input]
    outputs: list[onnx.ValueInfoProto] = []
    tail = _Writer()
    for place, name in enumerate(node.output):
        if name and results[place].dtype == np.float32:
            inner.output[place] = f"{name}_real"
            rest = writer.scales(name, *activation_scale(results[place]), np.int8)
            tail.nodes.append(helper.make_node("QuantizeLinear", [f"{name}_real", *rest], [name]))
            outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT8, results[place].shape))
        elif name:
            kind = helper.np_dtype_to_tensor_dtype(results[place].dtype)
            outputs.append(helper.make_tensor_value_info(name, kind, results[place].shape))
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, data[name].shape) for name in activations]
    nodes = [*writer.nodes, inner, *tail.nodes]
    graph = helper.make_graph(nodes, case.name, inputs, outputs, writer.constants)
    return Quantized(model=_model(graph, case), inputs={name: data[name] for name in activations})


def _model(graph: onnx.GraphProto, case: TestCase) -> onnx.ModelProto:
    """The graph in the usual opset, or in that of the test when the operator is younger."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        assert case.model is not None
        version = max(OPSET, *(entry.version for entry in case.model.opset_import))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    return model


def activation_scale(values: Array) -> tuple[np.float32, int]:
    """Scale and zero point, so that 0 and all values fit int8."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = np.float32((high - low) / (INT8_MAX - INT8_MIN)) or np.float32(1 / INT8_MAX)
    return scale, int(np.clip(np.rint(INT8_MIN - low / scale), INT8_MIN, INT8_MAX))


def _weight_scale(values: Array) -> np.float32:
    return np.float32(np.abs(values).max() / INT8_MAX) or np.float32(1 / INT8_MAX)


def _weight(
    writer: _Writer, op: str, position: int, name: str, values: Array, source: Array, data: dict[str, Array]
) -> str:
    """A constant input: quantized where it is a weight or a bias, else as it is."""
    if op not in WEIGHTED or position not in (1, 2):
        return writer.constant(name, values)
    if position == 1:
        scale, dtype, limit = _weight_scale(values), np.int8, INT8_MAX
    else:
        weight = list(data.values())[1]
        scale, dtype, limit = activation_scale(source)[0] * _weight_scale(weight), np.int32, 2**31 - 1
    stored = np.clip(np.rint(values / scale), -limit, limit).astype(dtype)
    writer.constant(f"{name}_stored", stored)
    return writer.dequantize(f"{name}_stored", writer.scales(name, np.float32(scale), 0, dtype))


def run_quantized(operator: str, case: TestCase, config: Config) -> Outcome | None:
    """Quantize a test and run it; None where it has no quantized form."""
    quantized = quantize_test(case)
    if isinstance(quantized, str):
        return None

    def outcome(verdict: Verdict, detail: str = "") -> Outcome:
        return Outcome(operator=operator, test=case.name, verdict=verdict, detail=detail)

    try:
        expected = _reference(quantized)
    except Exception:  # the runtime has errors of many kinds for what it does not execute
        return None
    try:
        rep = prepare(quantized.model, config=config)
        results = rep.run(quantized.inputs)
    except (BackendError, onnx.checker.ValidationError) as error:
        return outcome(Verdict.REFUSED, str(error))
    off = [difference(result, wanted) for result, wanted in zip(results, expected, strict=True)]
    if any(not close(result.size, *found) for result, found in zip(results, off, strict=True)):
        told = (f"{n} of {r.size} differ, by up to {steps}" for r, (n, steps) in zip(results, off, strict=True))
        return outcome(Verdict.FAILED, "; ".join(told))
    reason = host_reason(rep.operators)
    if reason is not None:
        return outcome(Verdict.HOST, reason)
    return outcome(Verdict.ONE_STEP if any(n for n, _ in off) else Verdict.ACCELERATOR)


def difference(result: Array, expected: Array) -> tuple[int, int]:
    """How many numbers differ, and by how much at most."""
    if result.shape != expected.shape:
        return max(result.size, expected.size), INT8_MAX - INT8_MIN
    steps = np.abs(result.astype(np.int64) - expected.astype(np.int64))
    return int(np.count_nonzero(steps)), int(steps.max(initial=0))


def close(size: int, differing: int, steps: int) -> bool:
    """Whether 99.9 % are equal and the others one step off; of less than a thousand numbers, all but one."""
    return steps <= 1 and differing <= (size // MANY if size >= MANY else 1)


def _reference(quantized: Quantized) -> list[Array]:
    session = onnx_session(quantized.model.SerializeToString())
    return [np.asarray(result) for result in session.run(None, quantized.inputs)]
