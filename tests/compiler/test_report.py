# SPDX-License-Identifier: Apache-2.0
"""The numbers of the report, worked out by hand."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from loomwork.arch.command import decode_program
from loomwork.arch.config import BASE, SMALL, Config
from loomwork.arch.program import AcceleratorStep, Program, Tensor
from loomwork.compiler.driver import compile_partition
from loomwork.compiler.graph import Convolution, HostPart, MaxPool, Partition
from loomwork.compiler.report import summary
from tests.compiler.random_graphs import GraphMaker


def program() -> Program:
    """Two convolutions of 16x16x8, the second one pooled, on `small` (8x8, 8 bytes per beat, 128 accumulators)."""
    maker = GraphMaker(0)
    hidden = maker.convolution(maker.input(16, 16, 8), 8, pad=(1, 1), per_channel=True)
    wide = maker.convolution(hidden, 12, kernel=(1, 1), per_channel=False)
    graph = maker.graph(maker.pool(MaxPool, wide, window=(2, 2), stride=(2, 2)))
    host = HostPart(
        model=b"", inputs=("m3",), outputs=("y",), operators=(("SOFTMAX y", "no such operation"),), macs=(1000,)
    )
    tensors = (
        Tensor(name="m0", shape=(1, 16, 16, 8), dtype="int8"),
        Tensor(name="m3", shape=(1, 8, 8, 12), dtype="int8"),
        Tensor(name="y", shape=(1, 8, 8, 12), dtype="float32"),
    )
    return compile_partition(
        Partition(parts=(graph, host), tensors=tensors, inputs=("m0",), outputs=("y",)), SMALL, name="net"
    )


def test_layers_are_described() -> None:
    report = program().report
    assert (report["model"], report["configuration"]) == ("net", "small")
    first, second, host = report["layers"]
    tiles = [first["tiles"], second["tiles"]]
    assert all(2 <= count <= 16 for count in tiles)
    expected = {
        "name": "layer0",
        "operator": "CONVOLUTION",
        "where": "accelerator",
        "reason": "",
        "step": 0,
        "macs": 16 * 16 * 8 * 72,
        "executed_macs": 16 * 16 * 8 * 72,
        "dead_macs": 0,
        "dead_channels": 0,
        "weight_bytes": 576,
        "parameter_bytes": 8 * 9,
        # Each tile: 9 passes of 8 words and 9 words of parameters.
        "streamed_bytes": tiles[0] * (72 + 9) * 8,
        "scratchpad_bytes": 2 * 16 * 16 * 8,
        "array_cycles": 9 * 256,
        "bound_cycles": 16 * 16 * 8 * 72 // 64,
    }
    assert {key: first[key] for key in expected} == expected
    expected = {
        "operator": "CONVOLUTION + MAXPOOL",
        "macs": 16 * 16 * 12 * 8,
        "weight_bytes": 96,
        "parameter_bytes": 12 * 4,
        # Each tile: two blocks, each one pass and the four words of the biases.
        "streamed_bytes": tiles[1] * 2 * (8 + 4) * 8,
        # The input, and the pooled output in rows of 12 words.
        "scratchpad_bytes": 16 * 16 * 8 + 8 * 8 * 12,
        "array_cycles": 2 * 256,
        "bound_cycles": 384,
    }
    assert {key: second[key] for key in expected} == expected
    assert host == {
        "name": "SOFTMAX y",
        "operator": "SOFTMAX y",
        "macs": 1000,
        "where": "host",
        "reason": "no such operation",
        "step": 1,
        "bytes_in": 768,
        "bytes_out": 4 * 768,
    }


@pytest.mark.parametrize(("config", "cycles"), [(SMALL, 2 * 2 * (2 * 4 * (2 * 7 + 3))), (BASE, 8 * (2 * 7 + 3))])
def test_cycles_of_a_depthwise_layer(config: Config, cycles: int) -> None:
    """8x8 outputs of 3 columns two apart, 16 channels: on 8 rows two passes of 2 blocks, in two tiles of 4 rows."""
    maker = GraphMaker(0)
    image = maker.input(17, 17, 16)
    config = replace(config, accumulator_depth=32 if config is SMALL else 64)
    graph = maker.graph(maker.convolution(image, 16, stride=(2, 2), depthwise=True))
    tensors = tuple(
        Tensor(name=name, shape=(1, size, size, 16), dtype="int8") for name, size in (("m0", 17), ("m1", 8))
    )
    partition = Partition(parts=(graph,), tensors=tensors, inputs=("m0",), outputs=("m1",))
    (layer,) = compile_partition(partition, config, name="net").report["layers"]
    assert layer["array_cycles"] == cycles


def test_totals_are_sums() -> None:
    report = program().report
    first, second, _ = report["layers"]
    totals = report["totals"]
    for key in (
        "macs",
        "executed_macs",
        "dead_macs",
        "dead_channels",
        "weight_bytes",
        "parameter_bytes",
        "streamed_bytes",
        "tiles",
        "array_cycles",
        "bound_cycles",
    ):
        assert totals[key] == first[key] + second[key]
    assert totals["scratchpad_bytes"] == 4096
    assert (totals["accelerator_layers"], totals["host_operators"]) == (2, 1)
    assert totals["host_macs"] == 1000


def test_dead_channels_are_counted() -> None:
    """Three of eight filters are zero, and so are 3 x 9 x 8 weights and as many values of the layer behind them."""
    maker = GraphMaker(0)
    hidden = maker.convolution(maker.input(16, 16, 8), 8, pad=(1, 1))
    graph = maker.graph(maker.convolution(hidden, 12, kernel=(1, 1)))
    layer = maker.layers[0]
    assert isinstance(layer, Convolution)
    kernel = layer.kernel.copy()
    kernel[..., [0, 3, 4]] = 0
    graph = replace(graph, layers=(replace(layer, kernel=kernel), maker.layers[1]))
    tensors = tuple(Tensor(name=name, shape=(1, 16, 16, size), dtype="int8") for name, size in (("m0", 8), ("m2", 12)))
    partition = Partition(parts=(graph,), tensors=tensors, inputs=("m0",), outputs=("m2",))
    compiled = compile_partition(partition, SMALL, name="net")
    first, second = compiled.report["layers"]
    pixels = 16 * 16
    expected = {
        "macs": pixels * 8 * 72,
        "executed_macs": pixels * 5 * 72,
        "dead_macs": pixels * 3 * 72,
        "dead_channels": 3,
        "weight_bytes": 5 * 72,
        "bound_cycles": pixels * 5 * 72 // 64,
    }
    assert {key: first[key] for key in expected} == expected
    expected = {
        "macs": pixels * 12 * 8,
        "executed_macs": pixels * 12 * 5,
        "dead_macs": pixels * 12 * 3,
        "dead_channels": 0,
    }
    assert {key: second[key] for key in expected} == expected
    totals = compiled.report["totals"]
    assert (totals["dead_channels"], totals["dead_macs"]) == (3, pixels * (3 * 72 + 12 * 3))
    assert "dead: 3 channels with 64,512 MACs (37.5%), on which no output depends, are left out." in shown(compiled)
    kept = compile_partition(partition, SMALL, name="net", eliminate_dead=False)
    assert [layer["dead_macs"] for layer in kept.report["layers"]] == [0, 0]
    assert kept.report["totals"]["executed_macs"] == totals["macs"]
    assert "dead" not in shown(kept)


def test_every_command_belongs_to_one_layer() -> None:
    compiled = program()
    step = compiled.steps[0]
    assert isinstance(step, AcceleratorStep)
    commands = decode_program(step.commands)
    first, second, _ = compiled.report["layers"]
    assert sorted(first["commands"] + second["commands"]) == list(range(len(commands)))
    assert compiled.report["totals"]["commands"] == len(commands)
    assert [commands[i].mnemonic for i in second["commands"]].count("CONVOLVE") == second["tiles"]


def test_the_memory_map_says_where_maps_lie() -> None:
    memory = {entry["map"]: entry for entry in program().report["memory"]}
    assert set(memory) == {"m0", "m1", "m3"}
    assert memory["m3"] == {
        "step": 0,
        "map": "m3",
        "height": 8,
        "width": 8,
        "channels": 12,
        "base": memory["m3"]["base"],
        "pitch": 12,
        "words": 24,
        "first_layer": 1,
        "last_layer": 1,
        "whole": True,
    }


def test_the_report_is_json() -> None:
    report = program().report
    assert json.loads(json.dumps(report)) == report


def shown(compiled: Program) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(compiled))
    return capture.get()


def test_the_summary_shows_every_layer() -> None:
    text = shown(program())
    for part in ("net on small", "layer0", "147,456", "on the host: ", "no such operation", "% of the MACs", "total"):
        assert part in text
