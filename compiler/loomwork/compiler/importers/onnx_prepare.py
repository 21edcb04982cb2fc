# SPDX-License-Identifier: Apache-2.0
"""Checking and normalizing an ONNX model: fixed shapes, folded constants and one generation of operators.

Shape inference is `onnx`'s, constant folding and the removal of what computes nothing `onnxslim`'s.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxslim
from onnx import helper, numpy_helper, shape_inference, version_converter

from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.onnx_qoperator import as_qdq
from loomwork.compiler.importers.onnx_shapes import fixed_shapes, with_missing_shapes

OLDEST_OPSET = 17
"""Opset to which older models are raised, so that each operator has one form."""
LARGEST_TENSOR = 1 << 28
"""Elements of a tensor; more are a mistake, or too many for this machine's memory."""


class OnnxFileError(CompileError):
    """A file that is no usable ONNX model."""


def prepared(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A checked and normalized copy of a model.

    shapes: of inputs with dimensions that the model leaves open; an open batch alone is 1. Raises OnnxFileError with a
    sentence that names what is wrong.
    """
    _check_external(proto)
    _check_opset(proto)
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    _drop_initializer_inputs(model)
    _fix_shapes(model, dict(shapes))
    stated = fixed_shapes(model)
    _forget_shapes(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise OnnxFileError(f"the model is not valid: {first_line(error)}") from None
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    _check_data(model)
    model = _raised(as_qdq(model))
    _check_finite(model)
    model = _simplified(model)
    model = with_missing_shapes(_inferred(model), stated, _inferred)
    return _split_as_slices(model)


def first_line(error: Exception) -> str:
    """What an error of a library says first, as one line."""
    return " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__


def _check_external(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "another file")
            raise OnnxFileError(f"the weights {tensor.name!r} are in {where!r}, which was not found beside the model")


def _check_opset(proto: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= newest:
            raise OnnxFileError(
                f"the model uses opset {entry.version}, this Loomwork knows 1 to {newest}; export it with an older one"
            )


def _drop_initializer_inputs(model: onnx.ModelProto) -> None:
    """Before IR version 4 every initializer was listed as an input, too; many files do so in part only."""
    model.ir_version = max(model.ir_version, 4)
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)


def _fix_shapes(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    names = [value.name for value in model.graph.input]
    if unknown := sorted(set(shapes) - set(names)):
        raise OnnxFileError(f"a shape is given for {unknown[0]!r}, but the model's inputs are {', '.join(names)}")
    for value in model.graph.input:
        if not value.type.HasField("tensor_type"):
            raise OnnxFileError(f"the model's input {value.name!r} is no tensor")
        tensor = value.type.tensor_type
        given = shapes.get(value.name)
        if not tensor.HasField("shape") and given is None:
            raise OnnxFileError(
                f"the model's input {value.name!r} has no shape; give one: --shape {value.name}=1,3,224,224"
            )
        if not tensor.HasField("shape"):
            tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in given or ())
        dims = tensor.shape.dim
        if given is not None and (len(given) != len(dims) or min(given, default=1) < 1):
            raise OnnxFileError(
                f"the shape {_times(given)} given for {value.name!r} does not fit its {len(dims)} dimensions"
            )
        for axis, dim in enumerate(dims):
            size = dim.dim_value
            if given is not None:
                if size > 0 and size != given[axis]:
                    raise OnnxFileError(
                        f"the shape {_times(given)} given for {value.name!r} differs from the model's "
                        f"{size} in dimension {axis}"
                    )
                dim.dim_value = given[axis]
            elif size <= 0 and axis == 0:
                dim.dim_value = 1
            elif size <= 0:
                known = ",".join(str(d.dim_value) if d.dim_value > 0 else "?" for d in dims)
                raise OnnxFileError(
                    f"the model's input {value.name!r} leaves dimension {axis} ({dim.dim_param or '?'}) open; "
                    f"give its size: --shape {value.name}={known}"
                )


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Open dimensions of what is computed follow from those of the inputs. ONNX wants an output to have some shape."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        if not output.type.HasField("tensor_type"):
            raise OnnxFileError(f"the model's output {output.name!r} is no tensor")
        output.type.tensor_type.ClearField("shape")
        output.type.tensor_type.shape.SetInParent()


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in a current opset; as it is where onnx has no conversion, and its operators then run on the host."""
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OLDEST_OPSET)
    if version >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception:  # it gives up with errors of many kinds
        return model


def _check_data(model: onnx.ModelProto) -> None:
    constants = [
        (entry.t, node.output[0]) for node in model.graph.node for entry in node.attribute if entry.HasField("t")
    ]
    for tensor, name in [*((tensor, tensor.name) for tensor in model.graph.initializer), *constants]:
        try:
            numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise OnnxFileError(f"the weights {name!r} do not fit their shape and type: {first_line(error)}") from None


def _check_finite(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
            data = numpy_helper.to_array(tensor)
            if not np.isfinite(data).all():
                reader = next((node for node in model.graph.node if tensor.name in node.input), None)
                at = np.argwhere(~np.isfinite(data))[0].tolist()
                if reader is not None and reader.op_type in ("Clip", "Where", "Min", "Max", "Pad"):
                    continue  # as a bound, or for a place that is masked out, an infinity has a meaning
                by = f" of {reader.op_type} {reader.output[0]!r}" if reader else ""
                raise OnnxFileError(
                    f"the weights {tensor.name!r}{by} hold {data[tuple(at)]} at index {at}; train or export them again"
                )


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        slim = onnxslim.slim(model)
    except Exception:  # it gives up on some models with errors of any kind; they are then taken as they are
        return model
    return slim if isinstance(slim, onnx.ModelProto) and slim.graph.node else model


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model, check_type=True, strict_mode=False, data_prop=True)
    except (RuntimeError, ValueError, shape_inference.InferenceError) as error:
        raise OnnxFileError(f"the model's shapes do not fit together: {first_line(error)}") from None


def check_contradictions(model: onnx.ModelProto) -> None:
    """Raise OnnxFileError when a shape is missing because those of its inputs contradict each other."""
    try:
        shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (RuntimeError, ValueError, shape_inference.InferenceError) as error:
        raise OnnxFileError(f"the model's shapes do not fit together: {first_line(error)}") from None


def _split_as_slices(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each result of a Split as a Slice of its own, for an operator with one result is easier to place."""
    shapes = {info.name: info.type.tensor_type.shape.dim for info in (*model.graph.value_info, *model.graph.output)}
    nodes = list(model.graph.node)
    if not any(node.op_type == "Split" and not node.domain for node in nodes):
        return model
    del model.graph.node[:]
    for number, node in enumerate(nodes):
        if node.op_type != "Split" or node.domain or any(name not in shapes for name in node.output):
            model.graph.node.append(node)
            continue
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
        start = 0
        for place, name in enumerate(node.output):
            dims = shapes[name]
            end = start + dims[axis if axis >= 0 else axis + len(dims)].dim_value
            inputs = [node.input[0]]
            for what, value in (("starts", start), ("ends", end), ("axes", axis)):
                inputs.append(f"loomwork/split {number}.{place} {what}")
                model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), inputs[-1]))
            model.graph.node.append(helper.make_node("Slice", inputs, [name], name=node.name))
            start = end
    return model
