# SPDX-License-Identifier: Apache-2.0
"""Fusion of a convolution with the sum or product that alone uses its result."""

from dataclasses import replace

from loomwork.arch.config import Config
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Add, Combination, Convolution, Graph, Multiply
from loomwork.compiler.passes.uses import sole_producer


def fuse_combination(graph: Graph, config: Config) -> Graph:
    """Let the drain add the second operand to a convolution's result, or multiply it, which then never goes through
    the scratchpad.

    The fused layer takes the place of the sum or product, where both operands are there. What the configuration leaves
    out stays by itself.
    """
    there: dict[type[Combination], bool] = {Add: config.residual_add, Multiply: config.elementwise_multiply}
    layers = list(graph.layers)
    for combination in [layer for layer in layers if isinstance(layer, Combination) and there[type(layer)]]:
        if combination.input == combination.operand:
            continue
        candidates = [
            (layers.index(producer), producer)
            for name in (combination.input, combination.operand)
            if isinstance(producer := sole_producer(graph, layers, name), Convolution)
        ]
        if not candidates:
            continue
        # The later one: nothing in between has to keep its input for longer.
        index, convolution = max(candidates, key=lambda candidate: candidate[0])
        ordered = combination if convolution.output == combination.input else _swapped(combination)
        layers[layers.index(combination)] = FusedConvolution(
            name=convolution.name,
            operator=f"{convolution.operator} + {combination.operator}",
            input=convolution.input,
            output=combination.output,
            convolution=convolution,
            combination=ordered,
            operand=ordered.operand,
        )
        del layers[index]
    return replace(graph, layers=tuple(layers))


def _swapped(layer: Combination) -> Combination:
    """The same sum or product with its operands exchanged."""
    swapped = replace(
        layer, input=layer.operand, operand=layer.input, zero_input=layer.zero_operand, zero_operand=layer.zero_input
    )
    if not (isinstance(layer, Add) and isinstance(swapped, Add)):
        return swapped
    return replace(
        swapped,
        multiplier_input=layer.multiplier_operand,
        shift_input=layer.shift_operand,
        multiplier_operand=layer.multiplier_input,
        shift_operand=layer.shift_input,
    )
