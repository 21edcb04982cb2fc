# SPDX-License-Identifier: Apache-2.0
"""ONNX models that cannot be compiled are refused with one sentence that names what is wrong, and what to do."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from loomwork.arch.config import SMALL
from loomwork.arch.program import Program
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import CompileError
from tests.onnx_models import QdqBuilder

IMAGE = (1, 4, 6, 7)


def network() -> onnx.ModelProto:
    """A convolution, a pool, a sum and a dense layer, with a softmax for the host."""
    m = QdqBuilder()
    x = m.input(IMAGE)
    y = m.quantize(m.node("Relu", m.node("Conv", x, m.weights((4, 4, 3, 3)), pads=[1] * 4)), zero_point=-128)
    y = m.quantize(m.node("Add", y, x), scale=0.0931)
    y = m.node("Flatten", m.quantize(m.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), scale=0.0931))
    y = m.quantize(m.node("Gemm", y, m.weights((36, 5)), m.constant(np.zeros(5, np.float32))), scale=0.0711)
    m.output(m.node("Softmax", y, axis=1))
    return m.model()


NETWORK = network()
DATA = NETWORK.SerializeToString()


def changed() -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(NETWORK)
    return model


def node(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == op)


def constant_of(model: onnx.ModelProto, op: str, position: int) -> onnx.TensorProto:
    """The initializer behind an input of an operator."""
    name = node(model, op).input[position]
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def compiled_or_refused(model: Any, **options: Any) -> Program | str:
    """The program, or the sentence of the refusal; any other exception than CompileError fails the test."""
    try:
        return compile_model(model, SMALL, name="net", **options)
    except CompileError as error:
        return str(error)


def refused(model: Any, *parts: str, **options: Any) -> None:
    sentence = compiled_or_refused(model, **options)
    assert isinstance(sentence, str), "the model was compiled"
    assert "\n" not in sentence
    for part in ("net", *parts):
        assert part in sentence, sentence


def test_the_network_is_compiled_as_it_is() -> None:
    assert isinstance(compiled_or_refused(DATA), Program)


class TestFiles:
    @pytest.mark.parametrize("data", [b"", b"\0", b"no model", bytes(range(256)), b"\x08\x08" * 40])
    def test_garbage(self, data: bytes) -> None:
        refused(data, "no ONNX model")

    def test_every_truncation(self) -> None:
        for length in range(0, len(DATA) - 1, 53):
            assert isinstance(compiled_or_refused(DATA[:length]), str)

    def test_missing_file(self, tmp_path: Path) -> None:
        refused(tmp_path / "net.onnx", "cannot read", "No such file")

    def test_garbage_in_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "net.onnx").write_bytes(b"garbage")
        refused(tmp_path / "net.onnx", "no ONNX model")

    def test_external_data(self, tmp_path: Path) -> None:
        path = tmp_path / "net.onnx"
        onnx.save_model(changed(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        assert isinstance(compiled_or_refused(path), Program)
        (tmp_path / "weights.bin").unlink()
        refused(path, "weights.bin")

    def test_external_data_too_short(self, tmp_path: Path) -> None:
        path = tmp_path / "net.onnx"
        onnx.save_model(changed(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        (tmp_path / "weights.bin").write_bytes(b"12")
        refused(path, "weights")

    def test_external_data_of_a_model_in_memory(self, tmp_path: Path) -> None:
        model = changed()
        onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        refused((tmp_path / "net.onnx").read_bytes(), "'w.bin'", "not found beside the model")

    def test_external_data_outside_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(bytes(4000))
        model = changed()
        tensor = model.graph.initializer[-1]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        (tmp_path / "folder").mkdir()
        path = tmp_path / "folder" / "net.onnx"
        path.write_bytes(model.SerializeToString())
        refused(path, "secret")


class TestGraphs:
    def test_empty_graph(self) -> None:
        model = changed()
        del model.graph.node[:]
        refused(model, "net")
        refused(model.SerializeToString(), "holds no operator")

    def test_unknown_opset(self) -> None:
        model = changed()
        model.opset_import[0].version = 99
        refused(model, "opset 99", "export it with an older one")

    def test_no_opset(self) -> None:
        model = changed()
        del model.opset_import[:]
        refused(model, "opset")

    def test_operator_that_does_not_exist(self) -> None:
        model = changed()
        node(model, "Softmax").op_type = "Softermax"
        refused(model, "Softermax")

    def test_operator_of_an_unknown_domain(self) -> None:
        model = changed()
        node(model, "Softmax").domain = "org.example"
        model.opset_import.add(domain="org.example", version=1)
        refused(model, "Softmax", "org.example")

    def test_cycle(self) -> None:
        model = changed()
        node(model, "Relu").input[0] = model.graph.node[-1].output[0]
        refused(model, "not valid", "Relu")

    def test_input_that_nothing_computes(self) -> None:
        model = changed()
        node(model, "Relu").input[0] = "missing"
        refused(model, "not valid", "missing")

    def test_output_that_nothing_computes(self) -> None:
        model = changed()
        model.graph.output[0].name = "missing"
        refused(model, "missing")

    def test_no_outputs(self) -> None:
        model = changed()
        del model.graph.output[:]
        refused(model, "computes nothing")

    def test_constant_output(self) -> None:
        model = changed()
        model.graph.output.append(helper.make_tensor_value_info("constant", TensorProto.FLOAT, (2,)))
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "constant"))
        refused(model, "'constant' is constant")

    def test_two_nodes_with_one_result(self) -> None:
        model = changed()
        node(model, "Softmax").output[0] = node(model, "Gemm").output[0]
        refused(model, "not valid")

    def test_shapes_that_do_not_fit(self) -> None:
        model = changed()
        node(model, "Flatten").attribute.add(name="axis", i=2, type=onnx.AttributeProto.INT)
        refused(model, "Gemm gemm15", "Dimension mismatch")

    def test_shapes_that_contradict_each_other(self) -> None:
        model = changed()
        first, second = node(model, "MaxPool").output[0], node(model, "Flatten").output[0]
        model.graph.node.append(helper.make_node("Concat", [first, second], ["both"], axis=1))
        model.graph.node.append(helper.make_node("Relu", ["both"], ["positive"]))
        model.graph.output.append(helper.make_tensor_value_info("positive", TensorProto.FLOAT, (1, 40)))
        refused(model, "do not fit together", "Concat")

    def test_float_model(self) -> None:
        m = helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"])],
            "float",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5, 4, 5))],
            [numpy_helper.from_array(np.ones((5, 4, 3, 3), np.float32), "w")],
        )
        model = helper.make_model(m, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        refused(model, "Conv 'y'", "quantize the model first")


class TestInputs:
    def dims(self, model: onnx.ModelProto) -> Any:
        return model.graph.input[0].type.tensor_type.shape.dim

    def test_open_batch(self) -> None:
        model = changed()
        self.dims(model)[0].dim_param = "batch"
        assert isinstance(compiled_or_refused(model), Program)

    def test_open_size(self) -> None:
        model = changed()
        self.dims(model)[2].dim_param = "height"
        refused(model, "'x0'", "dimension 2 (height)", "--shape x0=1,4,?,7")
        assert isinstance(compiled_or_refused(model, shapes={"x0": IMAGE}), Program)

    @pytest.mark.parametrize(
        ("shapes", "parts"),
        [
            ({"y": IMAGE}, ["'y'", "inputs are x0"]),
            ({"x0": (1, 4, 6)}, ["1x4x6", "4 dimensions"]),
            ({"x0": (1, 4, 6, 8)}, ["1x4x6x8", "7 in dimension 3"]),
            ({"x0": (1, 4, 0, 7)}, ["1x4x0x7"]),
            ({"x0": (1, 4, -6, 7)}, ["1x4x-6x7"]),
        ],
    )
    def test_wrong_shapes(self, shapes: dict[str, tuple[int, ...]], parts: list[str]) -> None:
        refused(changed(), *parts, shapes=shapes)

    def test_a_shape_with_which_nothing_fits(self) -> None:
        model = changed()
        self.dims(model)[2].dim_param = "height"
        refused(model, "Gemm gemm15", "Dimension mismatch", shapes={"x0": (1, 4, 60, 7)})

    def test_no_shape(self) -> None:
        model = changed()
        model.graph.input[0].type.tensor_type.ClearField("shape")
        refused(model, "'x0'")

    def test_string(self) -> None:
        model = changed()
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
        refused(model)

    def test_string_that_the_host_reads(self) -> None:
        model = changed()
        model.graph.input.append(helper.make_tensor_value_info("text", TensorProto.STRING, (1, 3)))
        model.graph.output.append(helper.make_tensor_value_info("same", TensorProto.STRING, (1, 3)))
        model.graph.node.append(helper.make_node("Identity", ["text"], ["same"]))
        refused(model, "'same' is string", "float32")

    def test_sequence(self) -> None:
        model = changed()
        model.graph.input.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, (1, 3)))
        model.graph.output.append(helper.make_tensor_value_info("length", TensorProto.INT64, ()))
        model.graph.node.append(helper.make_node("SequenceLength", ["list"], ["length"]))
        refused(model, "'list'", "no tensor")

    def test_results_whose_shape_depends_on_numbers(self) -> None:
        model = changed()
        model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, (2, None)))
        model.graph.node.append(helper.make_node("NonZero", [node(model, "Softmax").output[0]], ["where"]))
        refused(model, "'where'", "is not known before the model runs")


class TestNumbers:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_weights(self, value: float) -> None:
        model = changed()
        tensor = constant_of(model, "Gemm", 2)
        tensor.CopyFrom(numpy_helper.from_array(np.array([0, 1, value, 0, 0], np.float32), tensor.name))
        refused(model, repr(tensor.name), "Gemm", str(value), "[2]")

    def test_weights_that_do_not_fill_their_shape(self) -> None:
        model = changed()
        next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4).dims[0] = 1
        refused(model, "do not fit their shape")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -0.5])
    def test_scales(self, value: float) -> None:
        model = changed()
        tensor = constant_of(model, "QuantizeLinear", 1)
        tensor.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), tensor.name))
        compiled_or_refused(model)

    @pytest.mark.parametrize("value", [1e-30, 1e30, 1e-45])
    def test_absurd_scales(self, value: float) -> None:
        found = [index for index, tensor in enumerate(NETWORK.graph.initializer) if tensor.data_type == 1]
        for index in found:
            model = changed()
            tensor = model.graph.initializer[index]
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, value, np.float32), tensor.name))
            compiled_or_refused(model)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_corrupted_bytes_are_compiled_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for place, value in changes:
        data[place] = value
    result = compiled_or_refused(bytes(data))
    assert isinstance(result, Program) or "\n" not in result


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert isinstance(compiled_or_refused(data), str)


def fields(message: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to every field of a message; weights are one field."""
    found: list[tuple[Any, ...]] = []
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if descriptor.message_type is None:
            found.append((*path, name))
        elif hasattr(value, "add"):
            for index, item in enumerate(value):
                found += [(*path, (name, index)), *fields(item, (*path, (name, index)))]
        else:
            found += [(*path, name), *fields(value, (*path, name))]
    return found


