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
from loomwork.compiler.graph import HostPart, MaxPool, Partition
from loomwork.compiler.report import summary
from tests.compiler.random_graphs import GraphMaker


def program() -> Program:
    """Two convolutions of 16x16x8, the second one pooled, on `small` (8x8, 8 bytes per beat, 128 accumulators)."""
    maker = GraphMaker(0)
    hidden = maker.convolution(maker.input(16, 16, 8), 8, pad=(1, 1), per_channel=True)
    wide = maker.convolution(hidden, 12, kernel=(1, 1), per_channel=False)
    graph = maker.graph(maker.pool(MaxPool, wide, window=(2, 2), stride=(2, 2)))
    host = HostPart(model=b"", inputs=("m3",), outputs=("y",), operators=(("SOFTMAX y", "no such operation"),))
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
    expected = {
        "name": "layer0",
        "operator": "CONVOLUTION",
        "where": "accelerator",
        "reason": "",
        "step": 0,
        "tiles": 2,
        "macs": 16 * 16 * 8 * 72,
        "weight_bytes": 576,
        # Two tiles, each 9 passes of 8 words and 9 words of parameters.
        "streamed_bytes": 2 * (72 + 9) * 8,
        "scratchpad_bytes": 2 * 16 * 16 * 8,
        "array_cycles": 9 * 256,
        "bound_cycles": 16 * 16 * 8 * 72 // 64,
    }
    assert {key: first[key] for key in expected} == expected
    expected = {
        "operator": "CONVOLUTION + MAXPOOL",
        "macs": 16 * 16 * 12 * 8,
        "weight_bytes": 96,
        # Two tiles of two blocks, each one pass and the four words of the biases.
        "streamed_bytes": 2 * 2 * (8 + 4) * 8,
        # The input, and the pooled output in rows of 12 words.
        "scratchpad_bytes": 16 * 16 * 8 + 8 * 8 * 12,
        "array_cycles": 2 * 256,
        "bound_cycles": 384,
    }
    assert {key: second[key] for key in expected} == expected
    assert host == {
        "name": "SOFTMAX y",
        "operator": "SOFTMAX y",
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
    for key in ("macs", "weight_bytes", "streamed_bytes", "tiles", "array_cycles", "bound_cycles"):
        assert totals[key] == first[key] + second[key]
    assert totals["scratchpad_bytes"] == 4096
    assert (totals["accelerator_layers"], totals["host_operators"]) == (2, 1)


def test_every_command_belongs_to_one_layer() -> None:
    compiled = program()
    step = compiled.steps[0]
    assert isinstance(step, AcceleratorStep)
    commands = decode_program(step.commands)
    first, second, _ = compiled.report["layers"]
    assert sorted(first["commands"] + second["commands"]) == list(range(len(commands)))
    assert compiled.report["totals"]["commands"] == len(commands)
    assert [commands[i].mnemonic for i in second["commands"]].count("CONVOLVE") == 2


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
    }


def test_the_report_is_json() -> None:
    report = program().report
    assert json.loads(json.dumps(report)) == report


def test_the_summary_shows_every_layer() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(program()))
    text = capture.get()
    for part in ("net on small", "layer0", "147,456", "on the host: ", "no such operation", "total"):
        assert part in text
