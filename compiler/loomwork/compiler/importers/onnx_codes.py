# SPDX-License-Identifier: Apache-2.0
"""Which int8 numbers stand behind a tensor of an ONNX model.

A quantized model says with DequantizeLinear and QuantizeLinear how real tensors are stored. What only renames, reshapes
or transposes such a tensor computes nothing: it is another view of the same numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.onnx_model import Model, Node

Index = NDArray[np.int32]

EIGHT_BITS = ("int8", "uint8")


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """`real = scale * (stored - zero_point)`, the same for a whole tensor; zero_point as int8 stores it."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """A view of an 8-bit tensor.

    root: the tensor whose numbers these are. index: of the view's shape; each entry the number's position in the root
    (row-major). quantization: None where only the numbers count, not what they stand for. table: `[256]` int8, where
    each number is a function of the root's: its entry `number + 128`.
    """

    root: str
    index: Index
    quantization: Quantization | None
    table: NDArray[np.int8] | None = None


RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
"""Operators that leave the order of the numbers as it is."""
LAYOUTS = (*RESHAPES, "Transpose")
"""Operators that only look at the same numbers in another way."""


def seen_through(index: Index, node: Node, model: Model) -> Index:
    """What a layout operator makes of an index. Raises CompileError when the model states an impossible shape."""
    if node.op == "Transpose":
        return index.transpose(node.attributes.get("perm"))
    result = model.values[node.outputs[0]]
    if result.elements != index.size:
        raise CompileError(f"the model's shapes do not fit together: {node} makes {result.shape} of {index.shape}")
    return index.reshape(result.shape)


def is_layout(node: Node) -> bool:
    """Whether the operator leaves every number as it is."""
    return not node.domain and node.op in LAYOUTS and not any(node.outputs[1:])


class CodeFinder:
    """Finds what is behind each tensor of a model, each once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._found: dict[str, Codes | None] = {}

    def __call__(self, name: str) -> Codes | None:
        """The numbers behind a tensor, None when it is real and nothing quantized it, or is of another type."""
        if name not in self._found:
            # Chains of layout operators are short, so that recursion is not deep.
            self._found[name] = self._find(name)
        return self._found[name]

    def free(self, node: Node) -> bool:
        """Whether the operator computes nothing, because its result is a view of numbers that are there already."""
        if node.op == "DequantizeLinear" or is_layout(node):
            return self(node.outputs[0]) is not None
        if node.op == "QuantizeLinear":
            found = self(node.outputs[0])
            return found is not None and found.root != node.outputs[0]
        return False

    def quantization(self, node: Node) -> Quantization | None:
        """The constant per-tensor quantization of a QuantizeLinear or DequantizeLinear node, None for another one."""
        model = self._model
        stored = model.values[node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]]
        scale = model.data(node.inputs[1])
        zero = model.data(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros((), np.int64)
        if stored.dtype not in EIGHT_BITS or scale is None or scale.size != 1 or zero is None or zero.size != 1:
            return None
        value = float(scale.reshape(-1)[0])
        if not np.isfinite(value) or value <= 0:
            return None
        return Quantization(scale=value, zero_point=int(zero.reshape(-1)[0]) - offset(stored.dtype))

    def _find(self, name: str) -> Codes | None:
        model = self._model
        value, node = model.values.get(name), model.producers.get(name)
        if value is None or value.data is not None:
            return None
        if node is not None and node.op == "DequantizeLinear":
            behind, quantization = self(node.inputs[0]), self.quantization(node)
            if behind is None or quantization is None:
                return None
            return Codes(root=behind.root, index=behind.index, quantization=quantization)
        if node is not None and is_layout(node):
            behind = self(node.inputs[0])
            if behind is None:
                return None
            index = seen_through(behind.index, node, model)
            return Codes(root=behind.root, index=index, quantization=behind.quantization)
        if value.dtype not in EIGHT_BITS:
            return None
        if node is not None and node.op == "QuantizeLinear":
            behind, quantization = self(node.inputs[0]), self.quantization(node)
            same_type = behind is not None and model.values[behind.root].dtype == value.dtype
            if behind is not None and same_type and quantization is not None and behind.quantization == quantization:
                return Codes(root=behind.root, index=behind.index, quantization=quantization)
        return Codes(root=name, index=natural(value.shape), quantization=None)


def natural(shape: tuple[int, ...]) -> Index:
    """The index of a tensor that is its own root."""
    return np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int32).reshape(shape)


def offset(dtype: str) -> int:
    """What an unsigned code is lowered by to be stored as int8."""
    return 128 if dtype == "uint8" else 0


def root_quantizations(model: Model, find: CodeFinder) -> dict[str, Quantization]:
    """For each root, how its numbers are quantized, as far as an operator says so."""
    known: dict[str, Quantization] = {}
    for node in model.nodes:
        if node.op not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        stored = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
        quantization = None if model.values[stored].data is not None else find.quantization(node)
        found = find(stored)
        if quantization is not None and found is not None:
            known.setdefault(found.root, quantization)
    return known
