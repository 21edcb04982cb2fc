# SPDX-License-Identifier: Apache-2.0
"""A graph through compiler and golden model, compared with the definitions of its layers."""

import numpy as np

from loomwork.arch.config import Config
from loomwork.compiler.driver import compile_graph
from loomwork.compiler.graph import Graph
from loomwork.sim.golden import Golden
from loomwork.sim.memory import pack_inputs, unpack_outputs, window_bytes
from tests.compiler.random_graphs import GraphMaker
from tests.reference import run_graph


def check(maker: GraphMaker, graph: Graph, config: Config, *, fuse: bool = True) -> None:
    """Compile, run two random images, and compare every output."""
    values = maker.values(images=2)
    step, _ = compile_graph(graph, config, fuse=fuse)
    window = pack_inputs(step, values)
    outputs = unpack_outputs(step, Golden(config).run(step, window, window_bytes(step.outputs)))
    assert set(outputs) == set(graph.outputs)
    for image in range(2):
        expected = run_graph(graph, {name: value[image] for name, value in values.items()})
        for name, value in expected.items():
            np.testing.assert_array_equal(outputs[name][image].reshape(value.shape), value, err_msg=name)
