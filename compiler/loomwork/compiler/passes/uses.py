# SPDX-License-Identifier: Apache-2.0
"""Who makes and who reads a feature map."""

from collections.abc import Sequence

from loomwork.compiler.graph import Graph, Layer


def sole_producer(graph: Graph, layers: Sequence[Layer], name: str) -> Layer | None:
    """The layer that makes map `name`, when just one place reads it and it is not an output of the graph."""
    readers = sum(layer.reads.count(name) for layer in layers)
    if readers != 1 or name in graph.outputs:
        return None
    return next((layer for layer in layers if layer.output == name), None)
