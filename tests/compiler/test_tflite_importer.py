# SPDX-License-Identifier: Apache-2.0
"""Imported networks compute what tflite-micro computes, and files that cannot be run are refused in a sentence."""

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loomwork.arch.numerics import INT32_MAX
from loomwork.compiler.graph import (
    Add,
    CompileError,
    Convolution,
    Graph,
    HostPart,
    Mean,
    Partition,
    Rescale,
    Table,
)
from loomwork.compiler.importers.tflite import import_tflite
from loomwork.compiler.tflite_file import Tensor
from loomwork.compiler.tflite_writer import ModelBuilder
from tests.layers import CORNERS, GRAPHS, LAYERS, Case, cases, random_case
from tests.models import data_path, model_path
from tests.oracle import Oracle, OracleError
from tests.reference import run_partition

RNG = np.random.default_rng(11)
NETWORKS = (
    "mlperf_tiny/ic_resnet8_int8.tflite",
    "mlperf_tiny/kws_dscnn_int8.tflite",
    "mlperf_tiny/vww_mbv1_025_int8.tflite",
    "mlperf_tiny/ad_autoencoder_int8.tflite",
    "tflite/micro_speech_quantized.tflite",
    "tflite/tf2_mobilenet_v2_1.0_224_ptq.tflite",
)
NEVER_ACCELERATED = ("reshape", "softmax", "sub", "mul", "concatenation", "conv_2d_batch", "add_broadcast")


def int8(*shape: int) -> np.ndarray:
    return RNG.integers(-128, 128, shape, dtype=np.int8)


def check(model: bytes, inputs: list[np.ndarray], partition: Partition | None = None) -> Partition:
    """Import the model, if that has not been done, and compare its outputs with tflite-micro's."""
    partition = partition or import_tflite(model, "model")
    expected = Oracle(model).run(inputs)
    values = run_partition(partition, dict(zip(partition.inputs, inputs, strict=True)))
    for name, output in zip(partition.outputs, expected, strict=True):
        assert values[name].dtype == output.dtype
        np.testing.assert_array_equal(values[name], output, err_msg=name)
    return partition


def imported_or_refused(model: bytes) -> tuple[Partition | None, str]:
    """The partition, or the sentence of the refusal; any other exception than CompileError fails the test."""
    try:
        return import_tflite(model, "model"), ""
    except CompileError as error:
        return None, str(error)


def layers(partition: Partition) -> list[object]:
    return [layer for part in partition.parts if isinstance(part, Graph) for layer in part.layers]


def conv_model(**changes: Any) -> bytes:
    """One convolution; changes go to its weights' and output's parameters."""
    m = ModelBuilder()
    x = m.input("x", (1, 6, 5, 3), scale=0.05, zero_point=4)
    parameters: dict[str, Any] = {"weight_scale": 0.02, "scale": 0.3, "zero_point": -7, **changes}
    m.output(m.conv_2d(x, int8(4, 3, 3, 3), np.arange(4, dtype=np.int32), name="conv", **parameters))
    return m.build()


@pytest.mark.parametrize("name", NETWORKS)
def test_network_equals_tflite_micro(name: str):
    model = model_path(name).read_bytes()
    partition = import_tflite(model, name)
    oracle = Oracle(model)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        images = [
            rng.integers(0, 256, shape, dtype=np.uint8).view(dtype)
            for shape, dtype in zip(oracle.input_shapes, oracle.input_dtypes, strict=True)
        ]
        check(model, images, partition)
    assert len(partition.parts) <= 3


def test_network_equals_tflite_micro_on_real_keywords():
    model = model_path("mlperf_tiny/kws_dscnn_int8.tflite").read_bytes()
    data = np.load(data_path("kws01_inputs.npz"))
    images = next(data[key] for key in data.files if data[key].ndim > 2)
    partition = import_tflite(model, "kws")
    shape = partition.tensors[0].shape
    for image in images[:5]:
        check(model, [image.astype(np.int8).reshape(shape)], partition)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", [*LAYERS, *GRAPHS, *CORNERS])
