# SPDX-License-Identifier: Apache-2.0
"""Views of the same numbers: reshapes and transposes between quantized ONNX operators, and at a network's ends."""

import numpy as np
import pytest

from loomwork.compiler.graph import Add, Convolution, Graph, HostPart, Mean, Rearrange, Rescale
from loomwork.compiler.importers.onnx import import_onnx
from tests.compiler.onnx_check import check, host_operators, layers
from tests.onnx_models import SCALE, ZERO_POINT, Case, QdqBuilder

TYPES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
IMAGE = (1, 8, 9, 10)


def conv(m: QdqBuilder, x: str, depth: int, outs: int, size: int = 3) -> str:
    """A convolution that keeps the image's size, and ReLU."""
    y = m.node("Conv", x, m.weights((outs, depth, size, size)), pads=[size // 2] * 4)
    return m.quantize(m.node("Relu", y), zero_point=-128)


@TYPES
@pytest.mark.parametrize("how", ["Flatten", "Reshape", "Squeeze", "before Q"])
def test_an_image_becomes_a_vector(how: str, dtype: str) -> None:
    """The weights of the dense layer follow the order in which the image lies in memory."""
    m = QdqBuilder(dtype=dtype)
    x = m.input((1, 8, 1, 10) if how == "Squeeze" else IMAGE)
    size = 80 if how == "Squeeze" else 720
    y = m.quantize(m.node("Conv", x, m.weights((8, 8, 1, 1))))
    match how:
        case "Flatten":
            y = m.node("Flatten", y)
        case "Reshape":
            y = m.node("Reshape", y, m.constant([1, -1]))
        case "Squeeze":
            y = m.node("Reshape", m.node("Squeeze", y, m.constant([2])), m.constant([1, 80]))
        case _:
            y = m.node("Conv", x, m.weights((8, 8, 1, 1)))
            y = m.quantize(m.node("Flatten", m.node("Relu", y)))
    m.output(m.quantize(m.node("Gemm", y, m.weights((40, size)), transB=1)), stored=True)
    kinds = [type(layer) for layer in layers(check(m.case(30)))]
    assert kinds == [Convolution, Convolution]


def test_a_vector_becomes_an_image() -> None:
    m = QdqBuilder()
    y = m.quantize(m.node("Gemm", m.input((1, 20)), m.weights((20, 60)), m.bias((60,), SCALE * 0.00413)))
    y = m.node("Unsqueeze", y, m.constant([2, 3]))
    m.output(m.quantize(m.node("Conv", y, m.weights((40, 60, 1, 1)))))
    assert len(layers(check(m.case(30)))) == 2


@TYPES
def test_transposes_that_undo_each_other_vanish(dtype: str) -> None:
    """NCHW to NHWC and back, as tf2onnx leaves them around operators."""
    m = QdqBuilder(dtype=dtype)
    y = conv(m, m.input(IMAGE), 8, 6)
    y = m.node("Transpose", y, perm=[0, 2, 3, 1])
    y = m.quantize(m.node("Relu", y), zero_point=-128)
    y = m.node("Transpose", y, perm=[0, 3, 1, 2])
    m.output(m.quantize(m.node("Conv", y, m.weights((7, 6, 2, 2)))), stored=True)
    kinds = [type(layer) for layer in layers(check(m.case()))]
    assert kinds.count(Convolution) == 2
    assert Rearrange not in kinds


@TYPES
def test_network_with_channels_last(dtype: str) -> None:
    """Inputs and outputs NHWC: the accelerator's own order."""
    m = QdqBuilder(dtype=dtype, stored=True)
    y = m.node("Transpose", m.input((1, 9, 10, 8)), perm=[0, 3, 1, 2])
    y = m.node("Transpose", conv(m, y, 8, 6), perm=[0, 2, 3, 1])
    step = m.fitting_scale(y)
    m.output(m.quantize(y, scale=step), stored=True)
    partition = check(m.case())
    assert any(isinstance(part, Graph) for part in partition.parts)


def test_int8_and_channels_last_needs_no_host() -> None:
    m = QdqBuilder(stored=True)
    x = m.node("Transpose", m.stored(m.input((1, 9, 10, 8))), perm=[0, 3, 1, 2])
    y = m.node("Conv", m.dequantize(x, SCALE, ZERO_POINT), m.weights((6, 8, 3, 3)))
    y = m.stored(m.quantize(y, scale=0.0713))
    m.stored_output(m.node("Transpose", y, perm=[0, 2, 3, 1]), (1, 7, 8, 6))
    partition = check(m.case())
    assert [type(part) for part in partition.parts if isinstance(part, Graph)] == [Graph]


@TYPES
def test_int8_inputs_and_outputs_are_turned_over(dtype: str) -> None:
    m = QdqBuilder(dtype=dtype, stored=True)
    m.output(conv(m, conv(m, m.input(IMAGE), 8, 6), 6, 5), stored=True)
    partition = check(m.case())
    hosts = [part for part in partition.parts if isinstance(part, HostPart)]
    assert host_operators(partition) == {}
    assert len(hosts) == 2


def permuted() -> Case:
    """A convolution, rows and columns exchanged, another convolution."""
    m = QdqBuilder()
    y = m.node("Transpose", conv(m, m.input((1, 4, 9, 10)), 4, 6), perm=[0, 1, 3, 2])
    m.output(conv(m, y, 6, 5))
    return m.case()


def shuffled(dtype: str) -> Case:
    """ShuffleNet: reshape, transpose, reshape between grouped convolutions."""
    m = QdqBuilder(dtype=dtype)
    y = m.quantize(m.node("Conv", m.input(IMAGE), m.weights((12, 4, 1, 1)), group=2), scale=0.0913)
    y = m.node("Reshape", y, m.constant([1, 2, 6, 9, 10]))
    y = m.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = m.quantize(m.node("Reshape", y, m.constant([1, 12, 9, 10])), scale=0.0913)
    y = m.node("Conv", y, m.weights((12, 1, 3, 3), scale=0.0213), group=12)
    m.output(m.quantize(y), stored=True)
    return m.case()


def test_a_transpose_that_moves_numbers_is_exact() -> None:
    check(permuted())


@TYPES
def test_a_channel_shuffle_is_exact(dtype: str) -> None:
    check(shuffled(dtype))


def test_channels_as_rows_of_a_product() -> None:
    """Channels lie side by side in memory, so that each pixel is a row."""
    m = QdqBuilder()
    y = m.quantize(m.node("Conv", m.input((1, 12, 30)), m.weights((12, 12, 3)), pads=[1, 1]))
    y = m.node("Transpose", y, perm=[0, 2, 1])
    m.output(m.quantize(m.node("MatMul", y, m.weights((12, 20), axis=1))))
    check(m.case())


def test_channels_summed_in_a_product_are_exact() -> None:
    m = QdqBuilder()
    y = m.quantize(m.node("Conv", m.input((1, 12, 30)), m.weights((12, 12, 3)), pads=[1, 1]))
    m.output(m.quantize(m.node("MatMul", y, m.weights((30, 20), axis=1))))
    check(m.case(), host=None)


def test_one_dimensional_network() -> None:
    m = QdqBuilder()
    y = m.node("Conv", m.input((1, 3, 64)), m.weights((8, 3, 5)), pads=[2, 2], strides=[2])
    y = m.quantize(m.node("Relu", y), zero_point=-128)
    y = m.node("MaxPool", y, kernel_shape=[2], strides=[2])
    y = m.quantize(y, scale=0.0517, zero_point=-128)
    z = m.quantize(m.node("Conv", y, m.weights((8, 8, 3)), pads=[1, 1]))
    y = m.quantize(m.node("Relu", m.node("Add", y, z)), zero_point=-128)
    y = m.node("Flatten", m.quantize(m.node("GlobalAveragePool", y), zero_point=-128))
    m.output(m.quantize(m.node("Gemm", y, m.weights((8, 30)), m.bias((30,), 0.0002))))
    kinds = [type(layer) for layer in layers(check(m.case(40)))]
    assert kinds.count(Mean) == 1


def test_outputs_in_the_middle() -> None:
    m = QdqBuilder()
    first = conv(m, m.input(IMAGE), 8, 6)
    second = conv(m, first, 6, 5)
    m.output(second)
    m.output(first)
    m.output(first, stored=True)
    m.output(m.node("Transpose", first, perm=[0, 2, 3, 1]))
    case = m.case()
    assert len(layers(check(case))) == 2


def test_a_tensor_read_by_host_and_accelerator() -> None:
    m = QdqBuilder()
    y = conv(m, m.input(IMAGE), 8, 6)
    m.output(conv(m, y, 6, 5))
    hidden = m.node("Softmax", y, axis=1)
    m.output(m.quantize(hidden, scale=0.00397, zero_point=-128))
    check(m.case(), host=["Softmax"])


@TYPES
@pytest.mark.parametrize("stride", [1, 2])
def test_residual_block(stride: int, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    x = conv(m, m.input(IMAGE), 8, 8)
    y = m.node("Conv", x, m.weights((8, 8, 3, 3)), pads=[1, 1, 1, 1], strides=[stride, stride])
    y = m.quantize(m.node("Relu", y), zero_point=-128)
    y = m.quantize(m.node("Conv", y, m.weights((8, 8, 3, 3)), pads=[1, 1, 1, 1]))
    side = x
    if stride == 2:
        side = m.quantize(m.node("Conv", x, m.weights((8, 8, 1, 1)), strides=[2, 2]))
    m.output(m.quantize(m.node("Relu", m.node("Add", y, side)), zero_point=-128), stored=True)
    kinds = [type(layer) for layer in layers(check(m.case(8)))]
    assert kinds.count(Add) == 1


@TYPES
def test_detector_head(dtype: str) -> None:
    """SSD: predictions of two scales as rows of one table, with probabilities."""
    m = QdqBuilder(dtype=dtype)
    large = conv(m, m.input(IMAGE), 8, 8)
    small = m.quantize(m.node("Conv", large, m.weights((8, 8, 3, 3)), strides=[2, 2], pads=[1] * 4), zero_point=-5)
    rows: list[str] = []
    for features in (large, small):
        y = m.quantize(m.node("Conv", features, m.weights((6, 8, 1, 1))), scale=0.0413, zero_point=7)
        y = m.node("Transpose", y, perm=[0, 2, 3, 1])
        rows.append(m.node("Reshape", y, m.constant([1, -1, 3])))
    together = m.quantize(m.node("Concat", *rows, axis=1), scale=0.0413, zero_point=7)
    m.output(together)
    m.output(m.quantize(m.node("Softmax", together, axis=2), scale=1 / 255.3, zero_point=-128))
    check(m.case(), host=["Softmax"])


def test_reshape_that_no_form_fits_is_left_to_the_host() -> None:
    """Pixels and channels mixed: a convolution finds no image there."""
    m = QdqBuilder()
    y = m.node("Reshape", conv(m, m.input(IMAGE), 8, 8), m.constant([1, 10, 9, 8]))
    m.output(m.quantize(m.node("Conv", y, m.weights((5, 10, 1, 1))), scale=0.0913))
    check(m.case(), host=["Conv"])


def test_batches_are_left_to_the_host() -> None:
    m = QdqBuilder()
    y = m.quantize(m.node("Relu", m.input((4, 8, 9, 10))), zero_point=-128)
    m.output(m.quantize(m.node("Conv", y, m.weights((5, 8, 1, 1))), scale=0.0913))
    partition = check(m.case(1), host=["Conv"])
    assert [type(layer) for layer in layers(partition)] == [Rescale]
    (reason,) = host_operators(partition).values()
    assert "batch of 1" in reason


def test_the_same_model_gives_the_same_partition() -> None:
    m = QdqBuilder()
    y = conv(m, m.input(IMAGE), 8, 6)
    m.output(m.quantize(m.node("Softmax", conv(m, y, 6, 5), axis=1), scale=0.00397))
    model = m.model()
    first, second = (import_onnx(model, "model") for _ in range(2))
    with np.printoptions(threshold=1 << 30):
        assert repr(first) == repr(second)
