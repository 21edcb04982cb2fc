# SPDX-License-Identifier: Apache-2.0
"""Layers whose results nobody reads are removed, and no others."""

from dataclasses import replace

import numpy as np

from loomwork.compiler.graph import FeatureMap, Graph, Table
from loomwork.compiler.passes.drop_unused import drop_unused
from loomwork.compiler.verify import verify


def table(source: str, result: str) -> Table:
    return Table(name=result, operator="TANH", input=source, output=result, table=np.arange(-128, 128).astype(np.int8))


def feature_map(name: str) -> FeatureMap:
    return FeatureMap(name=name, height=2, width=3, channels=4, zero_point=0)


def test_a_branch_that_no_output_depends_on_goes_with_its_maps() -> None:
    names = ("x", "kept", "y", "dead", "deader")
    graph = Graph(
        maps={name: feature_map(name) for name in names},
        layers=(table("x", "kept"), table("kept", "dead"), table("dead", "deader"), table("kept", "y")),
        inputs=("x",),
        outputs=("y",),
    )
    found = drop_unused(graph)
    verify(found)
    assert [layer.output for layer in found.layers] == ["kept", "y"]
    assert set(found.maps) == {"x", "kept", "y"}
    everything = replace(graph, outputs=("y", "deader"))
    assert drop_unused(everything) == everything
