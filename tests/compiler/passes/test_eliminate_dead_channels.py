# SPDX-License-Identifier: Apache-2.0
"""Dead channels go, exactly these, and no output bit changes: against the definitions of the layers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loomwork.arch.config import BASE, SMALL, Config
from loomwork.arch.numerics import INT32_MAX, INT32_MIN
from loomwork.compiler.graph import AveragePool, Convolution, Graph, MaxPool
from loomwork.compiler.passes.eliminate_dead_channels import eliminate_dead_channels
from loomwork.compiler.verify import verify
from tests.compiler.execution import check
from tests.compiler.random_graphs import GraphMaker, random_graph
from tests.reference import run_graph


class EvenMaker(GraphMaker):
    """Without random clamps, and every map with the same zero point."""

    ZERO_POINT = 7

    def __init__(self) -> None:
        super().__init__(seed=5)
        self.clamps = [(-128, 127)] * 40

    def _map(self, height: int, width: int, channels: int, zero_point: int | None = None) -> str:
        return super()._map(height, width, channels, self.ZERO_POINT if zero_point is None else zero_point)


def kernel_of(made: GraphMaker, output: str) -> Convolution:
    (layer,) = (layer for layer in made.layers if layer.output == output)
    assert isinstance(layer, Convolution)
    return layer


def kill(made: GraphMaker, output: str, channels: Sequence[int], value: int) -> None:
    """Make the filters of some output channels of a convolution zero, and the channels' constant `value`."""
    layer = kernel_of(made, output)
    kernel, rule = layer.kernel.copy(), layer.requantize
    kernel[..., list(channels)] = 0
    multiplier, shift, bias = (
        np.broadcast_to(v, kernel.shape[3]).copy() for v in (rule.multiplier, rule.shift, rule.bias)
    )
    # Q31 times two: the identity, so that bias and zero point are the value.
    multiplier[channels], shift[channels], bias[channels] = 1 << 30, 1, value - rule.zero_point
    changed = replace(rule, multiplier=multiplier, shift=shift, bias=bias)
    made.layers[made.layers.index(layer)] = replace(layer, kernel=kernel, requantize=changed)


def mute(made: GraphMaker, output: str, inputs: Sequence[int], outputs: Sequence[int] | None = None) -> None:
    """Make some output channels of a dense convolution, all when absent, ignore some input channels."""
    layer = kernel_of(made, output)
    kernel = layer.kernel.copy()
    kernel[:, :, np.array(inputs)[:, np.newaxis], range(kernel.shape[3]) if outputs is None else outputs] = 0
    made.layers[made.layers.index(layer)] = replace(layer, kernel=kernel)


def eliminated(made: GraphMaker, graph: Graph, images: int = 3) -> Graph:
    """The graph after the pass, which computes what the graph before it computes."""
    verify(graph)
    result = eliminate_dead_channels(graph)
    verify(result)
    assert [layer.name for layer in result.layers] == [layer.name for layer in graph.layers]
    values = made.values(images)
    for image in range(images):
        inputs = {name: value[image] for name, value in values.items()}
        before, after = run_graph(everything(graph), inputs), run_graph(everything(result), inputs)
        for name in graph.outputs:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        for name, value in after.items():
            # Inside, what is left is what was there: its channels are found among the old ones in their order.
            old = iter(np.moveaxis(before[name], 2, 0))
            for channel in np.moveaxis(value, 2, 0):
                assert any(np.array_equal(channel, candidate) for candidate in old), name
    return result


def everything(graph: Graph) -> Graph:
    """The same with every computed map as an output."""
    return replace(graph, outputs=tuple(layer.output for layer in graph.layers))


def widths(graph: Graph) -> list[int]:
    return [m.channels for m in graph.maps.values()]


@pytest.mark.parametrize("value", [7, -128, 90])
def test_a_constant_goes_into_the_bias_behind_it(value: int) -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, pad=(1, 1))
    kill(made, hidden, [1, 4], value)
    graph = made.graph(made.convolution(hidden, 4, kernel=(3, 2)))
    assert widths(eliminated(made, graph)) == [3, 4, 4]


