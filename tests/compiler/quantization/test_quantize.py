# SPDX-License-Identifier: Apache-2.0
"""The search for the best way, and the report, measured again from the files alone."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest

from loomwork.compiler.quantization import METHODS, Method, QuantizeError, quantize, read_model
from loomwork.compiler.quantization.accuracy import top1
from tests.compiler.quantization.graphs import conv_relu_conv, model, node, normal, samples
from tests.compiler.quantization.qdq import Reader
from tests.models import data_path, model_path

DATA = samples(12, 3, 6, 6)


def run(network: onnx.ModelProto, images: np.ndarray, output: str = "y") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    extended = onnx.ModelProto()
    extended.CopyFrom(network)
    if output not in {value.name for value in extended.graph.output}:
        extended.graph.output.add().name = output
    session = onnxruntime.InferenceSession(extended.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([np.asarray(session.run([output], {name: image[None]})[0]) for image in images])


def snr(wanted: np.ndarray, got: np.ndarray) -> float:
    wanted = wanted.astype(np.float64)
    return 10 * math.log10(np.square(wanted).sum() / np.square(got - wanted).sum())


@pytest.fixture(scope="module")
def result():
    return quantize(conv_relu_conv(), {"x": DATA})


def test_auto_tries_everything_and_keeps_the_best(result):
    plain = [trial.method for trial in result.trials if not trial.equalized and not trial.bias_corrected]
    equalized = [trial.method for trial in result.trials if trial.equalized and not trial.bias_corrected]
    assert plain == equalized == list(METHODS)
    assert sum(trial.bias_corrected for trial in result.trials) == 1
    assert result.chosen.snr_db == max(trial.snr_db for trial in result.trials)


def test_the_ratio_at_the_output_is_that_of_the_file(result):
    measured = snr(run(conv_relu_conv(), DATA), run(result.model, DATA))
    assert result.outputs["y"] == pytest.approx(measured, abs=0.01)
    assert result.chosen.snr_db == result.outputs["y"]
    assert measured > 25


@pytest.mark.parametrize("method", METHODS)
def test_one_method_alone(method: Method):
    only = quantize(conv_relu_conv(), {"x": DATA}, method=method, equalize=False, correct_bias=False)
    (trial,) = only.trials
    assert (trial.method, trial.equalized, trial.bias_corrected) == (method, False, False)
    # Entropy looks at the shape of a distribution, not at its errors, and is far behind on small tensors.
    assert trial.snr_db > (10 if method == "entropy" else 25)


def test_layers_are_reported_in_order(result):
    assert [(layer.name, layer.operator, layer.tensor) for layer in result.layers] == [
        ("x", "Input", "x"),
        ("n0", "Conv + Relu", "r"),
        ("n2", "Conv", "y"),
    ]
    assert result.unquantized == ()


def test_scales_and_ranges_are_those_of_the_file(result):
    reader = Reader(result.model)
    for layer, conv in zip(result.layers[1:], reader.operators(), strict=True):
        found = reader.output_scale(conv)
        assert (layer.scale, layer.zero_point) == (float(found.scale), int(found.zero_point))
        assert layer.low == pytest.approx((-128 - layer.zero_point) * layer.scale)
        assert layer.high == pytest.approx((127 - layer.zero_point) * layer.scale)


def test_ratios_of_layers_are_measured_on_their_tensors():
    plain = quantize(conv_relu_conv(), {"x": DATA}, method="minmax", equalize=False, correct_bias=False)
    layer = plain.layers[1]
    measured = snr(run(conv_relu_conv(), DATA, "r"), run(plain.model, DATA, "r_DequantizeLinear_Output"))
    assert layer.snr_db == pytest.approx(measured, abs=0.01)
    reader = Reader(plain.model)
    sources = (normal(4, 3, 3, 3, seed=10), normal(5, 4, 3, 3, seed=12))
    for layer, conv, source in zip(plain.layers[1:], reader.operators(), sources, strict=True):
        weights = reader.makers[conv.input[1]]
        integers = reader.constants[weights.input[0]].astype(np.float64)
        scale = reader.scale(weights).scale.reshape(-1, 1, 1, 1)
        assert layer.weight_snr_db == pytest.approx(snr(source, integers * scale), abs=0.01)


def test_minmax_holds_every_value_of_the_calibration_data():
    plain = quantize(conv_relu_conv(), {"x": DATA}, method="minmax", equalize=False, correct_bias=False)
    for tensor, layer in (("x", 0), ("r", 1), ("y", 2)):
        values = DATA if tensor == "x" else run(conv_relu_conv(), DATA, tensor)
        low, high = min(values.min(), 0), max(values.max(), 0)
        step = plain.layers[layer].scale
        assert step == pytest.approx((high - low) / 255, rel=1e-5)
        assert plain.layers[layer].low == pytest.approx(low, abs=step / 2 + 1e-6)


def test_percentile_leaves_values_out():
    data = np.clip(DATA, -2, 2)
    data[0, 0, 0, :2] = 40, -40
    wide = quantize(conv_relu_conv(), {"x": data}, method="minmax", equalize=False, correct_bias=False)
    narrow = quantize(conv_relu_conv(), {"x": data}, method="percentile", percentile=99.0, equalize=False)
    assert wide.layers[0].high - wide.layers[0].low == pytest.approx(80, rel=0.01)
    assert narrow.layers[0].high < 3
    assert narrow.layers[0].low > -3


@pytest.mark.parametrize("percentile", [0, 50, 101])
def test_a_percentile_is_one(percentile: float):
    with pytest.raises(QuantizeError, match="a percentile is more than 50 and at most 100, not "):
        quantize(conv_relu_conv(), {"x": DATA}, percentile=percentile)


def test_the_same_call_gives_the_same_file(result):
    again = quantize(conv_relu_conv(), {"x": DATA})
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


def test_the_float_model_is_not_changed():
    network = conv_relu_conv()
    before = network.SerializeToString()
    quantize(network, {"x": DATA}, method="minmax")
    assert network.SerializeToString() == before


def test_an_exact_network_is_infinitely_good():
    network = model([node("Transpose", "x", "y", perm=[1, 0])], {"x": [1, 4]}, {"y": [4, 1]})
    data = np.array([[-128, 127, 5, 0], [3, -7, 100, 1]], np.float32)
    found = quantize(network, {"x": data}, method="minmax")
    assert found.outputs == {"y": math.inf}
    assert found.layers[0].scale == 1


def test_several_inputs_and_outputs():
    network = model(
        [node("Add", "a b", "s"), node("Relu", "s", "p"), node("Sigmoid", "s", "q")],
        {"a": ["N", 4], "b": ["N", 4]},
        {"p": ["N", 4], "q": ["N", 4]},
    )
    found = quantize(network, {"a": normal(6, 4), "b": normal(6, 4, seed=5)}, method="minmax")
    assert set(found.outputs) == {"p", "q"}
    assert found.chosen.snr_db == pytest.approx(sum(found.outputs.values()) / 2)
    assert [value.name for value in found.model.graph.input] == ["a", "b"]
    assert [value.name for value in found.model.graph.output] == ["p", "q"]
    assert Reader(found.model).violations() == []


def test_accuracy_is_the_share_of_right_answers():
    network = model([node("Identity", "x", "y")], {"x": ["N", 3]}, {"y": ["N", 3]})
    scores = np.array([[0, 2, 1], [5, 1, 1], [0, 0, 9], [1, 3, 2]], np.float32)
    assert top1(network, {"x": scores}, np.array([1, 0, 2, 2])) == 0.75


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.array([0, 1]), "there are 2 labels for 4 samples of test data: give one for each"),
        (np.array([0, 1, 2, 3]), "labels go from 0 to 3, the model has classes 0 to 2"),
        (np.array([0.0, 1, 2, 2]), "labels are float64, expected integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, sentence: str):
    network = model([node("Identity", "x", "y")], {"x": ["N", 3]}, {"y": ["N", 3]})
    with pytest.raises(QuantizeError, match=sentence):
        top1(network, {"x": normal(4, 3)}, labels)


def test_digits_are_told_apart_as_well_as_before():
    network = read_model(model_path("onnx/mnist_conv.onnx"))
    with np.load(data_path("mnist.npz")) as digits:
        calibration = digits["x_train"][:50, None].astype(np.float32)
        images, labels = digits["x_test"][:500, None].astype(np.float32), digits["y_test"][:500]
    result = quantize(network, {"Input3": calibration}, method="minmax")
    before, after = (top1(item, {"Input3": images}, labels) for item in (network, result.model))
    assert before > 0.98
    assert after >= before - 0.004
    assert result.chosen.snr_db > 38
    assert Reader(result.model).violations() == []


def test_a_relu_that_shares_its_scale_with_negative_numbers_still_clamps():
    """One half of a Concat is behind a Relu, the other is not, as in ShuffleNetV2: the scale of both goes below 0."""
    network = model(
        [
            node("Conv", "x w1", "c"),
            node("Relu", "c", "r"),
            node("Conv", "r w2", "d"),
            node("Concat", "r d", "y", axis=1),
        ],
        {"x": [1, 3, 6, 6]},
        {"y": [1, 12, 6, 6]},
        {"w1": normal(6, 3, 1, 1), "w2": normal(6, 6, 1, 1, seed=2)},
    )
    result = quantize(network, {"x": DATA}, method="minmax", equalize=False, correct_bias=False)
    assert snr(run(network, DATA), run(result.model, DATA)) > 25
