# SPDX-License-Identifier: Apache-2.0
"""Passes: exact simplifications of a graph, one file each, checked by `verify` after each."""

from loomwork.compiler.graph import Graph
from loomwork.compiler.passes.drop_unused import drop_unused
from loomwork.compiler.passes.fold_pad import fold_pad
from loomwork.compiler.passes.fuse_clamp import fuse_clamp
from loomwork.compiler.verify import verify

PASSES = (drop_unused, fold_pad, fuse_clamp)


def simplify(graph: Graph) -> Graph:
    """Run all passes in order. Raises VerifyError when the graph, or what a pass makes of it, is not sound."""
    verify(graph)
    for step in PASSES:
        graph = step(graph)
        verify(graph)
    return graph
