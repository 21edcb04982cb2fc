# SPDX-License-Identifier: Apache-2.0
"""Tensors that get the same scale: what Concat joins, and what pooling and reshaping leave as it is."""

from collections.abc import Mapping

import onnx

from loomwork.compiler.quantization.operators import keeps_scale

Range = tuple[float, float]
"""Lowest and highest value that a tensor is quantized for."""


def share_ranges(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Give all tensors that are joined by operators which keep the scale the union of their ranges.

    What such an operator makes has no range of its own: it repeats the values it reads. ranges: of float tensors.
    """
    parent = {name: name for name in ranges}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    copies: set[str] = set()
    for node in model.graph.node:
        if not keeps_scale(node):
            continue
        read = [name for name in (node.input if node.op_type == "Concat" else node.input[:1]) if name in ranges]
        made = [name for name in node.output if name in ranges]
        if not read:
            continue
        copies.update(made)
        for name in (*read[1:], *made):
            parent[root(name)] = root(read[0])
    union: dict[str, Range] = {}
    for name, (low, high) in ranges.items():
        if name not in copies:
            lowest, highest = union.get(root(name), (low, high))
            union[root(name)] = (min(low, lowest), max(high, highest))
    return {name: union.get(root(name), own) for name, own in ranges.items()}
