# SPDX-License-Identifier: Apache-2.0
"""The ResNet-50-shaped network: its shape, the same bytes everywhere, values that stay alive through all layers."""

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator, ModelT

from loomwork.arch.config import PRESETS
from loomwork.cli.resnet50 import resnet50_shaped
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import Graph
from loomwork.compiler.importers.tflite import import_tflite
from loomwork.sim.backend import run_program
from loomwork.sim.golden import GoldenBackend
from tests.oracle import Oracle

SMALL: dict[str, Any] = {"size": 32, "width": 8, "blocks": (2, 2), "classes": 10}
CODES = {value: name for name, value in vars(BuiltinOperator).items() if name.isupper()}


@pytest.fixture(scope="module")
def full() -> bytes:
    return resnet50_shaped()


def operators(model: bytes) -> list[tuple[str, list[tuple[int, ...]], tuple[int, ...]]]:
    """Of each operator: its code, and the shapes of its inputs and its output."""
    parsed: Any = ModelT.InitFromPackedBuf(model)
    (graph,) = parsed.subgraphs
    shapes = [tuple(map(int, tensor.shape)) for tensor in graph.tensors]
    return [
        (
            CODES[parsed.operatorCodes[operator.opcodeIndex].builtinCode],
            [shapes[index] for index in operator.inputs],
            shapes[operator.outputs[0]],
        )
        for operator in graph.operators
    ]


def macs(model: bytes) -> int:
    """One for each output element and each weight of its channel."""
    return sum(
        math.prod(output) * math.prod(inputs[1][1:])
        for code, inputs, output in operators(model)
        if code in ("CONV_2D", "FULLY_CONNECTED")
    )


def images(count: int, size: int) -> np.ndarray:
    """Coarse random patterns `[count, size, size, 3]`: unlike pixel noise, their averages differ."""
    patches = np.random.default_rng(1).integers(-128, 128, (count, 8, 8, 3), dtype=np.int8)
    return patches.repeat(size // 8, axis=1).repeat(size // 8, axis=2)


def test_the_shape_is_that_of_resnet_50(full: bytes):
    found = operators(full)
    assert macs(full) == 4_089_184_256  # version 1.5; 15,973,376 cycles of 256
    assert sum(math.prod(i[1]) for code, i, _ in found if code in ("CONV_2D", "FULLY_CONNECTED")) == 25_502_912
    codes = [code for code, _, _ in found]
    counts = {"PAD": 1, "CONV_2D": 53, "MAX_POOL_2D": 1, "ADD": 16, "MEAN": 1, "FULLY_CONNECTED": 1}
    assert {code: codes.count(code) for code in codes} == counts
    sums = [output for code, _, output in found if code == "ADD"]
    stages = ((3, 56, 256), (4, 28, 512), (6, 14, 1024), (3, 7, 2048))
    assert sums == [(1, side, side, channels) for count, side, channels in stages for _ in range(count)]
    assert found[0][1][0] == (1, 224, 224, 3)
    assert found[-1][2] == (1, 1000)


def test_the_bytes_are_the_same_everywhere(full: bytes):
    # Changes with the network itself, and then every recorded figure does.
    assert hashlib.sha256(full).hexdigest() == "926b936620d1f552e0ceb17e06856b6d69069aabf9b48c1fe991f1ae165634c9"
    assert resnet50_shaped(**SMALL) == resnet50_shaped(**SMALL)
    assert resnet50_shaped(**SMALL) != resnet50_shaped(**SMALL, seed=51)


def test_every_layer_can_run_on_the_accelerator(full: bytes):
    (part,) = import_tflite(full, "resnet50_shaped").parts
    assert isinstance(part, Graph)


def test_values_neither_saturate_nor_vanish(full: bytes):
    parsed: Any = ModelT.InitFromPackedBuf(full)
    (graph,) = parsed.subgraphs
    oracle = Oracle(full, keep_tensors=True)
    results = []
    for image in images(2, 224):
        results += oracle.run([image[np.newaxis]])
        for operator in graph.operators[1:]:  # the first pads the image
            tensor = graph.tensors[operator.outputs[0]]
            values = oracle.tensor(int(operator.outputs[0]))
            name = tensor.name.decode()
            ends = {"127": np.mean(values == 127), "-128": np.mean(values == -128)}
            assert values.std() > 7, name
            assert ends["127"] < 0.005, (name, ends)
            # Behind a ReLU, the lowest value is a zero.
            assert ends["-128"] < (0.6 if tensor.quantization.zeroPoint[0] == -128 else 0.005), (name, ends)
    difference = np.abs(np.subtract(*results, dtype=np.int32))
    assert difference.mean() > 5
    assert np.mean(difference == 0) < 0.1


def test_a_small_one_is_exact_through_the_compiler():
    model = resnet50_shaped(**SMALL)
    pictures = images(3, 32)
    program = compile_model(model, PRESETS["small"], name="resnet")
    assert program.report["totals"]["host_operators"] == 0
    assert program.report["totals"]["macs"] == macs(model)
    result = run_program(program, {"image": pictures}, GoldenBackend())
    (expected,) = Oracle(model).run_batch([pictures[:, np.newaxis]])
    assert expected.std() > 7
    assert len(np.unique(expected, axis=0)) == 3
    assert np.array_equal(result.outputs["logits"].reshape(3, 10), expected.reshape(3, 10))
