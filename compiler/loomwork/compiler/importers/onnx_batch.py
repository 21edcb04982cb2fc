# SPDX-License-Identifier: Apache-2.0
"""A model of a fixed batch as a model of one image, where every operator treats each image by itself.

Operators of which that is known are listed here; a model with any other one stays a batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A node and what is known of the tensors that it reads. batched: whose first dimension counts images."""

    node: onnx.NodeProto
    batched: frozenset[str]
    constants: Mapping[str, Array]
    ranks: Mapping[str, int]

    def attribute(self, name: str, default: Any) -> Any:
        found = next((entry for entry in self.node.attribute if entry.name == name), None)
        return default if found is None else helper.get_attribute_value(found)

    def constant(self, position: int) -> Array | None:
        """An input's numbers, None for one that is absent or not constant."""
        inputs = self.node.input
        return self.constants.get(inputs[position]) if position < len(inputs) and inputs[position] else None

    def axis(self, default: int) -> int:
        """The attribute `axis`, counted from the front."""
        return int(self.attribute("axis", default)) % max(self.ranks[self.node.input[0]], 1)

    def axes(self, position: int) -> list[int] | None:
        """Dimensions from an input or, in older models, an attribute; counted from the front."""
        given = self.constant(position)
        values = self.attribute("axes", None) if given is None else given.reshape(-1).tolist()
        rank = self.ranks[self.node.input[0]]
        return (
            None if values is None else [int(value) % (rank + (self.node.op_type == "Unsqueeze")) for value in values]
        )


_Test = Callable[[_Read], bool]
"""Whether the node treats each image by itself and its results begin with the batch, too."""


def _first_only(read: _Read) -> bool:
    return all(name not in read.batched for name in read.node.input[1:]) and not read.attribute("training_mode", 0)


def _per_number(read: _Read) -> bool:
    """Broadcasting lines dimensions up at the back: a constant must not have the batch's, unless it is 1."""
    rank = max(read.ranks[name] for name in read.node.input if name)
    for name in read.node.input:
        if name in read.batched and read.ranks[name] != rank:
            return False
        if name in read.constants and read.constants[name].ndim == rank and read.constants[name].shape[:1] != (1,):
            return False
    return True


def _quantization(read: _Read) -> bool:
    scale = read.constant(1)
    return scale is not None and not read.attribute("block_size", 0) and (scale.size == 1 or read.axis(1) != 0)


def _matrix(position: int) -> _Test:
    def check(read: _Read) -> bool:
        matrix = read.constant(position)
        # QLinearMatMul may have a scale for each row, MatMulInteger a zero point.
        of_rows = [read.constant(place) for place in ((1, 2, 6, 7) if position == 3 else (2,))]
        if any(data is not None and data.size > 1 for data in of_rows):
            return False
        return matrix is not None and matrix.ndim == 2 and read.ranks[read.node.input[0]] >= 2

    return check


def _gemm(read: _Read) -> bool:
    bias = read.constant(2)
    rows = bias is not None and bias.ndim == 2 and bias.shape[0] != 1
    return _first_only(read) and not read.attribute("transA", 0) and not rows


def _other_axes(position: int) -> _Test:
    def check(read: _Read) -> bool:
        axes = read.axes(position)
        return axes is not None and len(axes) > 0 and 0 not in axes and _first_only(read)

    return check


def _axis(default: int) -> _Test:
    return lambda read: read.axis(default) != 0