def test_random_case_equals_tflite_micro(kind: str, seed: int):
    _check_case(random_case(seed, kind), kind)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted({*LAYERS, *GRAPHS} - set(NEVER_ACCELERATED))).flatmap(cases))
def test_drawn_case_equals_tflite_micro(case: Case):
    _check_case(case, case.name.split(":")[0])


def _check_case(case: Case, kind: str) -> None:
    """Exact, or refused because all of it would stay on the host."""
    partition, refusal = imported_or_refused(case.model_bytes)
    if partition is None:
        assert "no operator can run on the accelerator" in refusal or "computes nothing" in refusal
        assert kind in NEVER_ACCELERATED or "it rescales by" in refusal or "goes over axes" in refusal
    else:
        assert kind not in NEVER_ACCELERATED
        check(case.model_bytes, case.inputs, partition)


def test_relu_n1_to_1_equals_tensorflow_lite():
    """tflite-micro has no such operator: TensorFlow Lite's reference kernel is the reference."""
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 16), scale=0.02, zero_point=-11)
    m.output(m.operator("RELU_N1_TO_1", [x], x.shape, scale=0.015, zero_point=9))
    model = m.build()
    image = np.arange(-128, 128, dtype=np.int8).reshape(1, 4, 4, 16)
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    partition = import_tflite(model, "model")
    result = run_partition(partition, {"x": image})[partition.outputs[0]]
    np.testing.assert_array_equal(result, expected)
    assert len(np.unique(result)) > 50


def test_per_channel_fully_connected_is_exact():
    m = ModelBuilder()
    x = m.input("x", (1, 37), scale=0.04, zero_point=-3)
    scales = [0.001 * (channel + 1) for channel in range(6)]
    y = m.fully_connected(x, int8(6, 37), None, weight_scale=scales, scale=0.2, zero_point=5, keep_num_dims=True)
    m.output(y)
    check(m.build(), [int8(1, 37)])


def test_fully_connected_keeps_the_image_it_reads():
    m = ModelBuilder()
    x = m.input("x", (1, 5, 4, 3), scale=0.05, zero_point=2)
    y = m.max_pool_2d(x, (2, 2), stride=1)
    y = m.reshape(y, (1, 36))
    m.output(m.fully_connected(y, int8(7, 36), np.zeros(7, np.int32), weight_scale=0.01, scale=0.5))
    partition = check(m.build(), [int8(1, 5, 4, 3)])
    (part,) = partition.parts
    assert isinstance(part, Graph)
    dense = part.layers[-1]
    assert isinstance(dense, Convolution)
    assert dense.kernel.shape == (4, 3, 3, 7)


def test_rows_of_a_fully_connected_operator_become_pixels():
    m = ModelBuilder()
    x = m.input("x", (1, 6, 8), scale=0.05, zero_point=2)
    m.output(m.fully_connected(x, int8(5, 8), weight_scale=0.01, scale=0.1, keep_num_dims=True))
    partition = check(m.build(), [int8(1, 6, 8)])
    (layer,) = layers(partition)
    assert isinstance(layer, Convolution)
    assert layer.kernel.shape == (1, 1, 8, 5)


def test_a_group_per_channel_is_depthwise():
    m = ModelBuilder()
    x = m.input("x", (1, 5, 5, 4), scale=0.05, zero_point=2)
    weights = int8(8, 3, 3, 1)
    y = m.operator(
        "CONV_2D",
        [x, m.constant("w", weights, scale=0.01)],
        (1, 5, 5, 8),
        schema.Conv2DOptionsT(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1),
        scale=0.1,
    )
    m.output(y)
    (layer,) = layers(check(m.build(), [int8(1, 5, 5, 4)]))
    assert isinstance(layer, Convolution)
    assert layer.depthwise
    assert layer.kernel.shape == (3, 3, 1, 8)


def test_depthwise_of_one_channel_is_dense():
    m = ModelBuilder()
    x = m.input("x", (1, 9, 5, 1), scale=0.05, zero_point=2)
    m.output(m.depthwise_conv_2d(x, int8(1, 3, 3, 8), weight_scale=0.01, scale=0.1))
    (layer,) = layers(check(m.build(), [int8(1, 9, 5, 1)]))
    assert isinstance(layer, Convolution)
    assert not layer.depthwise


