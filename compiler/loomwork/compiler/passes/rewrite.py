# SPDX-License-Identifier: Apache-2.0
"""Questions and edits that passes share."""

from dataclasses import replace

from loomwork.compiler.graph import Graph, Layer


def consumers(graph: Graph, name: str) -> list[Layer]:
    """Layers that read a feature map."""
    return [layer for layer in graph.layers if name in layer.reads]


def remove_map(graph: Graph, name: str) -> Graph:
    """The graph without a feature map that no layer reads or writes any more."""
    return replace(graph, maps={key: value for key, value in graph.maps.items() if key != name})
