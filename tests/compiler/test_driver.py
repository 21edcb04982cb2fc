"""Graphs through the whole compiler and the golden model, against the definitions of their layers."""

import numpy as np
import pytest
from tests.compiler.graph_reference import execute
from tests.compiler.random_graphs import GraphMaker, random_graph

from loomwork.arch.config import BASE, FORMAL, LARGE, MID, NANO, SMALL, TINY, Config
from loomwork.compiler.driver import compile_graph
from loomwork.compiler.graph import AveragePool, Graph, MaxPool
from loomwork.sim.golden import Golden
from loomwork.sim.memory import pack_inputs, unpack_outputs, window_bytes

ODD = Config(
    name="odd", rows=8, cols=4, scratchpad_kib=64, accumulator_depth=16, bus_bytes=4, requant_lanes=1, stream_beats=32
)
ROOMY_FORMAL = Config(
    name="roomy", rows=2, cols=2, scratchpad_kib=128, accumulator_depth=16, bus_bytes=2, requant_lanes=2
)
CONFIGS = (ROOMY_FORMAL, NANO, SMALL, MID, BASE, LARGE, ODD)


def check(maker: GraphMaker, graph: Graph, config: Config, *, fuse: bool = True) -> bytes:
    """Compile, run and compare all outputs; returns the commands."""
    images = 2
    values = maker.values(images)
    step, _ = compile_graph(graph, config, fuse=fuse)
    window = pack_inputs(step, values)
    outputs = unpack_outputs(step, Golden(config).run(step, window, window_bytes(step.outputs)))
    for name, expected in execute(graph, values).items():
        np.testing.assert_array_equal(outputs[name].reshape(expected.shape), expected, err_msg=name)
    return step.commands


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_exact(seed: int, config: Config) -> None:
    maker = random_graph(seed, layers=6)
    check(maker, maker.graph(*list(maker.maps)[-2:]), config)
