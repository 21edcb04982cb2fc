# SPDX-License-Identifier: Apache-2.0
"""Quantized ONNX networks through compiler, golden model and RTL, against ONNX Runtime.

Golden model and RTL must agree with the definitions of the layers in every bit, these with ONNX Runtime as
`tests.compiler.onnx_check` says.
"""

from functools import cache
from typing import Any

import pytest

from loomwork.arch.config import BASE, TINY
from loomwork.compiler.driver import compile_partition
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Add, AveragePool, Convolution, Graph, Layer, MaxPool, Multiply, Rearrange
from loomwork.compiler.importers.onnx import import_onnx
from loomwork.compiler.passes.fuse_combination import fuse_combination
from loomwork.sim.backend import run_program
from loomwork.sim.cycles import predict_program
from loomwork.sim.verilator import MemoryTiming, VerilatorBackend
from tests.compiler.onnx_check import batch, check, layers
from tests.onnx_models import SCALE, ZERO_POINT, Case, QdqBuilder

IMAGE = (1, 8, 6, 7)
SAME: dict[str, Any] = {"scale": SCALE, "zero_point": ZERO_POINT}


@cache
def rtl() -> VerilatorBackend:
    """One backend for all cases of a worker: the engine is built once and never reset between programs."""
    return VerilatorBackend(timing=MemoryTiming(latency=25, stall_percent=20, seed=5))


def rearranged_in_steps() -> Case:
    m = QdqBuilder()
    y = m.node("Slice", m.input(IMAGE), *map(m.constant, ([1, 0, 1], [8, 6, 7], [1, 2, 3], [1, 2, 3])))
    m.output(m.quantize(y, scale=0.0413), stored=True)
    m.output(m.quantize(m.node("DepthToSpace", m.input(IMAGE), blocksize=2), **SAME), stored=True)
    factors = m.constant([1.0, 1.0, 2.0, 3.0])
    y = m.node("Resize", m.input(IMAGE), "", factors, mode="nearest")
    m.output(m.quantize(y, **SAME), stored=True)
    return m.case(3)


def filled() -> Case:
    m = QdqBuilder()
    for pads in ([0, 0, 1, 2, 0, 0, 3, 1], [0, 3, 1, 0, 0, 9, 0, 1]):
        y = m.node("Pad", m.input(IMAGE), m.constant(pads), m.constant(1.131))
        m.output(m.quantize(y, scale=0.0413), stored=True)
    return m.case(2)


def of_several_inputs() -> Case:
    m = QdqBuilder()
    parts = [m.input((1, depth, 6, 7), scale=scale) for depth, scale in ((8, SCALE), (5, 0.0371), (3, 0.0713))]
    m.output(m.quantize(m.node("Concat", *parts, axis=1), **SAME), stored=True)
    return m.case(2)


def transposed_convolution() -> Case:
    m = QdqBuilder()
    w, b = m.weights((8, 5, 3, 3), axis=1), m.bias((5,), SCALE * 0.00413)
    y = m.node("ConvTranspose", m.input(IMAGE), w, b, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    m.output(m.quantize(y), stored=True)
    return m.case(2)


def sum_in_the_drain() -> Case:
    """The sum of a convolution and its input, with the rounding of ONNX."""
    m = QdqBuilder()
    x = m.input(IMAGE)
    y = m.quantize(m.node("Conv", x, m.weights((8, 8, 3, 3)), pads=[1, 1, 1, 1]))
    m.output(m.quantize(m.node("Relu", m.node("Add", y, x)), zero_point=-128), stored=True)
    return m.case(4)


def sum_alone() -> Case:
    m = QdqBuilder()
    a, b = m.input(IMAGE), m.input(IMAGE, scale=0.0329, zero_point=-31)
    m.output(m.quantize(m.node("Add", a, b)), stored=True)
    m.output(m.quantize(m.node("Sub", a, b)), stored=True)
    return m.case(2)


def product_in_the_drain() -> Case:
    """A gated convolution, pooled; and one whose channels are scaled."""
    m = QdqBuilder()
    x = m.input(IMAGE)
    y = m.quantize(m.node("Conv", x, m.weights((8, 8, 3, 3)), pads=[1, 1, 1, 1]))
    y = m.quantize(m.node("Mul", y, x), scale=0.0713)
    m.output(m.quantize(m.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), scale=0.0713), stored=True)
    y = m.quantize(m.node("Conv", x, m.weights((8, 8, 1, 1))))
    m.output(m.quantize(m.node("Mul", m.input((1, 8, 1, 1)), y), scale=0.0713), stored=True)
    return m.case(4)


