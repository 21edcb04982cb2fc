# SPDX-License-Identifier: Apache-2.0
"""Block pruning of an ONNX model: the weakest weight tiles become zero, without training after it.

Operators: https://onnx.ai/onnx/operators/.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.tiles import (
    Scope,
    TileCount,
    TiledWeights,
    check_sparsity,
    convolution_tiles,
    count_tiles,
    dense_tiles,
    smallest_tiles,
)
from loomwork.compiler.torch_extra import require_onnx

if TYPE_CHECKING:
    import onnx

_ELEMENTWISE = frozenset(("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "Dropout", "Identity", "Cast"))
"""What may stand between a flattened feature map and a dense layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Weights:
    """A constant and how its elements lie in tiles."""

    tensor: "onnx.TensorProto"
    values: NDArray[np.floating]
    tiles: NDArray[np.int64]

    @property
    def tiled(self) -> TiledWeights:
        return TiledWeights(name=self.tensor.name, weights=self.values, tiles=self.tiles)


def prune_onnx_blocks(
    model: "onnx.ModelProto",
    sparsity: float,
    config: Config,
    *,
    scope: Scope = "network",
    ignored: Collection[str] = (),
) -> "onnx.ModelProto":
    """Set the weakest `sparsity` of the weight tiles of a float model to zero; returns a new model.

    Conv without groups, Gemm and MatMul whose weights are constants of the model (initializers) are pruned. scope: see
    `Scope`. ignored: names of weights to leave alone.

    Raises CompileError when onnx is missing, sparsity is not in [0, 1), a name in `ignored` is unknown, weights are not
    finite, or there is nothing to prune.
    """
    require_onnx()
    import onnx
    from onnx import numpy_helper

    check_sparsity(sparsity)
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    found = list(_weights(pruned, config))
    names = [weights.tensor.name for weights in found]
    if unknown := [name for name in ignored if name not in names]:
        raise CompileError(f"there are no weights {unknown[0]!r} to leave alone; the weights are {', '.join(names)}")
    chosen = [weights for weights in found if weights.tensor.name not in ignored]
    if not chosen:
        raise CompileError(
            f"model {model.graph.name!r} has no layer to prune: it needs a Conv without groups, a Gemm or a MatMul "
            "with float weights among its initializers; a quantized model has to be pruned before quantization"
        )
    for weights, keep in zip(chosen, smallest_tiles([w.tiled for w in chosen], sparsity, scope), strict=True):
        zeroed = np.where(keep, weights.values, 0).astype(weights.values.dtype)
        weights.tensor.CopyFrom(numpy_helper.from_array(zeroed, weights.tensor.name))
    return pruned


def count_onnx_tiles(model: "onnx.ModelProto", config: Config) -> list[TileCount]:
    """The tiles of each of the model's weights that block pruning would take, and how many of them are zero."""
    require_onnx()
    return [count_tiles(weights.tiled) for weights in _weights(model, config)]


def _weights(model: "onnx.ModelProto", config: Config) -> Iterator[_Weights]:
    """Each constant that is the weights of a layer, in the order of the nodes; one that several share comes once."""
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    shapes = _shapes(model)
    seen: set[str] = set()
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2:
            continue
        tensor = constants.get(node.input[1])
        if tensor is None or tensor.name in seen:
            continue
        values = numpy_helper.to_array(tensor)
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if values.dtype.kind != "f" or values.ndim != (4 if node.op_type == "Conv" else 2):
            continue
        if not np.isfinite(values).all():
            raise CompileError(f"weights {tensor.name!r} hold values that are not finite; train the network again")
        if node.op_type == "Conv":
            if "group" in attributes and attributes["group"].i != 1:
                continue
            outputs, inputs, height, width = values.shape
            rows, columns = attributes["dilations"].ints if "dilations" in attributes else (1, 1)
            tiles = convolution_tiles((outputs, inputs, height, width), config, (rows, columns))
        else:
            transposed = node.op_type == "Gemm" and "transB" in attributes and attributes["transB"].i == 1
            outputs, inputs = values.shape if transposed else values.shape[::-1]
            flattened = _flattened(node.input[0], makers, shapes, inputs)
            tiles = dense_tiles(outputs, inputs, config, flattened)
            tiles = tiles if transposed else tiles.T
        seen.add(tensor.name)
        yield _Weights(tensor=tensor, values=values, tiles=tiles)


def _flattened(
    name: str, makers: dict[str, Any], shapes: dict[str, tuple[int, ...]], inputs: int
) -> tuple[int, int, int] | None:
    """Channels, height and width of the feature map that a tensor has in rows, or None if it is not such a tensor."""
    node = makers.get(name)
    while node is not None and node.op_type in _ELEMENTWISE:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in ("Flatten", "Reshape"):
        return None
    shape = shapes.get(node.input[0], ())
    if len(shape) != 4 or shape[1] * shape[2] * shape[3] != inputs:
        return None
    return shape[1], shape[2], shape[3]


def _shapes(model: "onnx.ModelProto") -> dict[str, tuple[int, ...]]:
    """The shape of each tensor as far as ONNX can infer it; 0 where an extent is not known."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
