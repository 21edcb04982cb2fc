# SPDX-License-Identifier: Apache-2.0
"""Reading a float `.onnx` file: a model that holds together, or one sentence that says what is wrong."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from loomwork.compiler.quantization.error import QuantizeError


def read_model(path: Path) -> onnx.ModelProto:
    """The model with the data of its initializers, those in files beside it included.

    Raises QuantizeError for a file that is no ONNX model, is damaged, or whose external data is not there; OSError when
    the file cannot be read.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError:
        raise QuantizeError(f"{path} is no ONNX model, or only a part of one: export it again") from None
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise QuantizeError(f"{path} is no ONNX model: it holds no operators; give the .onnx file that was exported")
    _load_external_data(model, path)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        # What the checker does not know (an operator, an operator set) is said better by what runs the model.
        if not any(hint in str(error) for hint in ("No Op registered", "No opset import", "opset version", "schema")):
            raise QuantizeError(f"{path} is damaged: {_first_line(error)}; export it again") from None
    return model


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    for tensor in constants(model.graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = external_data_helper.ExternalDataInfo(tensor).location
        if not (path.parent / location).is_file():
            raise QuantizeError(
                f"{path} keeps initializer {tensor.name} in {location}, which is not beside it: put the two files into "
                "one folder, or export the model into a single file"
            )
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (onnx.checker.ValidationError, ValueError, OSError) as error:
            raise QuantizeError(
                f"{path} keeps initializer {tensor.name} in {location}, which cannot be used: {_first_line(error)}; "
                "export the model again"
            ) from None


def constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every initializer, and every tensor in an attribute of a node, subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from constants(attribute.g)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
