# SPDX-License-Identifier: Apache-2.0
"""Fusion of a convolution with the ADD that alone uses its result."""

from dataclasses import replace

from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Add, Convolution, Graph
from loomwork.compiler.passes.uses import sole_producer


def fuse_add(graph: Graph) -> Graph:
    """Let the drain add the second operand to a convolution's result, which then never goes through the scratchpad.

    The fused layer takes the place of the ADD, where both operands are there.
    """
    layers = list(graph.layers)
    for add in [layer for layer in layers if isinstance(layer, Add) and layer.input != layer.operand]:
        candidates = [
            (layers.index(producer), producer)
            for name in (add.input, add.operand)
            if isinstance(producer := sole_producer(graph, layers, name), Convolution)
        ]
        if not candidates:
            continue
        # The later one: nothing in between has to keep its input for longer.
        index, convolution = max(candidates, key=lambda candidate: candidate[0])
        ordered = add if convolution.output == add.input else _swapped(add)
        layers[layers.index(add)] = FusedConvolution(
            name=convolution.name,
            operator=f"{convolution.operator} + {add.operator}",
            input=convolution.input,
            output=add.output,
            convolution=convolution,
            add=ordered,
            operand=ordered.operand,
        )
        del layers[index]
    return replace(graph, layers=tuple(layers))


def _swapped(add: Add) -> Add:
    """The same sum with its operands exchanged."""
    return replace(
        add,
        input=add.operand,
        operand=add.input,
        multiplier_input=add.multiplier_operand,
        shift_input=add.shift_operand,
        zero_input=add.zero_operand,
        multiplier_operand=add.multiplier_input,
        shift_operand=add.shift_input,
        zero_operand=add.zero_input,
    )