@pytest.mark.parametrize(
    "window",
    [
        {"pad": (1, 0), "kernel": (2, 1), "size": (5, 5)},
        {"pad": (0, 1), "kernel": (1, 2), "size": (5, 5)},
        {"kernel": (2, 1), "size": (5, 5)},
        {"kernel": (1, 2), "size": (5, 5)},
        {"kernel": (1, 3), "size": (5, 2), "stride": (1, 3), "dilation": (1, 1)},
        {"kernel": (2, 2), "size": (2, 4), "stride": (2, 1), "dilation": (3, 1)},
    ],
)
def test_behind_padding_only_the_zero_point_is_constant(window: dict[str, Any]) -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, pad=(1, 1))
    kill(made, hidden, [0, 3], 7)
    kill(made, hidden, [2], 8)
    graph = made.graph(made.convolution(hidden, 4, **window))
    assert widths(eliminated(made, graph)) == [3, 4, 4]


def test_a_depthwise_layer_loses_a_channel_with_its_input() -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, pad=(1, 1))
    deep = made.convolution(hidden, 12, pad=(1, 1), depthwise=True)
    kill(made, hidden, [1], EvenMaker.ZERO_POINT)
    kill(made, hidden, [2], 60)  # the border reads something else
    graph = made.graph(made.convolution(deep, 4, kernel=(1, 1)))
    assert widths(eliminated(made, graph)) == [3, 5, 10, 4]


def test_a_depthwise_layer_keeps_channels_of_which_one_is_alive() -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 4, kernel=(1, 1))
    deep = made.convolution(hidden, 8, depthwise=True)
    kill(made, deep, [0, 2, 3], 5)
    graph = made.graph(made.convolution(deep, 4, kernel=(1, 1)))
    assert widths(eliminated(made, graph)) == [3, 3, 6, 4]


def test_filters_of_zeros_in_a_depthwise_layer_make_its_input_dead() -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, kernel=(1, 1))
    deep = made.convolution(hidden, 6, depthwise=True)
    kill(made, deep, [0, 5], -100)
    graph = made.graph(made.dense(deep, 4))
    assert widths(eliminated(made, graph)) == [3, 4, 4, 4]
    kept = made.graph(graph.outputs[0], hidden)
    assert eliminate_dead_channels(kept) is kept


def test_saturation_makes_a_channel_constant() -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(4, 4, 3), 4, kernel=(1, 1))
    layer = kernel_of(made, hidden)
    # The sums of three products of at most 128 * 127 cannot reach up from there.
    bias = np.array([0, -(1 << 28), 0, 0])
    rule = replace(layer.requantize, bias=bias)
    made.layers[0] = replace(layer, requantize=rule)
    graph = made.graph(made.convolution(hidden, 5))
    assert widths(eliminated(made, graph)) == [3, 3, 5]
    # A clamp to one value does the same to all of them.
    made.layers[0] = replace(layer, requantize=replace(rule, minimum=30, maximum=30))
    assert widths(eliminated(made, made.graph(graph.outputs[0]))) == [3, 1, 5]


@pytest.mark.parametrize("edge", [INT32_MAX - 100, INT32_MIN + 100])
def test_a_sum_that_may_wrap_around_is_not_constant(edge: int) -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(4, 4, 3), 4, kernel=(1, 1))
    layer = kernel_of(made, hidden)
    made.layers[0] = replace(layer, requantize=replace(layer.requantize, bias=np.array([0, edge, 0, 0])))
    graph = made.graph(made.convolution(hidden, 5))
    assert eliminate_dead_channels(graph) is graph


@pytest.mark.parametrize("edge", [INT32_MAX, INT32_MIN])
def test_a_bias_wraps_around_as_the_sum_did(edge: int) -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(4, 4, 3), 4, kernel=(1, 1))
    kill(made, hidden, [0, 1], 100)
    output = made.convolution(hidden, 6)
    layer = kernel_of(made, output)
    made.layers[1] = replace(layer, requantize=replace(layer.requantize, bias=np.full(6, edge)))
    result = eliminated(made, made.graph(output))
    assert widths(result) == [3, 2, 6]
    layer = result.layers[1]
    assert isinstance(layer, Convolution)
    # Of weights of either sign, some biases have gone beyond the edge.
    assert len({bool(value > 0) for value in layer.requantize.bias}) == 2


def test_both_operands_of_an_add_must_be_dead() -> None:
    made = EvenMaker()
    source = made.input(5, 5, 3)
    first, second = made.convolution(source, 6, kernel=(1, 1)), made.convolution(source, 6, kernel=(1, 1))
    kill(made, first, [0, 1, 2], 30)
    kill(made, second, [2, 3], -4)
    graph = made.graph(made.convolution(made.add(first, second), 4))
    assert widths(eliminated(made, graph)) == [3, 5, 5, 5, 4]


