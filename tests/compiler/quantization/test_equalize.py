# SPDX-License-Identifier: Apache-2.0
"""Equalization: the same function, channels of like size."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from loomwork.compiler.quantization import quantize
from loomwork.compiler.quantization.equalize import equalize
from tests.compiler.quantization.graphs import Node, conv_relu_conv, model, node, normal, samples
from tests.onnx_models import onnxruntime_session


def run(network: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime_session(network)
    return np.asarray(session.run(None, {"x": x})[0])


def weights(network: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = [tensor for tensor in network.graph.initializer if tensor.name == name]
    return numpy_helper.to_array(tensor)


def spread(*shape: int, seed: int) -> np.ndarray:
    """Weights whose first axis has sizes from 0.01 to 10."""
    factors = np.logspace(-2, 1, shape[0], dtype=np.float32)
    return normal(*shape, seed=seed) * factors.reshape(-1, *[1] * (len(shape) - 1))


def separable(between: Node = ("Relu", ["a"], ["b"], {})) -> onnx.ModelProto:
    """Convolution, depthwise convolution, convolution of two groups."""
    return model(
        [
            node("Conv", "x w1 b1", "a"),
            between,
            node("Conv", "b w2 b2", "c", group=4, pads=[1, 1, 1, 1]),
            node("Relu", "c", "d"),
            node("Conv", "d w3", "y", group=2),
        ],
        {"x": [1, 3, 6, 6]},
        {"y": [1, 6, 6, 6]},
        {
            "w1": spread(4, 3, 1, 1, seed=1),
            "b1": normal(4, seed=2),
            "w2": spread(4, 1, 3, 3, seed=3),
            "b2": normal(4, seed=4),
            "w3": normal(6, 2, 1, 1, seed=5),
        },
    )


def largest(values: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(values).max(axis=tuple(index for index in range(values.ndim) if index != axis))


def test_the_function_stays():
    network, x = separable(), samples(1, 3, 6, 6)
    changed, pairs = equalize(network)
    assert pairs == (("n0", "n2"), ("n2", "n4"))
    np.testing.assert_allclose(run(changed, x), run(network, x), rtol=1e-4, atol=1e-4)
    assert not np.allclose(weights(changed, "w1"), weights(network, "w1"))


def test_channels_are_as_large_in_front_as_behind():
    changed, _ = equalize(separable())
    np.testing.assert_allclose(largest(weights(changed, "w1"), 0), largest(weights(changed, "w2"), 0), rtol=0.01)
    # Input channels 0 and 1 belong to the first group of three outputs, 2 and 3 to the second.
    w3 = weights(changed, "w3")
    behind = np.concatenate([largest(w3[:3], 1), largest(w3[3:], 1)])
    np.testing.assert_allclose(largest(weights(changed, "w2"), 0), behind, rtol=0.01)


@pytest.mark.parametrize(
    "between",
    [node("LeakyRelu", "a", "b", alpha=0.1), node("MaxPool", "a", "b", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
)
def test_operators_that_keep_a_factor_may_lie_between(between: Node):
    network, x = separable(between), samples(1, 3, 6, 6)
    changed, pairs = equalize(network)
    assert ("n0", "n2") in pairs
    np.testing.assert_allclose(run(changed, x), run(network, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("between", [node("Sigmoid", "a", "b"), node("Softmax", "a", "b"), node("HardSwish", "a", "b")])
def test_operators_that_do_not_end_a_pair(between: Node):
    _, pairs = equalize(separable(between))
    assert pairs == (("n2", "n4"),)


def test_a_tensor_with_other_readers_ends_a_pair():
    network = separable()
    network.graph.output.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1, 4, 6, 6]))
    assert equalize(network)[1] == (("n2", "n4"),)


def test_shared_weights_end_a_pair():
    network = separable()
    network.graph.node.append(onnx.helper.make_node("Conv", ["x", "w1"], ["z"], name="other"))
    network.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    assert equalize(network)[1] == (("n2", "n4"),)


def test_a_channel_of_zeros_is_left_alone():
    network = conv_relu_conv()
    w1 = normal(4, 3, 3, 3, seed=10)
    w1[2] = 0
    network.graph.initializer[0].CopyFrom(numpy_helper.from_array(w1, "w1"))
    changed, _ = equalize(network)
    assert np.isfinite(weights(changed, "w2")).all()
    np.testing.assert_array_equal(weights(changed, "w2")[:, 2], weights(network, "w2")[:, 2])


def test_it_is_chosen_where_channels_lie_far_apart():
    # Small channels that the second layer makes large again: one scale for all of them loses these.
    constants = {"w1": spread(4, 3, 1, 1, seed=1), "w2": normal(5, 4, 1, 1, seed=2)}
    constants["w2"] /= largest(constants["w1"], 0).reshape(1, 4, 1, 1)
    nodes = [node("Conv", "x w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "y")]
    network = model(nodes, {"x": [1, 3, 6, 6]}, {"y": [1, 5, 6, 6]}, constants)
    result = quantize(network, {"x": samples(16, 3, 6, 6)}, method="minmax", correct_bias=False)
    plain, equalized = result.trials
    assert (plain.equalized, equalized.equalized) == (False, True)
    assert equalized.snr_db > plain.snr_db + 10
    assert result.chosen == equalized
    assert result.pairs == (("n0", "n2"),)
