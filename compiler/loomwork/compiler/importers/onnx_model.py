# SPDX-License-Identifier: Apache-2.0
"""ONNX models as the importer sees them: operators and tensors of known type and shape."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from loomwork.compiler.importers.onnx_prepare import (
    LARGEST_TENSOR,
    OnnxFileError,
    check_contradictions,
    first_line,
    prepared,
)

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A tensor. dtype: NumPy's name. data: of a constant, None for one that is computed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operator. inputs: names, empty for an optional one that is absent. captured: read by its subgraphs only."""

    index: int
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto
    captured: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its first output's name, which no other operator has."""
        return self.outputs[0]

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model whose every tensor has a known type and shape. nodes: in an order in which they can run."""

    values: dict[str, Value]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opsets: tuple[onnx.OperatorSetIdProto, ...]
    ir_version: int
    functions: tuple[onnx.FunctionProto, ...] = ()
    producers: Mapping[str, Node] = field(init=False)
    consumers: Mapping[str, tuple[Node, ...]] = field(init=False)

    def __post_init__(self) -> None:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *node.captured)):
                readers.setdefault(name, []).append(node)
        object.__setattr__(self, "producers", {name: node for node in self.nodes for name in node.outputs if name})
        object.__setattr__(self, "consumers", {name: tuple(found) for name, found in readers.items()})

    def data(self, name: str) -> Array | None:
        """The numbers of a constant, None for what is absent or computed."""
        return self.values[name].data if name else None


def parse_model(data: bytes, folder: Path | None = None) -> onnx.ModelProto:
    """The model in a file's contents. folder: where weights lie that are kept in files of their own.

    Raises OnnxFileError for what is not ONNX, or when such a file is missing or too short.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise OnnxFileError("this is no ONNX model, or it is damaged") from None
    if not model.graph.node:
        raise OnnxFileError("this is no ONNX model, or it computes nothing: it holds no operator")
    if folder is not None and any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        try:
            load_external_data_for_model(model, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise OnnxFileError(f"the weights beside the model cannot be read: {first_line(error)}") from None
    return model


def read_model(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Model:
    """Check and normalise a model; `proto` stays as it is.

    shapes: of inputs with dimensions that the model leaves open; an open batch alone is 1. Raises OnnxFileError with a
    sentence that names what is wrong.
    """
    return _model(prepared(proto, shapes or {}))


def multiplications(model: Model, node: Node) -> int:
    """Multiply-accumulates of an operator; 0 for one that does not multiply matrices."""
    shapes = [model.values[name].shape if name in model.values else () for name in node.inputs]
    result = model.values[node.outputs[0]]
    match node.op:
        case "Conv" | "ConvInteger" | "QLinearConv" | "FusedConv":
            weights = shapes[3 if node.op == "QLinearConv" else 1]
            return result.elements * int(np.prod(weights[1:], dtype=np.int64))
        case "ConvTranspose":
            return int(np.prod(shapes[0], dtype=np.int64) * np.prod(shapes[1][1:], dtype=np.int64))
        case "Gemm":
            return result.elements * shapes[0][0 if node.attributes.get("transA") else 1]
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return result.elements * (shapes[0][-1] if shapes[0] else 1)
        case _:
            return 0


def _model(proto: onnx.ModelProto) -> Model:
    graph = proto.graph
    values: dict[str, Value] = {}
    for tensor in graph.initializer:
        values[tensor.name] = _constant(tensor.name, numpy_helper.to_array(tensor))
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            values[node.output[0]] = _constant(node.output[0], _constant_data(node))
        else:
            kept.append(node)
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.name not in values and info.type.HasField("tensor_type"):
            found = _value(info)
            if found is not None:
                values[info.name] = found
    for value in values.values():
        if value.elements > LARGEST_TENSOR:
            raise OnnxFileError(
                f"the tensor {value.name!r} has {value.elements} elements; {LARGEST_TENSOR} are possible"
            )
    nodes = tuple(_node(index, node) for index, node in enumerate(kept))
    for node in nodes:
        for name in node.outputs:
            if name and name not in values:
                check_contradictions(proto)
                raise OnnxFileError(
                    f"the shape of {name!r}, computed by {node}, is not known before the model runs; "
                    f"give the shapes of all inputs (--shape), or export the model with fixed shapes"
                )
    return Model(
        values=values,
        nodes=nodes,
        inputs=tuple(value.name for value in graph.input),
        outputs=tuple(value.name for value in graph.output),
        opsets=tuple(proto.opset_import),
        ir_version=proto.ir_version,
        functions=tuple(proto.functions),
    )


def _constant(name: str, data: Array) -> Value:
    return Value(name=name, shape=tuple(data.shape), dtype=data.dtype.name, data=data)


def _constant_data(node: onnx.NodeProto) -> Array:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    return np.asarray(value, np.float32 if "float" in attribute.name else np.int64)


def _value(info: onnx.ValueInfoProto) -> Value | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape") or any(dim.dim_value <= 0 for dim in tensor.shape.dim) or not tensor.elem_type:
        return None
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:
        raise OnnxFileError(
            f"the tensor {info.name!r} has the type {tensor.elem_type}, which ONNX does not know"
        ) from None
    return Value(name=info.name, shape=tuple(dim.dim_value for dim in tensor.shape.dim), dtype=dtype.name)


def _node(index: int, proto: onnx.NodeProto) -> Node:
    return Node(
        index=index,
        op=proto.op_type,
        domain="" if proto.domain == "ai.onnx" else proto.domain,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={entry.name: _attribute(entry) for entry in proto.attribute},
        proto=proto,
        captured=tuple(_captured(proto)),
    )


def _attribute(entry: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(entry)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, Message | int | float) else list(value)


def _captured(proto: onnx.NodeProto) -> list[str]:
    """Names that subgraphs of a node take from outside of them."""
    found: list[str] = []
    for entry in proto.attribute:
        for graph in (*([entry.g] if entry.HasField("g") else []), *entry.graphs):
            inside = {value.name for value in (*graph.input, *graph.initializer)}
            for node in graph.node:
                found += [name for name in (*node.input, *_captured(node)) if name and name not in inside]
                inside.update(node.output)
            found += [value.name for value in graph.output if value.name not in inside]
    return list(dict.fromkeys(found))