def test_an_add_to_an_input_of_the_graph_is_alive() -> None:
    made = EvenMaker()
    source = made.input(5, 5, 3)
    branch = made.convolution(source, 3, kernel=(1, 1))
    kill(made, branch, [0, 1, 2], 30)
    graph = made.graph(made.convolution(made.add(branch, source), 4))
    assert eliminate_dead_channels(graph) is graph


@pytest.mark.parametrize("kind", ["max", "average", "mean", "rescale"])
def test_constants_pass_through(kind: str) -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(6, 6, 3), 8, kernel=(1, 1))
    kill(made, hidden, [0], 7)
    kill(made, hidden, [1, 2], -77)
    kill(made, hidden, [7], 126)
    last = {
        "max": lambda: made.pool(MaxPool, hidden, window=(3, 3), stride=(2, 2), pad=(1, 1), size=(3, 3)),
        "average": lambda: made.pool(AveragePool, hidden, window=(3, 3), stride=(2, 2), pad=(1, 1), size=(3, 3)),
        "mean": lambda: made.mean(hidden),
        "rescale": lambda: made.rescale(hidden),
    }[kind]()
    graph = made.graph(made.dense(last, 10))
    assert widths(eliminated(made, graph)) == [3, 4, 4, 10]


def test_a_channel_stays_while_one_of_its_readers_needs_it() -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, kernel=(1, 1))
    kill(made, hidden, [0, 1], 50)
    plain = made.convolution(hidden, 4, kernel=(2, 2))
    padded = made.convolution(hidden, 4, pad=(1, 1))
    mute(made, padded, [0])
    result = eliminated(made, made.graph(plain, padded))
    assert widths(result) == [3, 5, 4, 4]


def test_what_nobody_reads_is_not_computed() -> None:
    made = EvenMaker()
    first = made.convolution(made.input(5, 5, 3), 5, kernel=(1, 1))
    second = made.convolution(made.rescale(first), 6, kernel=(1, 1))
    third = made.convolution(second, 7, pad=(1, 1))
    fourth = made.convolution(third, 4, kernel=(1, 1))
    mute(made, fourth, [0, 6])
    # Only channels that are gone read these, layer by layer up to the input, which stays whole.
    mute(made, third, [1, 2], range(1, 6))
    mute(made, second, [4], [0, 3, 4, 5])
    mute(made, first, [0], [0, 1, 2, 3])
    result = eliminated(made, made.graph(fourth))
    assert widths(result) == [3, 4, 4, 4, 5, 4]


def test_a_residual_channel_that_only_feeds_itself_is_dead() -> None:
    made = EvenMaker()
    stream = made.convolution(made.input(5, 5, 3), 4, kernel=(1, 1))
    branch = made.convolution(stream, 4, pad=(1, 1))
    total = made.add(stream, branch)
    last = made.convolution(total, 5, kernel=(1, 1))
    mute(made, last, [2])
    mute(made, branch, [2], [0, 1, 3])
    assert widths(eliminated(made, made.graph(last))) == [3, 3, 3, 3, 5]


def test_outputs_and_inputs_keep_their_channels() -> None:
    made = EvenMaker()
    source = made.input(5, 5, 3)
    hidden = made.convolution(source, 6, kernel=(1, 1))
    kill(made, hidden, [0, 1], 50)
    last = made.convolution(hidden, 4, kernel=(1, 1))
    kill(made, last, [3], 1)
    mute(made, hidden, [2])
    assert widths(eliminated(made, made.graph(hidden, last))) == [3, 6, 4]
    assert widths(eliminated(made, made.graph(last))) == [3, 4, 4]


def test_a_constant_that_stays_needs_nothing() -> None:
    """A channel that saturates, of the output: what only it reads is dead."""
    made = EvenMaker()
    hidden = made.convolution(made.input(4, 4, 3), 4, kernel=(1, 1))
    last = made.convolution(hidden, 3, kernel=(1, 1))
    mute(made, last, [1], [0, 2])
    layer = kernel_of(made, last)
    made.layers[1] = replace(layer, requantize=replace(layer.requantize, bias=np.array([0, -(1 << 28), 0])))
    assert widths(eliminated(made, made.graph(last))) == [3, 3, 3]