def _pad(read: _Read) -> bool:
    pads = read.constant(1)
    if pads is None or (len(read.node.input) > 3 and read.node.input[3]):
        return False
    return pads[0] == 0 and pads[len(pads) // 2] == 0


def _reshape(read: _Read) -> bool:
    shape = read.constant(1)
    return shape is not None and shape.size > 0 and int(shape[0]) == 0 and not read.attribute("allowzero", 0)


def _transpose(read: _Read) -> bool:
    perm = read.attribute("perm", None)
    return perm is not None and perm[0] == 0


_TESTS: dict[str, _Test] = {
    **dict.fromkeys(
        (
            *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"),
            *(
                "GlobalMaxPool",
                "GlobalAveragePool",
                "GlobalLpPool",
                "BatchNormalization",
                "InstanceNormalization",
                "LRN",
            ),
            *("DepthToSpace", "SpaceToDepth", "Identity", "Dropout", "Cast", "Relu", "Clip", "LeakyRelu", "Sigmoid"),
            *(
                "HardSwish",
                "HardSigmoid",
                "Tanh",
                "Gelu",
                "Elu",
                "Celu",
                "Selu",
                "Mish",
                "Softplus",
                "Softsign",
                "Swish",
            ),
            *("Abs", "Neg", "Exp", "Log", "Sqrt", "Erf", "Floor", "Ceil", "Round", "Sign", "Reciprocal"),
            "ThresholdedRelu",
        ),
        _first_only,
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu"), _per_number),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantization),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Squeeze", "Unsqueeze"), _other_axes(1)),
    "MatMul": _matrix(1),
    "MatMulInteger": _matrix(1),
    "QLinearMatMul": _matrix(3),
    "Gemm": _gemm,
    "Slice": _other_axes(3),
    "Softmax": _axis(-1),
    "LogSoftmax": _axis(-1),
    "Concat": lambda read: read.axis(0) != 0 and not any(name in read.constants for name in read.node.input),
    "Split": _axis(0),
    "Flatten": lambda read: int(read.attribute("axis", 1)) == 1,
    "Pad": _pad,
    "Reshape": _reshape,
    "Transpose": _transpose,
}


def for_one_image(model: onnx.ModelProto) -> onnx.ModelProto | str:
    """The same network for a batch of 1, or why it is not the same. `model` stays as it is.

    The model's inputs must all have the same fixed first dimension, and every operator must be one of which it is known
    that it computes each image without the others. Then the model's result for a batch is that of this one, image by
    image.
    """
    batch = _batch(model)
    if isinstance(batch, str):
        return batch
    reason = _mixing(model)
    if reason is not None:
        return reason
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    for value in result.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    result = shape_inference.infer_shapes(result, data_prop=True)
    for value, whole in zip(result.graph.output, model.graph.output, strict=True):
        one, all_ = _shape(value), _shape(whole)
        if not one or one != [1, *all_[1:]] or all_[0] != batch:
            return f"its output {value.name!r} does not begin with the batch"
    return result


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _batch(model: onnx.ModelProto) -> int | str:
    shapes = [_shape(value) for value in model.graph.input]
    sizes = {shape[0] if len(shape) > 1 else 0 for shape in shapes}
    if len(sizes) != 1 or min(sizes) < 1:
        return "its inputs do not begin with one common batch"
    return sizes.pop()


def _mixing(model: onnx.ModelProto) -> str | None:
    """The first operator that is not known to treat each image by itself."""
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    graph = inferred.graph
    constants: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ranks = {name: data.ndim for name, data in constants.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        ranks[value.name] = len(value.type.tensor_type.shape.dim)
    batched = {value.name for value in graph.input}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            ranks[node.output[0]] = constants[node.output[0]].ndim
            continue
        read = [name for name in node.input if name]
        if read and all(name in constants for name in read) and node.op_type == "DequantizeLinear":
            # Only its shape counts here.
            constants[node.output[0]] = np.zeros(constants[node.input[0]].shape, np.float32)
            ranks[node.output[0]] = constants[node.output[0]].ndim
            continue
        known = bool(read) and all((name in constants or name in batched) and name in ranks for name in read)
        # The positions that MaxPool returns count through the whole batch.
        known = known and (node.op_type == "Split" or len([name for name in node.output if name]) == 1)
        test = _TESTS.get(node.op_type) if not node.domain else None
        facts = _Read(node=node, batched=frozenset(batched), constants=constants, ranks=ranks)
        if test is None or not known or not test(facts):
            return f"{node.op_type} {node.output[0]!r} is not known to treat each image of a batch by itself"
        batched.update(name for name in node.output if name)
    return None
