# SPDX-License-Identifier: Apache-2.0
"""A float model in the form that quantization starts from: simplified, of a recent operator set, every node named."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxslim
from onnx import helper, numpy_helper, version_converter
from onnx.shape_inference import infer_shapes
from onnxruntime.quantization.shape_inference import quant_pre_process

from loomwork.compiler.quantization.check import opset, reason
from loomwork.compiler.quantization.error import QuantizeError
from loomwork.compiler.quantization.hard_swish import fuse_hard_swish
from loomwork.compiler.quantization.session import quiet

OPSET = 14
"""Scales per channel in QuantizeLinear and DequantizeLinear are of operator set 13, HardSwish is of 14."""

_RESIZE_WITH_MODES = 11


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and batch normalization, merge bias additions into Conv and Gemm, raise the operator set.

    model: with fixed shapes. The result computes the same up to float rounding, and has the same inputs and outputs.
    onnxslim folds chains of shape computations and patterns that ONNX Runtime leaves, ONNX Runtime the rest.
    Raises QuantizeError when one of the libraries cannot do it.
    """
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    try:
        prepared = _raise_opset(model)
        with quiet():
            prepared = _optimize(_slim(prepared))
        _remove_unused_domains(prepared)
        prepared = infer_shapes(prepared)
    except Exception as error:  # each of these libraries has exceptions of its own
        raise QuantizeError(
            f"the model cannot be brought to operator set {OPSET} and simplified: {reason(error)}; export it with "
            f"operator set {OPSET} or later"
        ) from None
    if names != [value.name for value in (*prepared.graph.input, *prepared.graph.output)]:
        raise QuantizeError("simplifying the model changed its inputs or outputs: remove those that nothing depends on")
    fuse_hard_swish(prepared)
    _name_nodes(prepared)
    for node in prepared.graph.node:
        if node.op_type == "Gemm":
            _normalize_gemm(prepared, node)
    return prepared


def _raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model, of operator set OPSET or later."""
    if opset(model) >= OPSET:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    converted = version_converter.convert_version(model, OPSET)
    if opset(model) < _RESIZE_WITH_MODES:
        for node in converted.graph.node:
            if node.op_type == "Resize":
                # The converter leaves these out, and what they are by default is not what it was before.
                modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
                node.attribute.extend(helper.make_attribute(name, value) for name, value in modes.items())
    return converted


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    slimmed = onnxslim.slim(model)
    if not isinstance(slimmed, onnx.ModelProto):
        raise TypeError("onnxslim gave no model")
    return slimmed


def _optimize(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save_model(model, before)
        # Its symbolic shape inference is for dynamic dimensions, of which there are none left.
        quant_pre_process(str(before), str(after), skip_symbolic_shape=True)
        return onnx.load_model(after)


def _remove_unused_domains(model: onnx.ModelProto) -> None:
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _name_nodes(model: onnx.ModelProto) -> None:
    """ONNX Runtime's quantizer finds nodes by name, so that each needs one of its own."""
    taken: set[str] = set()
    for node in model.graph.node:
        base = node.name or f"{node.op_type}_{node.output[0]}"
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name


def _normalize_gemm(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Make `alpha A B + beta C` with constants B and C into `A B' + c`, c a vector.

    ONNX Runtime's quantizer sets beta to 1 without multiplying it into C, and scales a C of two dimensions along the
    wrong axis.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.input[1] not in initializers or (len(node.input) > 2 and node.input[2] not in initializers):
        return
    alpha, beta = (attributes[name].f if name in attributes else 1.0 for name in ("alpha", "beta"))
    weights = numpy_helper.to_array(initializers[node.input[1]])
    transposed = "transB" in attributes and attributes["transB"].i
    if alpha != 1:
        node.input[1] = _add(model, f"{node.name}_weight", weights * np.float32(alpha))
    if len(node.input) > 2:
        bias = numpy_helper.to_array(initializers[node.input[2]])
        columns = weights.shape[0 if transposed else 1]
        if bias.size in (1, columns) and (beta != 1 or bias.shape != (columns,)):
            vector = np.broadcast_to(bias.reshape(-1), columns) * np.float32(beta)
            node.input[2] = _add(model, f"{node.name}_bias", vector)
            beta = 1.0
    for name, value in (("alpha", 1.0), ("beta", beta)):
        if name in attributes:
            attributes[name].f = value


def _add(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    taken = {tensor.name for tensor in model.graph.initializer}
    while name in taken:
        name += "_"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    return name
