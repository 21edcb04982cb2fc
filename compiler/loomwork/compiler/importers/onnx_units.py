# SPDX-License-Identifier: Apache-2.0
"""Operators between quantized tensors: what an accelerator can take over as one.

In a QDQ model such an operator reads DequantizeLinear, and its result goes through at most a few clamps and reshapes
into QuantizeLinear. On tensors of int8 some operators (MaxPool, Concat, Slice) work directly.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.onnx_codes import (
    EIGHT_BITS,
    CodeFinder,
    Codes,
    Index,
    Quantization,
    is_layout,
    natural,
    seen_through,
)
from loomwork.compiler.importers.onnx_model import Array, Model, Node


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """One quantized operator.

    node: the operator. follow: what goes between its result and `output` and belongs to it (clamps, reshapes,
    QuantizeLinear). sources: the quantized tensors it reads, None in the place of constants. output: the 8-bit
    tensor it computes; result_index: for every position of `output`, the position in the operator's own result.
    low, high: clamp in real numbers. quantization: of the output, None where numbers are taken over as they are.
    """

    model: Model
    node: Node
    follow: tuple[Node, ...]
    sources: tuple[Codes | None, ...]
    output: str
    result_index: Index
    quantization: Quantization | None
    low: float = -math.inf
    high: float = math.inf

    @property
    def name(self) -> str:
        """Name of the operator's result, which no other operator has."""
        return self.node.name

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All operators that it stands for."""
        return (self.node, *self.follow)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the operator's own result."""
        return self.model.values[self.node.outputs[0]].shape

    @property
    def read(self) -> tuple[Codes, ...]:
        """The quantized tensors it reads."""
        return tuple(source for source in self.sources if source is not None)

    def shape(self, position: int) -> tuple[int, ...]:
        """Shape of an input."""
        return self.model.values[self.node.inputs[position]].shape

    def has(self, position: int) -> bool:
        """Whether an optional input is there."""
        return position < len(self.node.inputs) and bool(self.node.inputs[position])

    def constant(self, position: int) -> Array | None:
        """An input's numbers when they are constant: real ones, even where they are stored quantized."""
        return real_constant(self.model, self.node.inputs[position]) if self.has(position) else None

    def stored(self, position: int) -> "StoredWeights | None":
        """An input that is a constant stored quantized, None for another one."""
        return stored_weights(self.model, self.node.inputs[position]) if self.has(position) else None

    def __str__(self) -> str:
        return str(self.node)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeights:
    """Quantized constants: `real = scale * stored`, zero points already taken off.

    stored: int64, of the tensor's shape. scale: one value, or one per index of `axis`.
    """

    stored: Array
    scale: Array
    axis: int