def test_scales_are_multiplied_in_double():
    """A bias just beside a rounding boundary tells the product in double from the one in float32."""
    scales = np.array([0.0123457, 0.0000097531], np.float32)
    exact, rounded = float(scales[0]) * float(scales[1]), float(scales[0] * scales[1])
    assert abs(exact / rounded - 1) > 2.0**-26
    bias = np.round((np.arange(-120, 120) + 0.5) / exact)
    bias = (bias[:, None] + np.arange(-4, 5) * 4).ravel().astype(np.int32)
    m = ModelBuilder()
    x = m.input("x", (1, 1, 1, 4), scale=scales[0])
    weights = np.zeros((len(bias), 1, 1, 4), np.int8)
    y = m.conv_2d(x, weights, bias, weight_scale=scales[1], scale=1.0)
    z = m.fully_connected(x, weights[:, 0, 0], bias, weight_scale=scales[1], scale=1.0)
    m.output(y, z)
    check(m.build(), [int8(1, 1, 1, 4)])


@pytest.mark.parametrize("scale", [0.2448979616165161, 0.23529411852359772])
def test_activation_bounds_are_divided_in_float32(scale: float):
    """6 / scale is half a step in float32 and just below it in double."""
    m = ModelBuilder()
    x = m.input("x", (1, 2, 2, 3), scale=scale, zero_point=-128)
    m.output(m.max_pool_2d(x, 1, activation="RELU6"), m.relu6(x))
    check(m.build(), [np.full((1, 2, 2, 3), 127, np.int8)])


def test_relu6_ignores_the_outputs_scale_as_tflite_micro_does():
    m = ModelBuilder()
    x = m.input("x", (1, 2, 8, 16), scale=0.05, zero_point=-40)
    m.output(m.relu6(x, scale=0.5, zero_point=17))
    check(m.build(), [np.arange(-128, 128, dtype=np.int8).reshape(1, 2, 8, 16)])


def test_mean_of_vanishing_scale():
    m = ModelBuilder()
    x = m.input("x", (1, 8, 8, 3), scale=2.0**-30, zero_point=5)
    m.output(m.mean(x, (1, 2), scale=1.0, zero_point=7))
    check(m.build(), [int8(1, 8, 8, 3)])


def test_reshape_to_another_zero_point_pads_with_the_new_one():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 3), scale=0.05, zero_point=5)
    y = m.reshape(m.max_pool_2d(x, 1), (1, 4, 4, 3), zero_point=-100)
    m.output(m.conv_2d(y, int8(2, 3, 3, 3), weight_scale=0.01, scale=0.5))
    assert len(check(m.build(), [int8(1, 4, 4, 3)]).parts) == 2


def test_host_operators_keep_scales_per_channel():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 3), scale=0.05, zero_point=5)
    scales = [1000.0, 1.0, 0.01]
    m.output(m.depthwise_conv_2d(m.max_pool_2d(x, 1), int8(1, 3, 3, 3), weight_scale=scales, scale=0.1))
    partition = check(m.build(), [int8(1, 4, 4, 3)])
    host = partition.parts[-1]
    assert isinstance(host, HostPart)
    weights = next(t for t in parsed(host.model).subgraphs[0].tensors if list(t.shape) == [1, 3, 3, 3])
    assert weights.quantization.scale.tolist() == pytest.approx(scales)
    assert weights.quantization.quantizedDimension == 3


@pytest.mark.parametrize("keep_dims", [True, False])
def test_mean_divides_within_its_multiplier(keep_dims: bool):
    m = ModelBuilder()
    x = m.input("x", (1, 7, 7, 5), scale=0.05, zero_point=2)
    m.output(m.mean(x, (1, 2), keep_dims=keep_dims, scale=0.03, zero_point=-5))
    (layer,) = layers(check(m.build(), [int8(1, 7, 7, 5)]))
    assert isinstance(layer, Mean)
    assert layer.requantize.bias.tolist() == [-2 * 49]


