# SPDX-License-Identifier: Apache-2.0
"""Fusion of tables with what alone makes or uses their values."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import INT8_MAX, INT8_MIN, requantize, to_int8
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Convolution, Graph, Layer, MaxPool, Rescale, Table
from loomwork.compiler.passes.uses import sole_producer

_VALUES = np.arange(INT8_MIN, INT8_MAX + 1)


def fuse_table(graph: Graph) -> Graph:
    """Let the drain look a convolution's result up, which then never goes through the scratchpad as it was.

    Tables and rescalings in a row become one table before. A table that never falls goes in front of a maximum pooling,
    where the convolution that it pools is: the greatest value has the greatest entry.
    """
    for step in (_compose, _before_pool, _into_convolution):
        while (changed := step(graph, graph.layers)) is not None:
            graph = changed
    return graph


def _compose(graph: Graph, layers: Sequence[Layer]) -> Graph | None:
    """Make one table of the first two layers in a row that are functions of one value; None when there are none."""
    for layer in layers:
        first = sole_producer(graph, layers, layer.input)
        if first is None or not (isinstance(layer, Table) or isinstance(first, Table)):
            continue
        inner, outer = _function(first), _function(layer)
        if inner is None or outer is None:
            continue
        composed = Table(
            name=layer.name,
            operator=f"{first.operator} + {layer.operator}",
            input=first.input,
            output=layer.output,
            table=outer[inner.astype(np.int64) - INT8_MIN],
        )
        return _replaced(graph, {id(layer): composed}, without=first)
    return None


def _function(layer: Layer) -> NDArray[np.int8] | None:
    """The 256 results of a layer that treats every value alike and by itself; None for another layer."""
    match layer:
        case Table():
            return layer.table
        case Rescale():
            rule = layer.requantize
            scaled = requantize(_VALUES + rule.bias, rule.multiplier, rule.shift, rule.rounding)
            return to_int8(scaled, rule.zero_point, rule.minimum, rule.maximum)
        case _:
            return None


def _before_pool(graph: Graph, layers: Sequence[Layer]) -> Graph | None:
    """Exchange a pooling of a convolution and the table behind it; None when there are none that can be."""
    for table in layers:
        pool = sole_producer(graph, layers, table.input)
        if (
            not isinstance(table, Table)
            or not isinstance(pool, MaxPool)
            or (np.diff(table.table.astype(int)) < 0).any()
        ):
            continue
        if not isinstance(sole_producer(graph, layers, pool.input), Convolution):
            continue
        # Between the two there is what the table makes of the convolution's result, in a map of its own.
        between = replace(graph.maps[pool.input], name=table.input, zero_point=graph.maps[table.output].zero_point)
        clamped = table.table[np.clip(_VALUES, pool.minimum, pool.maximum) - INT8_MIN]
        earlier = replace(table, input=pool.input, output=between.name, table=clamped)
        later = replace(pool, input=between.name, output=table.output, minimum=INT8_MIN, maximum=INT8_MAX)
        changed = _replaced(graph, {id(pool): earlier, id(table): later})
        return replace(changed, maps={**changed.maps, between.name: between})
    return None


def _into_convolution(graph: Graph, layers: Sequence[Layer]) -> Graph | None:
    """Fuse the first table with the convolution that makes its input; None when there is none such."""
    for table in layers:
        convolution = sole_producer(graph, layers, table.input)
        if isinstance(table, Table) and isinstance(convolution, Convolution):
            fused = FusedConvolution(
                name=convolution.name,
                operator=f"{convolution.operator} + {table.operator}",
                input=convolution.input,
                output=table.output,
                convolution=convolution,
                table=table.table,
            )
            return _replaced(graph, {id(table): fused}, without=convolution)
    return None


def _replaced(graph: Graph, changed: dict[int, Layer], without: Layer | None = None) -> Graph:
    """The graph with other layers in the place of some, by their identity, and without one."""
    return replace(graph, layers=tuple(changed.get(id(layer), layer) for layer in graph.layers if layer is not without))