def test_a_map_keeps_one_channel() -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, kernel=(1, 1))
    deep = made.convolution(hidden, 12, pad=(1, 1), depthwise=True)
    kill(made, deep, range(12), 3)
    last = made.convolution(deep, 4, kernel=(1, 1))
    assert widths(eliminated(made, made.graph(last))) == [3, 1, 2, 4]
    kill(made, last, range(4), 0)
    assert widths(eliminated(made, made.graph(last))) == [3, 1, 2, 4]


def test_the_channel_that_a_map_keeps_is_a_constant() -> None:
    """Where nothing is read, what needs nothing itself is the cheapest."""
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, kernel=(1, 1))
    unread = made.convolution(hidden, 5, kernel=(1, 1))
    kill(made, unread, [3], 11)
    last = made.convolution(unread, 4, kernel=(1, 1))
    mute(made, last, range(5))
    assert widths(eliminated(made, made.graph(last))) == [3, 1, 1, 4]
    (_, layer, _) = eliminate_dead_channels(made.graph(last)).layers
    assert isinstance(layer, Convolution)
    assert not layer.kernel.any()


def test_what_channels_share_stays_shared_where_it_can() -> None:
    made = EvenMaker()
    hidden = made.convolution(made.input(5, 5, 3), 6, kernel=(1, 1))
    kill(made, hidden, [0, 1], 50)
    ignored = made.convolution(hidden, 4, kernel=(1, 1), per_channel=False)
    folded = made.convolution(hidden, 4, kernel=(1, 1), per_channel=False)
    mute(made, ignored, [0, 1])
    own = made.convolution(hidden, 4, kernel=(1, 1), per_channel=False)
    mute(made, own, [0, 1])
    layer = kernel_of(made, own)
    made.layers[3] = replace(layer, requantize=replace(layer.requantize, bias=np.full(4, 123)))
    for index in (1, 2):
        layer = made.layers[index]
        assert isinstance(layer, Convolution)
        shared = replace(layer.requantize, bias=np.array([123]))
        made.layers[index] = replace(layer, requantize=shared)
    result = eliminated(made, made.graph(ignored, folded, own))
    rules = [layer.requantize for layer in result.layers[1:] if isinstance(layer, Convolution)]
    assert [len(rule.multiplier) for rule in rules] == [1, 1, 1]
    assert [len(rule.shift) for rule in rules] == [1, 1, 1]
    assert [len(rule.bias) for rule in rules] == [1, 4, 4]


def test_a_graph_without_dead_channels_stays_as_it_is() -> None:
    made = EvenMaker()
    graph = made.graph(made.convolution(made.convolution(made.input(5, 5, 3), 6), 4))
    assert eliminate_dead_channels(graph) is graph


def with_dead_filters(seed: int) -> tuple[GraphMaker, Graph]:
    """A random graph, about half the filters of which are zero, some with the zero point as their value."""
    made = random_graph(seed, layers=8, products=seed % 2 == 1)
    noise = np.random.default_rng(seed)
    for layer in list(made.layers):
        if isinstance(layer, Convolution):
            dead = np.flatnonzero(noise.random(layer.kernel.shape[3]) < 0.5)
            zero_point = made.maps[layer.output].zero_point
            for channel in map(int, dead):
                kill(
                    made,
                    layer.output,
                    [channel],
                    zero_point if noise.random() < 0.5 else int(noise.integers(-128, 128)),
                )
    names = list(made.maps)
    outputs = {names[-1], *([str(noise.choice(names[1:]))] if seed % 3 == 0 else [])}
    return made, made.graph(*sorted(outputs))


@pytest.mark.parametrize("seed", range(150))
def test_random_graphs_with_dead_filters(seed: int) -> None:
    eliminated(*with_dead_filters(seed))


def test_random_graphs_lose_channels() -> None:
    """The test above would not notice a pass that does nothing."""
    graphs = [with_dead_filters(seed)[1] for seed in range(150)]
    lost = [sum(widths(graph)) - sum(widths(eliminate_dead_channels(graph))) for graph in graphs]
    assert sum(count > 0 for count in lost) > 50


@pytest.mark.parametrize("config", [SMALL, BASE], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_with_dead_filters_through_the_compiler(seed: int, config: Config) -> None:
    check(*with_dead_filters(seed), config)
