# SPDX-License-Identifier: Apache-2.0
"""Which image a tensor is, within one part of the network.

Reshapes are free as long as everyone in a part sees the same division into rows: rows lie in different banks of the
scratchpad. An operator that wants another one waits for the next part, which reads the tensor from external memory.
"""

from collections.abc import Mapping

from loomwork.compiler.graph import FeatureMap
from loomwork.compiler.importers.tflite_constraints import activations
from loomwork.compiler.importers.tflite_layers import image
from loomwork.compiler.importers.tflite_model import Operator, Tensor
from loomwork.compiler.importers.tflite_operators import BY_CODE
from loomwork.compiler.importers.tflite_shapes import operand
from loomwork.compiler.limits import MAX_KERNEL_HEIGHT

Shape = tuple[int, int, int]


class Views:
    """Feature maps of one accelerator part, by root tensor. root: for a tensor, the one behind its reshapes."""

    def __init__(self, root: Mapping[int, Tensor]) -> None:
        self._root = root
        self._maps: dict[int, FeatureMap] = {}

    def __call__(self, operator: Operator | Tensor) -> bool:
        """Whether the operator can join the part; notes its feature maps if so."""
        if not isinstance(operator, Operator):
            return False
        *sources, result = activations(operator)
        wanted = self._input_shape(operator, sources)
        if wanted is None:
            return False
        for tensor in sources:
            self._maps.setdefault(self._root[tensor.index].index, _feature_map(tensor, wanted))
        keeps_shape = BY_CODE[operator.code].any_shape and operator.code != "FULLY_CONNECTED"
        self._maps[result.index] = _feature_map(result, wanted if keeps_shape else image(result))
        return True

    def of(self, operator: Operator) -> tuple[tuple[FeatureMap, ...], FeatureMap]:
        """Feature maps that an operator of this part reads, and the one it writes."""
        *sources, result = (self._maps[self._root[tensor.index].index] for tensor in activations(operator))
        return tuple(sources), result

    def _input_shape(self, operator: Operator, sources: list[Tensor]) -> Shape | None:
        """The shape under which the operator reads its inputs, None when they are there under another one."""
        present = [self._maps[root] for t in sources if (root := self._root[t.index].index) in self._maps]
        shapes = {(found.height, found.width, found.channels) for found in present}
        own = image(sources[0])
        if _any_shape(operator):
            tall = any(height > MAX_KERNEL_HEIGHT for height, _, _ in shapes or {own})
            if operator.code == "FULLY_CONNECTED" and tall:
                return None if shapes else (1, 1, sources[0].elements)
            return None if len(shapes) > 1 else next(iter(shapes), own)
        zero_points = {found.zero_point for found in present}
        fits = shapes <= {own} and zero_points <= {_feature_map(sources[0], own).zero_point}
        return own if fits else None


def _any_shape(operator: Operator) -> bool:
    """Whether the operator takes its input in any division into rows."""
    if operator.code == "FULLY_CONNECTED" and operand(operator, 0).elements != operand(operator, 1).shape[1]:
        return False
    return BY_CODE[operator.code].any_shape


def _feature_map(tensor: Tensor, shape: Shape) -> FeatureMap:
    height, width, channels = shape
    return FeatureMap(
        name=tensor.name,
        height=height,
        width=width,
        channels=channels,
        zero_point=int(tensor.zero_point[0]) if len(tensor.zero_point) else 0,
    )
