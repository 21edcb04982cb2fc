# SPDX-License-Identifier: Apache-2.0
"""QOperator models (QLinearConv, QLinearMatMul, QLinearAdd, ...) in the QDQ form that they abbreviate.

Each quantized operator stands for: dequantize its inputs, compute in real numbers, quantize the result. Written out so,
one importer reads both forms. Sources: ONNX operator specification (QLinearConv, QLinearMatMul); ONNX Runtime,
docs/ContribOperators.md (domain com.microsoft).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_DOMAIN = "com.microsoft"


def as_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every quantized operator written out. One whose scales are computed stays as it is."""
    if not any(node.op_type in _FORMS for node in model.graph.node):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    rewriter = _Rewriter(result.graph)
    for node in model.graph.node:
        rewriter.add(node)
    used = {node.domain for node in result.graph.node}
    for entry in [entry for entry in result.opset_import if entry.domain == _DOMAIN and _DOMAIN not in used]:
        result.opset_import.remove(entry)
    return result


class _Rewriter:
    """Appends to a graph. Raises KeyError inside of a form when a number that it needs is no constant."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._taken = {
            *self._constants,
            *(value.name for value in graph.input),
            *(name for node in graph.node for name in node.output),
        }
        self._pending: list[onnx.NodeProto] = []

    def add(self, node: onnx.NodeProto) -> None:
        """Append a node, written out if it is a quantized operator."""
        form = _FORMS.get(node.op_type)
        self._taken.update(node.output)
        self._pending = []
        try:
            if form is not None:
                form(self, node)
                self._graph.node.extend(self._pending)
                return
        except KeyError:
            pass
        self._graph.node.append(node)

    def constant(self, name: str) -> NDArray[Any]:
        """The value of an initializer. Raises KeyError when it is computed."""
        return self._constants[name]

    def name(self, wanted: str) -> str:
        """A name that nothing has yet."""
        number, name = 1, wanted
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def store(self, wanted: str, value: NDArray[Any]) -> str:
        """A new initializer."""
        name = self.name(wanted)
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        self._constants[name] = value
        return name

    def real(self, tensor: str, scale: str, zero_point: str, axis: int | None = None) -> str:
        """Append the dequantization of a tensor. axis: along which a vector of scales lies."""
        self.constant(scale)
        output = self.name(f"{tensor}_real")
        inputs = [tensor, self._fitting(scale), *([self._fitting(zero_point)] if zero_point else [])]
        node = helper.make_node("DequantizeLinear", inputs, [output])
        if axis is not None and self.constant(scale).size > 1:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._pending.append(node)
        return output

    def compute(self, op: str, inputs: Sequence[str], node: onnx.NodeProto, scale: str, zero_point: str) -> None:
        """Append an operator and the quantization of its result into the first output of `node`."""
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        self.compute_with(op, inputs, attributes, node.output[0], scale, zero_point)

    def compute_with(
        self, op: str, inputs: Sequence[str], attributes: Mapping[str, Any], output: str, scale: str, zero_point: str
    ) -> None:
        """As `compute`, with attributes of its own."""
        result = self.name(f"{output}_real")
        self._pending.append(helper.make_node(op, list(inputs), [result], **attributes))
        quantize = [result, self._fitting(scale), *([self._fitting(zero_point)] if zero_point else [])]
        self._pending.append(helper.make_node("QuantizeLinear", quantize, [output]))

    def _fitting(self, name: str) -> str:
        """A scale or zero point as QuantizeLinear wants it: a scalar where it has one value."""
        value = self.constant(name)
        return name if value.ndim == 0 or value.size > 1 else self.store(f"{name}_scalar", value.reshape(()))

    def bias(self, name: str, input_scale: str, weight_scale: str) -> str:
        """Append the dequantization of an int32 bias: its scale is the product of the two others."""
        scale = self.constant(input_scale).astype(np.float32) * self.constant(weight_scale).astype(np.float32).ravel()
        stored = self.store(f"{name}_scale", np.asarray(scale.reshape(-1)[0] if scale.size == 1 else scale, np.float32))
        return self.real(name, stored, "", 0)


def _convolution(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    x, xs, xz, w, ws, wz, ys, yz, *rest = node.input
    inputs = [rewriter.real(x, xs, xz), rewriter.real(w, ws, wz, 0)]
    if rest and rest[0]:
        inputs.append(rewriter.bias(rest[0], xs, ws))
    rewriter.compute("Conv", inputs, node, ys, yz)


def _matmul(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, ys, yz = node.input
    axis = rewriter.constant(b).ndim - 1 if rewriter.constant(bs).size > 1 else None
    rewriter.compute("MatMul", [rewriter.real(a, as_, az), rewriter.real(b, bs, bz, axis)], node, ys, yz)


def _gemm(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, *rest = node.input
    bias, ys, yz = (*rest, "", "", "")[:3]
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    inputs = [rewriter.real(a, as_, az), rewriter.real(b, bs, bz, 0 if attributes.get("transB") else 1)]
    if bias:
        inputs.append(rewriter.bias(bias, as_, bs))
    if not ys:  # the result stays real
        rewriter.constant(as_)
        raise KeyError(node.name)
    rewriter.compute("Gemm", inputs, node, ys, yz)


def _binary(op: str) -> Callable[[_Rewriter, onnx.NodeProto], None]:
    def write(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
        a, as_, az, b, bs, bz, ys, *rest = node.input
        rewriter.compute(op, [rewriter.real(a, as_, az), rewriter.real(b, bs, bz)], node, ys, (*rest, "")[0])

    return write


def _unary(op: str, dropped: Sequence[str] = ()) -> Callable[[_Rewriter, onnx.NodeProto], None]:
    def write(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
        x, xs, xz, ys, *rest = node.input
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        if attributes.get("channels_last"):
            raise KeyError(node.name)
        kept = {name: value for name, value in attributes.items() if name not in dropped}
        rewriter.compute_with(op, [rewriter.real(x, xs, xz)], kept, node.output[0], ys, (*rest, "")[0])

    return write


def _concat(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    ys, yz, *rest = node.input
    parts = [rewriter.real(x, xs, xz) for x, xs, xz in zip(rest[0::3], rest[1::3], rest[2::3], strict=True)]
    rewriter.compute("Concat", parts, node, ys, yz)


_FORMS: dict[str, Callable[[_Rewriter, onnx.NodeProto], None]] = {
    "QLinearConv": _convolution,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearAveragePool": _unary("AveragePool", ["channels_last"]),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool", ["channels_last"]),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _unary("Softmax", ["opset"]),
    "QLinearConcat": _concat,
}
"""What each quantized operator abbreviates."""
QOPERATORS = tuple(_FORMS)
"""All of them."""
