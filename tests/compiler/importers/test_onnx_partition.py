# SPDX-License-Identifier: Apache-2.0
"""What of an ONNX model the host computes, how it gets its data, and what is said about it."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from loomwork.arch.config import SMALL, TINY
from loomwork.arch.program import HostRuntime, HostStep
from loomwork.arch.program_file import write_program
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import CompileError, Graph, HostPart
from loomwork.compiler.importers.onnx import import_onnx
from tests.compiler.onnx_check import check, host_operators, layers
from tests.onnx_models import QdqBuilder

TYPES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
IMAGE = (1, 8, 9, 10)
MICROSOFT = "com.microsoft"


def conv(m: QdqBuilder, x: str, outs: int = 8) -> str:
    """A convolution that keeps the image's size, and ReLU."""
    y = m.node("Conv", x, m.weights((outs, 8, 3, 3)), pads=[1, 1, 1, 1])
    return m.quantize(m.node("Relu", y), zero_point=-128)


def between(m: QdqBuilder, op: str, *constants: str, **attributes: Any) -> None:
    """An operator of the host between two convolutions."""
    y = conv(m, m.input(IMAGE))
    m.output(conv(m, m.quantize(m.node(op, y, *constants, **attributes))), stored=True)


@TYPES
@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Softmax", {"axis": 1}), ("InstanceNormalization", {}), ("LRN", {"size": 3}), ("CumSum", {})],
)
def test_host_in_the_middle(op: str, attributes: dict[str, Any], dtype: str) -> None:
    """Data crosses in the network's own order and type, both ways."""
    m = QdqBuilder(dtype=dtype)
    constants = {
        "InstanceNormalization": [
            np.linspace(0.5, 1.5, 8).astype(np.float32),
            np.linspace(-1, 1, 8).astype(np.float32),
        ],
        "CumSum": [np.array(3)],
    }
    between(m, op, *map(m.constant, constants.get(op, [])), **attributes)
    partition = check(m.case(), host=[op])
    parts = [type(part) for part in partition.parts]
    assert parts == [HostPart, Graph, HostPart, Graph, HostPart]
    assert all(p.runtime is HostRuntime.ONNX_RUNTIME for p in partition.parts if isinstance(p, HostPart))


def test_reasons() -> None:
    m = QdqBuilder()
    y = conv(m, m.input(IMAGE))
    y = m.quantize(m.node("Softmax", y, axis=1), scale=0.00397)
    y = m.quantize(m.node("Conv", y, m.constant(np.ones((2, 8, 3, 3), np.float32))))
    m.output(m.quantize(m.node("MaxPool", y, kernel_shape=[2, 2], dilations=[2, 2])))
    reasons = {operator.split()[0]: reason for operator, reason in host_operators(import_onnx(m.model(), "m")).items()}
    assert reasons == {
        "Softmax": "the accelerator has no such operation",
        "Conv": "its weights are real numbers; the accelerator needs constants quantized to 8 bits",
        "MaxPool": "its window is dilated",
    }


def test_chosen_operators_stay_on_the_host() -> None:
    m = QdqBuilder()
    first = m.node("Conv", m.input(IMAGE), m.weights((8, 8, 3, 3)))
    m.output(conv(m, m.quantize(first)))
    partition = import_onnx(m.model(), "m", on_host={first: "for the test"})
    assert host_operators(partition) == {f"Conv {first}": "for the test"}
    assert len(layers(partition)) == 1


def test_real_numbers_behind_the_accelerator() -> None:
    """A head that was not quantized reads what the accelerator computes."""
    m = QdqBuilder()
    y = m.node("Flatten", conv(m, m.input(IMAGE)))
    y = m.node("MatMul", y, m.constant(m.rng.normal(0, 0.1, (720, 20)).astype(np.float32)))
    y = m.node("Sigmoid", y)
    m.output(m.quantize(y, scale=0.00397, zero_point=-128))
    check(m.case(12), host=["MatMul", "Sigmoid"])


def test_float16_between() -> None:
    m = QdqBuilder()
    y = m.node("Cast", conv(m, m.input(IMAGE)), to=TensorProto.FLOAT16)
    y = m.node("Mul", y, m.constant(np.array(0.7131, np.float16)))
    y = m.node("Cast", y, to=TensorProto.FLOAT)
    m.output(conv(m, m.quantize(y, zero_point=-128)))
    check(m.case(), host=["Cast", "Mul", "Cast"])


def test_float16_constants_and_outputs() -> None:
    m = QdqBuilder()
    y = m.node("Cast", conv(m, m.input(IMAGE)), to=TensorProto.FLOAT16)
    y = m.node("Add", y, m.constant(np.array(0.7131, np.float16)))
    m.output(y, kind=TensorProto.FLOAT16)
    check(m.case(), host=["Cast", "Add"])


def test_operators_of_another_domain() -> None:
    m = QdqBuilder()
    bias = m.constant(np.linspace(-1, 1, 10).astype(np.float32))
    y = m.quantize(m.node("BiasGelu", conv(m, m.input(IMAGE)), bias, domain=MICROSOFT), scale=0.0731, zero_point=-100)
    m.stored_output(m.stored(y), IMAGE)
    check(m.case(), host=["BiasGelu"])