FIELDS = fields(NETWORK)
NAMES = sorted({name for n in NETWORK.graph.node for name in (*n.input, *n.output)} | {"", "missing"})
NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 7, 255, -(2**31), 2**31 - 1, 2**62])


def inner(model: onnx.ModelProto, path: tuple[Any, ...]) -> tuple[Any, Any]:
    """The message that holds the field at a path, and the path's end."""
    message: Any = model
    for step in path[:-1]:
        message = getattr(message, step[0])[step[1]] if isinstance(step, tuple) else getattr(message, step)
    return message, path[-1]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(st.data())
def test_changed_fields_are_compiled_or_refused(data: st.DataObject) -> None:
    """One field is deleted, repeated, or gets another name or number."""
    model = changed()
    message, end = inner(model, data.draw(st.sampled_from(FIELDS)))
    if isinstance(end, tuple):
        items = getattr(message, end[0])
        if data.draw(st.booleans()):
            items.add().CopyFrom(items[end[1]])
        else:
            del items[end[1]]
    else:
        value: Any = getattr(message, end)
        if isinstance(value, str) and data.draw(st.booleans()):
            setattr(message, end, data.draw(st.sampled_from(NAMES)))
        elif isinstance(value, int) and not isinstance(value, bool) and data.draw(st.booleans()):
            number = data.draw(NUMBERS)
            try:
                setattr(message, end, number)
            except ValueError:  # more than the field holds, or no such kind
                message.ClearField(end)
        elif not isinstance(value, str | int) and hasattr(value, "append") and list(value):
            place = data.draw(st.integers(0, len(value) - 1))
            if isinstance(value[place], str):
                value[place] = data.draw(st.sampled_from(NAMES))
            elif isinstance(value[place], int):
                value[place] = data.draw(NUMBERS)
            else:
                del value[place]
        else:
            message.ClearField(end)
    result = compiled_or_refused(model)
    assert isinstance(result, Program) or "\n" not in result