def product_alone() -> Case:
    m = QdqBuilder()
    a, b = m.input(IMAGE), m.input(IMAGE, scale=0.0329, zero_point=-31)
    m.output(m.quantize(m.node("Mul", a, b), scale=0.0413), stored=True)
    m.output(m.quantize(m.node("Mul", b, b), scale=0.0413), stored=True)
    return m.case(2)


def average_of_the_image() -> Case:
    m = QdqBuilder()
    for window in ({"pads": [1, 1, 1, 1]}, {"strides": [2, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1}):
        y = m.node("AveragePool", m.input(IMAGE), kernel_shape=[3, 3], **window)
        m.output(m.quantize(y, scale=0.0347), stored=True)
    return m.case(2)


CASES = {
    "product in the drain": product_in_the_drain,
    "product alone": product_alone,
    "average": average_of_the_image,
    "rearranged in steps": rearranged_in_steps,
    "filled": filled,
    "of several inputs": of_several_inputs,
    "transposed convolution": transposed_convolution,
    "sum in the drain": sum_in_the_drain,
    "sum alone": sum_alone,
}
KINDS: dict[str, set[type[Layer]]] = {
    **{kind: {Rearrange} for kind in CASES},
    "transposed convolution": {Convolution, Rearrange},
    "sum in the drain": {Convolution, Add},
    "sum alone": {Convolution, Add},
    "product in the drain": {Convolution, Multiply, MaxPool, Rearrange},
    "product alone": {Multiply},
    "average": {AveragePool},
}


@pytest.mark.parametrize("kind", CASES)
def test_layers_on_the_rtl(kind: str) -> None:
    partition = check(CASES[kind](), config=TINY, backends=[rtl()])
    kinds = {type(layer) for layer in layers(partition)}
    assert kinds == KINDS[kind]


@cache
def traced() -> VerilatorBackend:
    return VerilatorBackend(timing=MemoryTiming(latency=25), trace=True)


@pytest.mark.parametrize("kind", CASES)
def test_every_event_is_predicted(kind: str) -> None:
    case = CASES[kind]()
    program = compile_partition(import_onnx(case.model, kind), TINY, name=kind)
    result = run_program(program, batch(case.images[:1]), traced())
    runs = [run for run in result.statistics[0] if run.events]
    for prediction, run in zip(predict_program(program, MemoryTiming(latency=25)), runs, strict=True):
        assert prediction.counters == run.counters
        assert sorted(prediction.events, key=str) == sorted(run.events, key=str)


def test_sums_and_products_are_fused_and_not() -> None:
    """Or else the cases above would test one way twice."""
    (graph,) = [part for part in import_onnx(product_in_the_drain().model, "m").parts if isinstance(part, Graph)]
    kinds = [type(layer) for layer in fuse_combination(graph, BASE).layers]
    assert (kinds.count(FusedConvolution), kinds.count(Convolution), kinds.count(Multiply)) == (2, 0, 0)
    (graph,) = [part for part in import_onnx(sum_in_the_drain().model, "sum").parts if isinstance(part, Graph)]
    assert [type(layer) for layer in fuse_combination(graph, BASE).layers] == [FusedConvolution]
    (graph,) = [part for part in import_onnx(sum_alone().model, "sum").parts if isinstance(part, Graph)]
    assert {type(layer) for layer in fuse_combination(graph, BASE).layers} == {Add, FusedConvolution}


def network() -> Case:
    """A small classifier with what ONNX networks bring along."""
    m = QdqBuilder(dtype="uint8")
    y = m.node("Conv", m.input((1, 3, 12, 14)), m.weights((8, 3, 3, 3)), pads=[0, 0, 1, 1], strides=[2, 2])
    y = x = m.quantize(m.node("Relu", y), zero_point=-128)
    y = m.node("Conv", y, m.weights((8, 1, 3, 3), scale=0.0213), group=8, pads=[1, 1, 1, 1])
    y = m.quantize(m.node("Clip", y, m.constant(0.0), m.constant(6.0)), zero_point=-128)
    y = m.quantize(m.node("Conv", y, m.weights((8, 8, 1, 1))))
    y = m.quantize(m.node("Add", y, x))
    y = m.quantize(m.node("GlobalAveragePool", y))
    y = m.quantize(m.node("Gemm", m.node("Flatten", y), m.weights((12, 8)), transB=1), scale=0.0711)
    m.output(m.quantize(m.node("Softmax", y, axis=1), scale=1 / 255.3, zero_point=-128))
    return m.case(6)


def test_network_on_the_rtl() -> None:
    check(network(), config=TINY, host=["Softmax"], backends=[rtl()])