def test_padding_goes_into_the_convolution():
    m = ModelBuilder()
    x = m.input("x", (1, 6, 6, 3), scale=0.05, zero_point=-9)
    y = m.pad(x, [(0, 0), (2, 1), (1, 4), (0, 0)])
    m.output(m.conv_2d(y, int8(4, 3, 3, 3), weight_scale=0.01, scale=0.1, padding="VALID", stride=2))
    (layer,) = layers(check(m.build(), [int8(1, 6, 6, 3)]))
    assert isinstance(layer, Convolution)
    assert layer.pad == (2, 1)


def test_padding_that_is_also_an_output_stays():
    m = ModelBuilder()
    x = m.input("x", (1, 6, 6, 3), scale=0.05, zero_point=-9)
    y = m.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    m.output(y, m.conv_2d(y, int8(4, 3, 3, 3), weight_scale=0.01, scale=0.1, padding="VALID"))
    assert len(layers(check(m.build(), [int8(1, 6, 6, 3)]))) == 2


def test_a_second_reader_keeps_a_clamp_apart():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 3), scale=0.05, zero_point=3)
    y = m.conv_2d(x, int8(3, 1, 1, 3), weight_scale=0.01, scale=0.1, zero_point=-4)
    m.output(m.add(y, m.relu(y), scale=0.2))
    kinds = [type(layer) for layer in layers(check(m.build(), [int8(1, 4, 4, 3)]))]
    assert kinds == [Convolution, Rescale, Add]


def test_a_clamp_with_equal_scales_joins_the_layer_before():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 3), scale=0.05, zero_point=3)
    y = m.relu(m.add(x, x, scale=0.08, zero_point=-20), scale=0.08, zero_point=-20)
    m.output(m.relu6(y))
    (layer,) = layers(check(m.build(), [int8(1, 4, 4, 3)]))
    assert isinstance(layer, Add)
    assert (layer.minimum, layer.maximum) == (-20, 55)


def test_constant_operators_before_a_reshape_are_dropped():
    """The chain that Keras writes for Flatten: the shape is computed from the batch, but known all the same."""
    m = ModelBuilder()
    x = m.input("x", (1, 3, 3, 2), scale=0.05, shape_signature=(-1, 3, 3, 2))
    y = m.max_pool_2d(x, 1)
    shape = m.operator("SHAPE", [y], (4,), schema.ShapeOptionsT(schema.TensorType.INT32), dtype="int32", scale=None)
    count = m.operator("SUM", [shape, m.constant("axis", np.array([0], np.int32))], (1,), schema.ReducerOptionsT())
    y = m.operator("RESHAPE", [y, m.operator("PACK", [count, count], (2, 1))], (1, 18), schema.ReshapeOptionsT())
    m.output(m.fully_connected(y, int8(4, 18), weight_scale=0.01, scale=0.1))
    partition = import_tflite(m.build(), "model")
    assert len(partition.parts) == 1
    assert len(layers(partition)) == 2


def test_bias_that_overflows_with_the_zero_point_stays_on_the_host():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 3), scale=0.05, zero_point=127)
    y = m.max_pool_2d(x, 1)
    bias = np.array([INT32_MAX - 5], np.int32)
    m.output(m.conv_2d(y, -np.full((1, 1, 1, 3), 100, np.int8), bias, weight_scale=1e-6, scale=0.1, name="conv"))
    partition = import_tflite(m.build(), "model")
    host = partition.parts[-1]
    assert isinstance(host, HostPart)
    assert host.operators[0][0] == "CONV_2D conv"
    assert "it comes to" in host.operators[0][1]


def test_tensors_have_the_users_names_shapes_and_scales():
    partition = import_tflite(conv_model(), "model")
    assert [(t.name, t.shape, t.dtype, t.zero_point) for t in partition.tensors] == [
        ("x", (1, 6, 5, 3), "int8", 4),
        ("conv", (1, 6, 5, 4), "int8", -7),
    ]
    assert partition.tensors[0].scale == pytest.approx(0.05)


