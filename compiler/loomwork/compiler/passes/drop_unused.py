# SPDX-License-Identifier: Apache-2.0
"""Layers whose results nobody reads."""

from dataclasses import replace

from loomwork.compiler.graph import Graph


def drop_unused(graph: Graph) -> Graph:
    """Remove every layer on which no output of the graph depends, and the maps that then nobody names."""
    needed = set(graph.outputs)
    for layer in reversed(graph.layers):
        if layer.output in needed:
            needed.update(layer.reads)
    layers = tuple(layer for layer in graph.layers if layer.output in needed)
    maps = {name: feature_map for name, feature_map in graph.maps.items() if name in needed or name in graph.inputs}
    return replace(graph, layers=layers, maps=maps)
