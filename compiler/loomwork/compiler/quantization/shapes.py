# SPDX-License-Identifier: Apache-2.0
"""Fixing the shapes of a network's inputs: the accelerator runs networks whose every size is known."""

from collections.abc import Mapping, Sequence

import onnx
from onnx.shape_inference import infer_shapes
from onnxruntime.tools.onnx_model_utils import fix_output_shapes

from loomwork.compiler.quantization.check import inputs
from loomwork.compiler.quantization.error import QuantizeError

IR_VERSION = 8
"""The file format's version of operator set 14; since version 4 an initializer needs not be a graph input."""


def fix_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """A copy of the model with input shapes that are all numbers.

    shapes: of inputs, by name. Without it a dynamic first dimension, the batch, becomes 1. Raises QuantizeError for any
    other dynamic dimension, for a name that is no input, and for a shape that contradicts the model.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    fixed.ir_version = max(fixed.ir_version, IR_VERSION)
    values = inputs(fixed)
    for name in shapes:
        if name not in {value.name for value in values}:
            raise QuantizeError(f"there is no input {name} to give a shape: inputs are {_names(values)}")
    # Networks of old have their weights among the inputs, which keeps optimizers from taking them as constants.
    del fixed.graph.input[:]
    fixed.graph.input.extend(values)
    named: dict[str, int] = {}
    for value in fixed.graph.input:
        _fix_input(value, shapes.get(value.name), named)
    # The stored shapes are those of before, and sizes that have a name may occur in them.
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:
        for size in output.type.tensor_type.shape.dim:
            if size.dim_param in named:
                size.dim_value = named[size.dim_param]
    fix_output_shapes(fixed)
    return infer_shapes(fixed)


def _fix_input(value: onnx.ValueInfoProto, wanted: Sequence[int] | None, named: dict[str, int]) -> None:
    """named: sizes of the model's named dimensions as far as they are known; extended."""
    tensor = value.type.tensor_type
    remedy = f"give its shape, such as --shape {value.name}=1,3,224,224"
    if not tensor.HasField("shape"):
        if wanted is None:
            raise QuantizeError(f"input {value.name} has no shape in the model: {remedy}")
        for _ in wanted:
            tensor.shape.dim.add()
    sizes = list(tensor.shape.dim)
    text = _text(value)
    if wanted is not None and len(wanted) != len(sizes):
        raise QuantizeError(
            f"input {value.name} has {len(sizes)} dimensions, {text}, and the given shape has {len(wanted)}: "
            f"{'x'.join(map(str, wanted))}"
        )
    for index, size in enumerate(sizes):
        known = size.dim_value if size.HasField("dim_value") else named.get(size.dim_param)
        if wanted is not None:
            if wanted[index] < 1:
                raise QuantizeError(f"a size in the shape of input {value.name} must be 1 or more, not {wanted[index]}")
            if known and known != wanted[index]:
                raise QuantizeError(
                    f"dimension {index} of input {value.name} is {known} in the model and {wanted[index]} in the given "
                    "shape: leave the shape out, or export the model with a dynamic dimension"
                )
            known = wanted[index]
        if not known and index:
            title = f" ({size.dim_param})" if size.dim_param else ""
            raise QuantizeError(
                f"dimension {index}{title} of input {value.name}, {text}, is dynamic: "
                f"{remedy.removesuffix('1,3,224,224')}{_suggestion(value)} with numbers for ?"
            )
        if size.dim_param:
            named[size.dim_param] = known or 1
        size.dim_value = known or 1


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sizes of a tensor whose shape is fixed."""
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def _text(value: onnx.ValueInfoProto) -> str:
    sizes = value.type.tensor_type.shape.dim
    return "[" + ", ".join(str(size.dim_value) if size.dim_value else size.dim_param or "?" for size in sizes) + "]"


def _suggestion(value: onnx.ValueInfoProto) -> str:
    sizes = value.type.tensor_type.shape.dim
    return ",".join(
        str(size.dim_value) if size.dim_value else ("?" if index else "1") for index, size in enumerate(sizes)
    )


def _names(values: Sequence[onnx.ValueInfoProto]) -> str:
    return ", ".join(value.name for value in values) or "(none)"