def stored_weights(model: Model, name: str) -> StoredWeights | None:
    """The numbers behind a DequantizeLinear of a constant, seen through reshapes and transposes of it."""
    value, node = model.values[name], model.producers.get(name)
    if node is None:
        return None
    if node.op == "Transpose":
        below = stored_weights(model, node.inputs[0])
        if below is None:
            return None
        perm = node.attributes.get("perm") or list(range(below.stored.ndim))[::-1]
        return StoredWeights(
            stored=below.stored.transpose(perm), scale=below.scale, axis=perm.index(below.axis % below.stored.ndim)
        )
    if is_layout(node):
        below = stored_weights(model, node.inputs[0])
        return (
            None
            if below is None or below.scale.size > 1
            else StoredWeights(stored=below.stored.reshape(value.shape), scale=below.scale, axis=0)
        )
    if node.op != "DequantizeLinear":
        return None
    data, scale = model.data(node.inputs[0]), model.data(node.inputs[1])
    zero = model.data(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros((), np.int64)
    if (
        data is None
        or scale is None
        or zero is None
        or data.dtype.kind not in "iu"
        or node.attributes.get("block_size")
    ):
        return None
    axis = int(node.attributes.get("axis", 1))
    axis = axis % data.ndim if data.ndim else 0
    if scale.size > 1:
        shape = [1] * data.ndim
        shape[axis] = scale.size
        zero = zero.astype(np.int64).reshape(shape if zero.size > 1 else ())
    return StoredWeights(
        stored=data.astype(np.int64) - zero.astype(np.int64).reshape(zero.shape if zero.size > 1 else ()),
        scale=scale.astype(np.float32).reshape(-1),
        axis=axis,
    )


def real_constant(model: Model, name: str) -> Array | None:
    """A constant in real numbers, or integers as they are; None for what is computed."""
    data = model.data(name)
    if data is not None:
        return data
    weights = stored_weights(model, name)
    if weights is None:
        return None
    shape = [1] * weights.stored.ndim
    if weights.scale.size > 1:
        shape[weights.axis] = weights.scale.size
    return weights.stored.astype(np.float32) * weights.scale.reshape(shape if weights.scale.size > 1 else ())


def find_unit(model: Model, node: Node, find: CodeFinder) -> "Unit | str":
    """The unit whose operator is `node`, or else why it is none."""
    sources: list[Codes | None] = []
    for name in node.inputs:
        source = find(name) if name else None
        if name and source is None and not _constant(model, name):
            kind = model.values[name].dtype
            return f"its input {name!r} is {kind}, not quantized to 8 bits"
        sources.append(source)
    if not any(sources):
        return "all it reads is constant"
    if len([name for name in node.outputs if name]) > 1:
        return "it has several results"
    result = node.outputs[0]
    if model.values[result].dtype in EIGHT_BITS:
        return Unit(
            model=model,
            node=node,
            follow=(),
            sources=tuple(sources),
            output=result,
            result_index=natural(model.values[result].shape),
            quantization=find.quantization(node) if node.op == "QuantizeLinear" else None,
        )
    return _followed(model, node, find, tuple(sources))


def copy_of_view(model: Model, node: Node, view: Codes, output: str) -> Unit:
    """A unit whose result `output` holds the numbers of a view in an order of its own.

    node: the layout operator that it stands for in messages.
    """
    return Unit(
        model=model,
        node=replace(node, op="Transpose", outputs=(output,), inputs=(node.inputs[0],)),
        follow=(),
        sources=(view,),
        output=output,
        result_index=natural(view.index.shape),
        quantization=view.quantization,
    )


def stretched(unit: Unit) -> Unit:
    """The unit, with every source as a view of its result's shape: what is smaller is read again and again.

    Raises CompileError when the model states an impossible shape.
    """
    shape = unit.result_shape
    try:
        made = np.broadcast_shapes(*(source.index.shape for source in unit.read))
    except ValueError:
        made = None
    if made != shape:
        shapes = " and ".join(str(source.index.shape) for source in unit.read)
        raise CompileError(f"the model's shapes do not fit together: {unit} makes {shape} of {shapes}")
    return replace(
        unit,
        sources=tuple(
            replace(source, index=np.broadcast_to(source.index, shape)) if source is not None else None
            for source in unit.sources
        ),
    )


def _constant(model: Model, name: str) -> bool:
    return model.data(name) is not None or stored_weights(model, name) is not None


def _followed(model: Model, node: Node, find: CodeFinder, sources: tuple[Codes | None, ...]) -> "Unit | str":
    """Walk from a real result through clamps and reshapes to where it is quantized."""
    follow: list[Node] = []
    name = node.outputs[0]
    index, low, high = natural(model.values[name].shape), -math.inf, math.inf
    while True:
        readers = model.consumers.get(name, ())
        if name in model.outputs or len(readers) != 1:
            return f"its result {name!r} is wanted as {model.values[name].dtype}, not only quantized to 8 bits"
        (reader,) = readers
        if reader.op == "QuantizeLinear":
            quantization = find.quantization(reader)
            if quantization is None:
                return "its result is quantized to another type than 8 bits, or by several or computed scales"
            return Unit(
                model=model,
                node=node,
                follow=(*follow, reader),
                sources=sources,
                output=reader.outputs[0],
                result_index=index,
                quantization=quantization,
                low=low,
                high=high,
            )
        clamp = clamp_bounds(model, reader)
        if clamp is not None:
            low, high = min(max(low, clamp[0]), clamp[1]), max(min(high, clamp[1]), clamp[0])
        elif is_layout(reader):
            index = seen_through(index, reader, model)
        else:
            return f"its result goes to {reader} as {model.values[name].dtype}, without being quantized"
        follow.append(reader)
        name = reader.outputs[0]


def clamp_bounds(model: Model, node: Node) -> tuple[float, float] | None:
    """The bounds of Relu or of a Clip with constant bounds, None for another operator."""
    if node.op == "Relu":
        return 0.0, math.inf
    if node.op != "Clip":
        return None
    bounds = [-math.inf, math.inf]
    for position in (1, 2):
        if position < len(node.inputs) and node.inputs[position]:
            data = real_constant(model, node.inputs[position])
            if data is None or data.size != 1:
                return None
            bounds[position - 1] = float(data.reshape(-1)[0])
    return (bounds[0], bounds[1]) if bounds[0] <= bounds[1] else (bounds[1], bounds[1])
