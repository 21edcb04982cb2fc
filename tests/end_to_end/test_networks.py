# SPDX-License-Identifier: Apache-2.0
"""Real networks on the RTL: every output of every image identical on tflite-micro, golden model and RTL."""

from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.config import PRESETS
from loomwork.arch.program import Program
from loomwork.compiler.driver import compile_model
from loomwork.sim.backend import Array, run_program
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.verilator import VerilatorBackend
from tests.models import data_path, model_path
from tests.oracle import Oracle

IMAGES = 20
NETWORKS = {
    "resnet8": "mlperf_tiny/ic_resnet8_int8.tflite",
    "ds_cnn": "mlperf_tiny/kws_dscnn_int8.tflite",
    "vww": "mlperf_tiny/vww_mbv1_025_int8.tflite",
    "autoencoder": "mlperf_tiny/ad_autoencoder_int8.tflite",
    "micro_speech": "tflite/micro_speech_quantized.tflite",
}


def network_inputs(name: str, program: Program, images: int) -> Array:
    """Real inputs where there are data for the network, else random ones."""
    if name == "ds_cnn":
        return keywords()[0][:images]
    if name == "resnet8":
        return pictures()[0][:images]
    tensor = next(tensor for tensor in program.tensors if tensor.name == program.inputs[0])
    generator = np.random.default_rng(len(name))
    return generator.integers(-128, 127, (images, *tensor.shape[1:]), endpoint=True).astype(np.int8)


def keywords() -> tuple[Array, Array]:
    """The benchmark's own keyword inputs `[1000, 49, 10, 1]` int8 and their labels."""
    with np.load(data_path("kws01_inputs.npz")) as data:
        return data["x"], data["y"]


def pictures() -> tuple[Array, Array]:
    """Lossless CIFAR-10 images `[200, 32, 32, 3]`, quantized as the network's input is, and their labels."""
    with np.load(data_path("cifar10_lossless_200.npz")) as data:
        return (data["x"].astype(np.int16) - 128).astype(np.int8), data["y"]


def expected_outputs(model: Path, inputs: Array) -> Array:
    """What tflite-micro computes, `[images, values]`."""
    oracle = Oracle(model)
    (outputs,) = oracle.run_batch([inputs.reshape(-1, *oracle.input_shapes[0])])
    return outputs.reshape(len(inputs), -1)


def outputs_of(program: Program, inputs: Array, backend: GoldenBackend | VerilatorBackend) -> Array:
    """Run one-input, one-output programs; `[images, values]`."""
    result = run_program(program, {program.inputs[0]: inputs}, backend)
    return result.outputs[program.outputs[0]].reshape(len(inputs), -1)


@pytest.mark.parametrize("config_name", ["small", "base"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_exact_on_golden_model_and_rtl(name: str, config_name: str) -> None:
    model = model_path(NETWORKS[name])
    program = compile_model(model, PRESETS[config_name])
    inputs = network_inputs(name, program, IMAGES)
    expected = expected_outputs(model, inputs)
    assert len(np.unique(expected, axis=0)) > 1, "the inputs do not exercise the network"
    np.testing.assert_array_equal(outputs_of(program, inputs, GoldenBackend()), expected)
    np.testing.assert_array_equal(outputs_of(program, inputs, VerilatorBackend()), expected)


@pytest.mark.parametrize("config_name", ["small", "base"])
def test_keywords_are_recognized(config_name: str) -> None:
    model = model_path(NETWORKS["ds_cnn"])
    inputs, labels = keywords()
    assert len(inputs) == 1000
    found = outputs_of(compile_model(model, PRESETS[config_name]), inputs, GoldenBackend())
    np.testing.assert_array_equal(found, expected_outputs(model, inputs))
    assert np.mean(found.argmax(axis=1) == labels) >= 0.89


def test_pictures_are_recognized() -> None:
    model = model_path(NETWORKS["resnet8"])
    inputs, labels = pictures()
    assert len(inputs) == 200
    found = outputs_of(compile_model(model, PRESETS["base"]), inputs, GoldenBackend())
    np.testing.assert_array_equal(found, expected_outputs(model, inputs))
    assert np.mean(found.argmax(axis=1) == labels) >= 0.87