def test_names_given_twice_are_told_apart():
    m = ModelBuilder()
    x = m.input("t", (1, 4, 4, 3), scale=0.05)
    m.output(m.max_pool_2d(m.max_pool_2d(x, 2, name="t"), 2, name="t"))
    partition = check(m.build(), [int8(1, 4, 4, 3)])
    assert len({t.name for t in partition.tensors}) == len(partition.tensors) == 2


class TestRefused:
    def refused(self, model: bytes, *words: str) -> None:
        with pytest.raises(CompileError) as caught:
            import_tflite(model, "net.tflite")
        message = str(caught.value)
        assert message.startswith("net.tflite")
        assert "\n" not in message
        for word in words:
            assert word in message

    def test_empty_file(self):
        self.refused(b"", "not a TFLite model")

    def test_another_kind_of_file(self):
        self.refused(b"\x89PNG\r\n\x1a\n" * 20, "not a TFLite model", "TFL3")

    def test_zeros_behind_the_identifier(self):
        self.refused(b"\x1c\x00\x00\x00TFL3" + bytes(100), "schema version 0")

    def test_float_network(self):
        model = model_path("mlperf_tiny/ic_resnet8_f32.tflite").read_bytes()
        self.refused(model, "no operator can run on the accelerator", "float32", "quantize the model to int8")

    def test_legacy_uint8_network(self):
        model = model_path("tflite/mobilenet_v1_0.25_128_quant.tflite").read_bytes()
        self.refused(model, "CONV_2D", "uint8", "convert the model again")

    @pytest.mark.parametrize("signature", [(1, -1, 5, 3), (1, 6, 5, -1), (-1, -1, -1, 3)])
    def test_dynamic_shape(self, signature: tuple[int, ...]):
        m = ModelBuilder()
        x = m.input("picture", (1, 6, 5, 3), scale=0.05, shape_signature=signature)
        m.output(m.max_pool_2d(x, 2))
        self.refused(m.build(), "'picture'", "dynamic shape")

    def test_dynamic_batch_is_one(self):
        m = ModelBuilder()
        x = m.input("picture", (1, 6, 5, 3), scale=0.05, shape_signature=(-1, 6, 5, 3))
        m.output(m.max_pool_2d(x, 2))
        check(m.build(), [int8(1, 6, 5, 3)])

    def test_batch(self):
        m = ModelBuilder()
        x = m.input("picture", (2, 6, 5, 3), scale=0.05)
        m.output(m.max_pool_2d(x, 2))
        self.refused(m.build(), "MAX_POOL_2D", "(2, 6, 5, 3)", "batch 1")

    def test_unknown_operator(self):
        m = ModelBuilder()
        x = m.input("x", (1, 6, 5, 3), scale=0.05)
        m.output(m.operator("WHERE", [m.max_pool_2d(x, 1)], (1, 6, 5, 3), name="gone"))
        self.refused(m.build(), "WHERE 'gone'", "neither by the accelerator nor by tflite-micro")

    @pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), -0.5])
    def test_impossible_scale(self, scale: float):
        self.refused(conv_model(scale=scale), "CONV_2D 'conv'", "scale that is not a positive number")

    def test_zero_point_outside_int8(self):
        self.refused(conv_model(zero_point=300), "CONV_2D 'conv'", "zero point outside int8")

    def test_weights_with_a_zero_point(self):
        self.refused(conv_model(weight_zero_point=3), "CONV_2D 'conv'", "weights with a zero point")

    def test_fused_activation_without_kernel(self):
        m = ModelBuilder()
        x = m.input("x", (1, 6, 5, 3), scale=0.05)
        m.output(m.add(x, x, activation="TANH", name="sum"))
        self.refused(m.build(), "ADD 'sum'", "fused activation")

    @pytest.mark.parametrize("kind", ["CONCATENATION", "MAX_POOL_2D", "SOFTMAX", "tiny SOFTMAX"])
    def test_quantization_that_tflite_micro_refuses(self, kind: str):
        m = ModelBuilder()
        x = m.relu(m.input("x", (1, 6, 5, 3), scale=0.05), scale=2.0**-27 if "tiny" in kind else 0.05)
        match kind:
            case "CONCATENATION":
                m.output(m.concatenation([x, x], 3, scale=0.1))
            case "MAX_POOL_2D":
                m.output(m.max_pool_2d(x, 2, scale=0.1))
            case "SOFTMAX":
                m.output(m.softmax(x, scale=0.1))
            case _:
                m.output(m.softmax(x))
        if "tiny" not in kind:  # that one aborts the process
            with pytest.raises(OracleError):
                Oracle(m.build()).run([int8(1, 6, 5, 3)])
        self.refused(m.build(), kind.removeprefix("tiny "), "scale")

    def test_sum_that_tflite_micro_aborts_on(self):
        m = ModelBuilder()
        x = m.input("x", (1, 6, 5, 3), scale=0.5)
        m.output(m.add(x, x, scale=2.0**-21, name="sum"))
        self.refused(m.build(), "ADD 'sum'", "output scale")

    def test_activation_range_beyond_int32(self):
        self.refused(conv_model(scale=1e-9, weight_scale=1e-12, activation="RELU6"), "CONV_2D 'conv'", "beyond int32")

    def test_two_subgraphs(self):
        model = parsed(conv_model())
        model.subgraphs = [model.subgraphs[0], model.subgraphs[0]]
        self.refused(packed(model), "2 subgraphs")

    def test_no_subgraph(self):
        model = parsed(conv_model())
        model.subgraphs = []
        self.refused(packed(model), "0 subgraphs")

    def test_operator_in_front_of_what_it_reads(self):
        m = ModelBuilder()
        x = m.input("x", (1, 6, 5, 3), scale=0.05)
        m.output(m.max_pool_2d(m.max_pool_2d(x, 1, name="first"), 1, name="second"))
        model = parsed(m.build())
        model.subgraphs[0].operators.reverse()
        self.refused(packed(model), "MAX_POOL_2D 'second'", "'first'", "nothing before it computes")

    def test_buffer_out_of_range(self):
        model = parsed(conv_model())
        model.subgraphs[0].tensors[1].buffer = 99
        self.refused(packed(model), "buffer 99")

    def test_tensor_out_of_range(self):
        model = parsed(conv_model())
        model.subgraphs[0].operators[0].inputs = np.array([0, 1, 77], np.int32)
        self.refused(packed(model), "tensor 77")

    @pytest.mark.parametrize("shape", [(1, 6, 5, 2**30), (1, -6, 5, 3), (1,) * 9])
    def test_absurd_shape(self, shape: tuple[int, ...]):
        model = parsed(conv_model())
        model.subgraphs[0].tensors[0].shape = np.array(shape, np.int32)
        self.refused(packed(model), "'x'", "elements are possible")

    def test_output_of_another_shape_than_computed(self):
        model = parsed(conv_model())
        model.subgraphs[0].tensors[-1].shape = np.array([1, 6, 6, 4], np.int32)
        self.refused(packed(model), "CONV_2D 'conv'", "(1, 6, 6, 4)")

    def test_weights_that_do_not_fill_their_shape(self):
        model = parsed(conv_model())
        model.subgraphs[0].tensors[1].shape = np.array([5, 3, 3, 3], np.int32)
        self.refused(packed(model), "holds 108 bytes", "135")

    @pytest.mark.parametrize("member", ["strideH", "strideW", "dilationHFactor", "dilationWFactor"])
    def test_window_that_does_not_move(self, member: str):
        model = parsed(conv_model())
        setattr(model.subgraphs[0].operators[0].builtinOptions, member, 0)
        self.refused(packed(model), "CONV_2D 'conv'", "must be positive")

    def test_tables_that_share_their_bytes_a_thousand_times(self):
        """100 kB that would become gigabytes of scales."""
        count = 10_000
        builder = flatbuffers.Builder(1024)
        scales = builder.CreateNumpyVector(np.ones(count, np.float32))
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scales)
        quantization = schema.QuantizationParametersEnd(builder)
        schema.TensorStart(builder)
        schema.TensorAddQuantization(builder, quantization)
        tensor = schema.TensorEnd(builder)
        schema.SubGraphStartTensorsVector(builder, count)
        for _ in range(count):
            builder.PrependUOffsetTRelative(tensor)
        tensors = builder.EndVector()
        schema.SubGraphStart(builder)
        schema.SubGraphAddTensors(builder, tensors)
        graph = schema.SubGraphEnd(builder)
        schema.ModelStartSubgraphsVector(builder, 1)
        builder.PrependUOffsetTRelative(graph)
        graphs = builder.EndVector()
        schema.ModelStart(builder)
        schema.ModelAddVersion(builder, 3)
        schema.ModelAddSubgraphs(builder, graphs)
        builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
        self.refused(bytes(builder.Output()), "share the same bytes")

    def test_options_of_another_operator(self):
        model = parsed(conv_model())
        operator = model.subgraphs[0].operators[0]
        operator.builtinOptions, operator.builtinOptionsType = None, 0
        self.refused(packed(model), "CONV_2D 'conv'", "Conv2DOptions")