def test_an_accelerator_behind_operators_of_another_domain() -> None:
    """Their shapes are ONNX Runtime's knowledge alone."""
    m = QdqBuilder()
    bias = m.constant(np.linspace(-1, 1, 10).astype(np.float32))
    y = m.quantize(m.node("BiasGelu", conv(m, m.input(IMAGE)), bias, domain=MICROSOFT), scale=0.0731, zero_point=-100)
    y = m.quantize(m.node("Conv", y, m.weights((5, 8, 3, 3))), scale=0.1131)
    m.stored_output(m.stored(y), (1, 5, 7, 8))
    assert len(layers(check(m.case(), host=["BiasGelu"]))) == 2


def branches(taken: str, other: str) -> list[onnx.GraphProto]:
    """Bodies of an If that read a tensor from outside."""
    graphs: list[onnx.GraphProto] = []
    for name, op in (("then", taken), ("else", other)):
        result = helper.make_tensor_value_info(f"{name} result", TensorProto.FLOAT, IMAGE)
        graphs.append(helper.make_graph([helper.make_node(op, [CAPTURED], [f"{name} result"])], name, [], [result]))
    return graphs


CAPTURED = "captured"


@pytest.mark.parametrize("taken", ["Softplus", "Neg"])
def test_subgraphs_read_from_outside(taken: str) -> None:
    m = QdqBuilder()
    y = conv(m, m.input(IMAGE))
    m.nodes("Abs", y, names=[CAPTURED])
    largest = m.node("ReduceMax", y, keepdims=0)
    condition = m.node("Greater", largest, m.constant(0.01))
    then, other = branches(taken, "Abs")
    y = m.node("If", condition, then_branch=then, else_branch=other)
    m.output(m.quantize(y, scale=0.0371, zero_point=-3))
    check(m.case(), host=["Abs", "ReduceMax", "Greater", "If"])


def test_loop() -> None:
    m = QdqBuilder()
    y = conv(m, m.input(IMAGE))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["kept"]),
            helper.make_node("Mul", ["state", y], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, IMAGE),
        ],
        [
            helper.make_tensor_value_info("kept", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, IMAGE),
        ],
    )
    start = m.quantize(m.node("Relu", y), scale=0.0731, zero_point=-128)
    z = m.node("Loop", m.constant(np.array(2)), m.constant(np.array(True)), start, body=body)
    m.state_shape(z, IMAGE)
    m.output(m.quantize(z, scale=0.0371, zero_point=-128), stored=True)
    check(m.case(), host=["Loop"])


class TestRequiredAccelerator:
    def test_accepts_conversions(self) -> None:
        m = QdqBuilder(dtype="uint8")
        m.output(conv(m, m.input(IMAGE)))
        program = compile_model(m.model(), SMALL, require_accelerator=True)
        assert len(program.steps) == 3

    def test_accepts_results_that_are_turned_over(self) -> None:
        m = QdqBuilder(stored=True)
        y = m.node("MaxPool", m.stored(m.input(IMAGE)), kernel_shape=[2, 2])
        m.stored_output(y, (1, 8, 8, 9))
        m.output(m.node("Flatten", conv(m, m.input(IMAGE))))
        compile_model(m.model(), SMALL, require_accelerator=True)

    def test_names_what_it_refuses(self) -> None:
        m = QdqBuilder()
        between(m, "Softmax", axis=1)
        sentence = "m: Softmax softmax.* would run on the host: the accelerator has no such operation"
        with pytest.raises(CompileError, match=sentence):
            compile_model(m.model(), SMALL, name="m", require_accelerator=True)

    def test_counts_the_others(self) -> None:
        m = QdqBuilder()
        y = m.quantize(m.node("Softmax", conv(m, m.input(IMAGE)), axis=1), scale=0.00397)
        m.output(m.node("LRN", y, size=3))
        with pytest.raises(CompileError, match="would run on the host, and 1 more"):
            compile_model(m.model(), SMALL, require_accelerator=True)


def test_the_same_model_gives_the_same_program() -> None:
    m = QdqBuilder(dtype="uint8")
    between(m, "Softmax", axis=1)
    data = m.model().SerializeToString()
    first, second = (compile_model(data, SMALL, name="m") for _ in range(2))
    assert write_program(first) == write_program(second)
    assert any(isinstance(step, HostStep) for step in first.steps)


def test_a_given_batch_of_one() -> None:
    """An open batch is 1 without a word, other dimensions as they are given."""
    m = QdqBuilder()
    m.output(conv(m, m.input(IMAGE)))
    case = m.case()
    dims = case.model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param = "N"
    check(case)
    dims[2].dim_param = "H"
    check(case, shapes={"x0": IMAGE})


def test_the_model_itself_stays_as_it_is() -> None:
    m = QdqBuilder()
    between(m, "Softmax", axis=1)
    model = m.model()
    before = model.SerializeToString(deterministic=True)
    import_onnx(model, "m")
    assert model.SerializeToString(deterministic=True) == before


def test_an_operator_of_several_layers_goes_to_the_host_as_a_whole() -> None:
    """The blocks of a ConvTranspose have rows that the command set has no room for; the convolution before it fits."""
    m = QdqBuilder()
    wide = m.quantize(m.node("Conv", m.input((1, 8, 4, 700)), m.weights((24, 8, 1, 1))))
    m.output(m.quantize(m.node("ConvTranspose", wide, m.weights((24, 16, 2, 2), axis=1), strides=[2, 2])))
    program = compile_model(m.case(1).model, replace(TINY, name="narrow", scratchpad_kib=64))
    found = {entry["name"].split()[0]: entry["where"] for entry in program.report["layers"]}
    assert found["ConvTranspose"] == "host"
    assert "accelerator" in found.values()
