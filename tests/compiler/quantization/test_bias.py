# SPDX-License-Identifier: Apache-2.0
"""Bias correction: the mean of each channel is that of the float model."""

import numpy as np
import onnx
import pytest

from loomwork.compiler.quantization import quantize
from tests.compiler.quantization.graphs import Node, model, node, normal
from tests.onnx_models import onnxruntime_session

X = [1, 4, 6, 6]


def means(network: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Mean of each channel over images and places."""
    session = onnxruntime_session(network)
    outputs = np.concatenate([np.asarray(session.run(None, {"x": image[None]})[0]) for image in images])
    return outputs.mean(axis=tuple(index for index in range(outputs.ndim) if index != 1))


def rough(*shape: int) -> np.ndarray:
    """Weights of which most round upwards: one of 1 sets a step of 1/127, the others lie 0.6 steps above it."""
    values = np.full(shape, 20.6 / 127, np.float32)
    values.reshape(shape[0], -1)[:, 0] = 1
    return values


@pytest.mark.parametrize(
    ("nodes", "constants", "shape"),
    [
        ([node("Conv", "x w b", "y", pads=[1, 1, 1, 1])], {"w": rough(5, 4, 3, 3), "b": normal(5)}, [1, 5, 6, 6]),
        ([node("Conv", "x w", "y", group=4)], {"w": rough(4, 1, 3, 3)}, [1, 4, 4, 4]),
        (
            [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", transB=1)],
            {"w": rough(5, 144), "b": normal(5)},
            [1, 5],
        ),
        ([node("ConvTranspose", "x w", "y")], {"w": rough(4, 5, 3, 3)}, [1, 5, 8, 8]),
    ],
    ids=["Conv", "depthwise without bias", "Gemm", "ConvTranspose"],
)
def test_means_of_channels_come_out_right(nodes: list[Node], constants: dict[str, np.ndarray], shape: list[int]):
    network = model(nodes, {"x": X}, {"y": shape}, constants)
    images = np.abs(normal(32, *X[1:], seed=7))
    plain = quantize(network, {"x": images}, method="minmax", correct_bias=False)
    result = quantize(network, {"x": images}, method="minmax")
    assert result.chosen.bias_corrected
    wanted = means(network, images)
    before, after = (np.abs(means(item.model, images) - wanted).max() for item in (plain, result))
    assert after < 0.25 * before
    assert result.chosen.snr_db > plain.chosen.snr_db + 3
    # Layers are measured against the network as it came, not against the one with other biases.
    assert result.layers[-1].snr_db == pytest.approx(result.outputs["y"], abs=0.01)


def test_a_bias_of_two_layers_is_corrected_for_each():
    nodes = [node("Conv", "x w1 b", "c"), node("Conv", "x w2 b", "d"), node("Concat", "c d", "y", axis=1)]
    constants = {"w1": rough(5, 4, 1, 1), "w2": 3 * rough(5, 4, 1, 1), "b": normal(5)}
    network = model(nodes, {"x": X}, {"y": [1, 10, 6, 6]}, constants)
    images = np.abs(normal(16, *X[1:], seed=7))
    result = quantize(network, {"x": images}, method="minmax")
    scale = next(layer.scale for layer in result.layers if layer.tensor == "y")
    np.testing.assert_allclose(means(result.model, images), means(network, images), atol=scale / 4)


def test_it_is_left_out_where_it_does_not_help():
    # Weights that int8 holds exactly have no error to correct.
    weights = np.array([127, -64, 32, 1], np.float32).reshape(1, 4, 1, 1) / 128
    network = model([node("Conv", "x w", "y")], {"x": X}, {"y": [1, 1, 6, 6]}, {"w": weights})
    result = quantize(network, {"x": normal(8, *X[1:])}, method="minmax")
    assert [trial.bias_corrected for trial in result.trials] == [False, True]
    assert not result.chosen.bias_corrected