def parsed(model: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(model)


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("name", ["tflite/micro_speech_quantized.tflite", "mlperf_tiny/kws_dscnn_int8.tflite"])
def test_truncated_files_are_refused(name: str):
    data = model_path(name).read_bytes()
    for length in range(0, len(data) - 97, 97):
        with pytest.raises(CompileError):
            import_tflite(data[:length], "truncated")


FUZZED = random_case(0, "conv_mean_fully_connected_softmax").model_bytes


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@example([(4, 0)])
def test_corrupted_bytes_are_imported_or_refused(changes: list[tuple[int, int]]):
    data = bytearray(FUZZED)
    for place, value in changes:
        data[place] = value
    assert "\n" not in imported_or_refused(bytes(data))[1]


@pytest.mark.parametrize("name", ["tflite/micro_speech_quantized.tflite", "mlperf_tiny/ad_autoencoder_int8.tflite"])
def test_corrupted_networks_are_imported_or_refused(name: str):
    original, rng = model_path(name).read_bytes(), np.random.default_rng(5)
    for _ in range(150):
        data = bytearray(original)
        # Tables lie at both ends, weights in between.
        for place in rng.integers(-4000, 4000, 4):
            data[place] ^= 1 << int(rng.integers(8))
        assert "\n" not in imported_or_refused(bytes(data))[1]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(tail: bytes):
    with pytest.raises(CompileError):
        import_tflite(b"\x10\x00\x00\x00TFL3" + tail, "random")


def test_the_same_file_gives_the_same_partition():
    model = random_case(3, "float_edges").model_bytes
    first, second = import_tflite(model, "a"), import_tflite(model, "a")
    assert repr(first) == repr(second)


ACTIVATIONS: dict[str, Callable[[ModelBuilder, Tensor], Tensor]] = {
    "LOGISTIC": lambda m, x: m.logistic(x),
    "TANH": lambda m, x: m.tanh(x),
    "LEAKY_RELU": lambda m, x: m.leaky_relu(x, 0.3, scale=0.04, zero_point=-7),
    "HARD_SWISH": lambda m, x: m.hard_swish(x, scale=0.03, zero_point=-90),
    "ELU": lambda m, x: m.elu(x, scale=0.05, zero_point=-60),
}


@pytest.mark.parametrize("code", ACTIVATIONS)
def test_activation_functions_are_tables_of_what_tflite_micro_computes(code: str) -> None:
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 2, 8)
    m = ModelBuilder()
    m.output(ACTIVATIONS[code](m, m.input("x", every.shape, scale=0.04, zero_point=11)))
    (part,) = check(m.build(), [every]).parts
    assert isinstance(part, Graph)
    (layer,) = part.layers
    assert isinstance(layer, Table)
    (expected,) = Oracle(m.build()).run([every])
    np.testing.assert_array_equal(layer.table, expected.ravel())


def test_what_tflite_micro_refuses_is_no_table() -> None:
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 2), scale=0.04, zero_point=11)
    m.output(m.logistic(m.relu(x), scale=0.1, zero_point=0))
    partition, _ = imported_or_refused(m.build())
    assert partition is not None
    host = partition.parts[-1]
    assert isinstance(host, HostPart)
    assert "tflite-micro refuses its quantization" in host.operators[0][1]
