# SPDX-License-Identifier: Apache-2.0
"""Whether a model can be quantized at all: float, finite, and known to ONNX Runtime."""

import re

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

from loomwork.compiler.quantization.error import QuantizeError
from loomwork.compiler.quantization.read import constants
from loomwork.compiler.quantization.session import Session

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_STANDARD = ("", "ai.onnx")


def opset(model: onnx.ModelProto) -> int:
    """Version of the ONNX operator set that a model uses, 0 when it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)


def label(node: onnx.NodeProto) -> str:
    """How a sentence names a node: by its name, or else by what it makes."""
    return f"{node.op_type} {node.name or (node.output[0] if node.output else '(without a name)')}"


def check_model(model: onnx.ModelProto) -> None:
    """Raises QuantizeError for what makes a model unfit for quantization."""
    for node in model.graph.node:
        if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear"):
            raise QuantizeError(f"the model is quantized already: it has {label(node)}; give the float model instead")
    _check_values(model)
    _check_inputs(model)
    _check_opset(model)
    _check_operators(model)
    try:
        Session(model)
    except Exception as error:  # ONNX Runtime's exceptions share no class but Exception
        raise QuantizeError(
            f"ONNX Runtime cannot run the model: {reason(error)}; simplify it, or export it again"
        ) from None


def reason(error: Exception) -> str:
    """What ONNX Runtime complains of, without its code of the error and without its file names."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return re.sub(r"/\S+:\d+ ", "", text).rstrip(".")


def _check_values(model: onnx.ModelProto) -> None:
    for tensor in constants(model.graph):
        if tensor.data_type == TensorProto.FLOAT:
            bad = int(np.count_nonzero(~np.isfinite(numpy_helper.to_array(tensor))))
            if bad:
                raise QuantizeError(
                    f"initializer {tensor.name or '(without a name)'} has {bad} values that are NaN or infinite: "
                    "export the model from a checkpoint that works"
                )


def _check_inputs(model: onnx.ModelProto) -> None:
    for value in (*inputs(model), *model.graph.initializer):
        kind = value.data_type if isinstance(value, TensorProto) else value.type.tensor_type.elem_type
        if kind in _OTHER_FLOATS:
            raise QuantizeError(
                f"tensor {value.name} is {TensorProto.DataType.Name(kind).lower()}: only float32 models are quantized; "
                "convert the model to float32"
            )


def inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What a caller has to give: the graph's inputs without those that have an initializer."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def _check_opset(model: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opset(model) <= newest:
        raise QuantizeError(
            f"the model uses ONNX operator set {opset(model) or '(none)'}, which onnxruntime "
            f"{onnxruntime.__version__} does not know: export it with a set of 14 to {newest}"
        )


def _check_operators(model: onnx.ModelProto) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        domain = "" if node.domain in _STANDARD else node.domain
        ours = domain == "" or domain.startswith(("com.microsoft", "ai.onnx"))
        known = onnx.defs.has(node.op_type, domain) if domain == "" else ours
        if not known and (node.domain, node.op_type) not in functions:
            where = f" of domain {node.domain}" if domain else ""
            raise QuantizeError(
                f"ONNX Runtime has no operator {node.op_type}{where}, which node {node.name or node.output[0]} is: "
                "replace it by operators of ONNX, or end the model in front of it"
            )
