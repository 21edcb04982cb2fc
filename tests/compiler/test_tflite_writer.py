# SPDX-License-Identifier: Apache-2.0
"""Written models load in tflite-micro and compute what plain integer formulas say."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import ModelT

from loomwork.compiler.tflite_writer import ModelBuilder, Padding, window_output
from tests.oracle import Oracle, run_tflite_micro

RNG = np.random.default_rng(20)


def int8(*shape: int, low: int = -127) -> np.ndarray:
    return RNG.integers(low, 128, shape, dtype=np.int8)


def float32(value: float) -> float:
    return float(np.float32(value))


def quantized(real: float) -> tuple[int, int]:
    """(m, e) with real = m * 2**(e - 31) and m in [2**30, 2**31), rounded."""
    fraction, exponent = math.frexp(real)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    return (mantissa // 2, exponent + 1) if mantissa == 2**31 else (mantissa, exponent)


def multiply(value: int, multiplier: tuple[int, int]) -> int:
    """`value` * m * 2**(e - 31) in two roundings: half up after the product, half away from zero after the shift."""
    mantissa, exponent = multiplier
    high = ((value << max(exponent, 0)) * mantissa + 2**30) >> 31
    shift = max(-exponent, 0)
    magnitude = (abs(high) + (1 << shift >> 1)) >> shift
    return magnitude if high >= 0 else -magnitude


def clamp(value: int, low: int = -128, high: int = 127) -> int:
    return min(max(value, low), high)


def windows(x: np.ndarray, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], same: bool):
    """For each output position: its (row, column) and the (ky, kx, pixel) of every tap that lies in the image."""
    starts = []
    for size, k, s, d in zip(x.shape[1:3], kernel, stride, dilation, strict=True):
        reach = (k - 1) * d + 1
        count = math.ceil(size / s) if same else math.ceil((size - reach + 1) / s)
        before = max((count - 1) * s + reach - size, 0) // 2 if same else 0
        starts.append([i * s - before for i in range(count)])
    for (row, top), (column, left) in itertools.product(*map(enumerate, starts)):
        taps = [
            (ky, kx, x[0, top + ky * dilation[0], left + kx * dilation[1]])
            for ky, kx in np.ndindex(kernel)
            if 0 <= top + ky * dilation[0] < x.shape[1] and 0 <= left + kx * dilation[1] < x.shape[2]
        ]
        yield row, column, taps


WINDOWS = [
    ((3, 3), (1, 1), (1, 1), "SAME"),
    ((3, 3), (2, 2), (1, 1), "SAME"),
    ((2, 5), (3, 1), (1, 1), "SAME"),
    ((3, 2), (2, 1), (1, 1), "VALID"),
    ((3, 3), (1, 1), (2, 3), "SAME"),
    ((2, 2), (1, 2), (3, 2), "VALID"),
    ((11, 11), (1, 1), (1, 1), "SAME"),
]


@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding"), WINDOWS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution(kernel, stride, dilation, padding: Padding, depthwise):
    x = int8(1, 7, 9, 3, low=-128)
    weights = int8(1, *kernel, 6) if depthwise else int8(5, *kernel, 3)
    channels = weights.shape[3 if depthwise else 0]
    bias = RNG.integers(-3000, 3000, channels, dtype=np.int32)
    x_scale, w_scale, scale = 0.0315, RNG.uniform(0.001, 0.02, channels), 0.271
    m = ModelBuilder()
    image = m.input("x", x.shape, scale=x_scale, zero_point=-7)
    layer = m.depthwise_conv_2d if depthwise else m.conv_2d
    y = layer(
        image,
        weights,
        bias,
        weight_scale=w_scale,
        scale=scale,
        zero_point=11,
        stride=stride,
        dilation=dilation,
        padding=padding,
        activation="RELU6",
    )
    m.output(y)
    (result,) = run_tflite_micro(m.build(), [x])
    assert result.shape == y.shape
    six = 11 + round(6 / scale)
    for row, column, taps in windows(x, kernel, stride, dilation, padding == "SAME"):
        for channel in range(channels):
            accumulator = int(bias[channel])
            for ky, kx, pixel in taps:
                if depthwise:
                    accumulator += (int(pixel[channel // 2]) + 7) * int(weights[0, ky, kx, channel])
                else:
                    accumulator += int(np.dot(pixel.astype(int) + 7, weights[channel, ky, kx].astype(int)))
            real = float32(x_scale) * float32(w_scale[channel]) / float32(scale)
            expected = clamp(multiply(accumulator, quantized(real)) + 11, 11, min(six, 127))
            assert result[0, row, column, channel] == expected


@pytest.mark.parametrize("per_channel", [False, True])
def test_fully_connected(per_channel):
    x, weights = int8(1, 2, 3, 4, low=-128), int8(50, 24)
    bias = RNG.integers(-(2**20), 2**20, 50, dtype=np.int32)
    w_scale = RNG.uniform(1e-4, 2e-4, 50) if per_channel else np.full(50, 1.3e-4)
    m = ModelBuilder()
    rows = m.input("x", x.shape, scale=0.02, zero_point=101)
    y = m.fully_connected(
        rows, weights, bias, weight_scale=w_scale if per_channel else 1.3e-4, scale=0.03, zero_point=-60
    )
    m.output(y)
    (result,) = run_tflite_micro(m.build(), [x])
    accumulators = weights.astype(int) @ (x.reshape(-1).astype(int) - 101) + bias
    real = [float32(0.02) * float32(s) / float32(0.03) for s in w_scale]
    expected = [clamp(multiply(int(a), quantized(r)) - 60) for a, r in zip(accumulators, real, strict=True)]
    assert result.shape == y.shape == (1, 50)
    assert result[0].tolist() == expected


@pytest.mark.parametrize(("scales", "scale"), [((0.1, 0.1), 0.15), ((0.3, 0.002), 0.07), ((1e-3, 4.0), 0.01)])
@pytest.mark.parametrize("operator", ["add", "sub"])
def test_add_and_sub(operator, scales, scale):
    a, b = int8(1, 4, 5, 3, low=-128), int8(1, 4, 5, 3, low=-128)
    m = ModelBuilder()
    left = m.input("a", a.shape, scale=scales[0], zero_point=5)
    right = m.input("b", b.shape, scale=scales[1], zero_point=-90)
    m.output(getattr(m, operator)(left, right, scale=scale, zero_point=3, activation="RELU"))
    (result,) = run_tflite_micro(m.build(), [a, b])
    twice = 2 * max(map(float32, scales))
    sign = 1 if operator == "add" else -1
    for p, q, got in zip(a.flat, b.flat, result.flat, strict=True):
        total = multiply((int(p) - 5) << 20, quantized(float32(scales[0]) / twice))
        total += sign * multiply((int(q) + 90) << 20, quantized(float32(scales[1]) / twice))
        assert got == clamp(multiply(total, quantized(twice / (2**20 * float32(scale)))) + 3, 3)


@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding"), [w for w in WINDOWS if w[2] == (1, 1)])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pools(kernel, stride, dilation, padding: Padding, kind):
    x = int8(1, 7, 9, 4, low=-128)
    m = ModelBuilder()
    image = m.input("x", x.shape, scale=0.05, zero_point=-20)
    pool = m.max_pool_2d if kind == "max" else m.average_pool_2d
    y = pool(image, kernel, stride=stride, padding=padding, activation="RELU_N1_TO_1")
    m.output(y)
    (result,) = run_tflite_micro(m.build(), [x])
    assert result.shape == y.shape
    for row, column, taps in windows(x, kernel, stride, dilation, padding == "SAME"):
        pixels = np.array([pixel for _, _, pixel in taps], int)
        n = len(pixels)  # only taps in the image count; halves are rounded away from zero
        average = [int(math.copysign((abs(int(s)) + n // 2) // n, s)) for s in pixels.sum(axis=0)]
        expected = pixels.max(axis=0).tolist() if kind == "max" else average
        assert result[0, row, column].tolist() == [clamp(value, -40, 0) for value in expected]


@pytest.mark.parametrize(("axes", "keep_dims"), [((1, 2), True), ((1, 2), False), ((2, 1), False), ((3,), True)])
@pytest.mark.parametrize("scale", [0.1, 0.034])
def test_mean(axes, keep_dims, scale):
    x = int8(1, 5, 7, 4, low=-128)
    m = ModelBuilder()
    y = m.mean(m.input("x", x.shape, scale=0.1, zero_point=9), axes, keep_dims=keep_dims, scale=scale, zero_point=-5)
    m.output(y)
    (result,) = run_tflite_micro(m.build(), [x])
    n = math.prod(x.shape[axis] for axis in axes)
    mantissa, exponent = quantized(float32(0.1) / float32(scale))
    bits = n.bit_length() - 1
    mean = (mantissa << bits) // n, exponent - bits  # 1 / n is a part of the multiplier, truncated
    sums = x.astype(int).sum(axis=axes, keepdims=keep_dims) - 9 * n
    assert result.shape == y.shape
    assert result.reshape(-1).tolist() == [clamp(multiply(int(s), mean) - 5) for s in sums.flat]


def test_mul():
    a, b = int8(1, 3, 4, 2), int8(1, 3, 4, 2)
    m = ModelBuilder()
    m.output(m.mul(m.input("a", a.shape, scale=0.1, zero_point=2), m.input("b", b.shape, scale=0.2), scale=2.1))
    (result,) = run_tflite_micro(m.build(), [a, b])
    real = float32(0.1) * float32(0.2) / float32(2.1)
    products = (a.astype(int) - 2) * b
    assert result.reshape(-1).tolist() == [clamp(multiply(int(p), quantized(real)) + 2) for p in products.flat]


@pytest.mark.parametrize("operator", ["relu", "quantize"])
def test_rescaling(operator):
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    m = ModelBuilder()
    m.output(getattr(m, operator)(m.input("x", x.shape, scale=0.11, zero_point=-30), scale=0.07, zero_point=-50))
    (result,) = run_tflite_micro(m.build(), [x])
    low = -50 if operator == "relu" else -128
    real = quantized(float32(0.11) / float32(0.07))
    assert result[0].tolist() == [clamp(multiply(int(v) + 30, real) - 50, low) for v in x[0]]


def test_operators_that_keep_values():
    x = int8(1, 3, 4, 2)
    m = ModelBuilder()
    image = m.input("x", x.shape, scale=0.1, zero_point=-4)
    padded = m.pad(image, [(0, 0), (1, 2), (0, 1), (0, 0)])
    m.output(padded, m.reshape(padded, (6, 10)), m.concatenation([image, image], axis=1), m.relu6(image))
    padded_result, reshaped, joined, clipped = run_tflite_micro(m.build(), [x])
    expected = np.pad(x, [(0, 0), (1, 2), (0, 1), (0, 0)], constant_values=-4)
    assert np.array_equal(padded_result, expected)
    assert np.array_equal(reshaped, expected.reshape(6, 10))
    assert np.array_equal(joined, np.concatenate([x, x], axis=1))
    assert np.array_equal(clipped, x.clip(-4, -4 + 60))


def test_float_and_uint8_edges():
    x = RNG.normal(size=(1, 40)).astype(np.float32)
    m = ModelBuilder()
    q = m.quantize(m.input("x", x.shape, dtype="float32"), scale=0.02, zero_point=-9)
    m.output(q, m.quantize(q, "uint8", zero_point=119), m.dequantize(q))
    as_int8, as_uint8, as_float = run_tflite_micro(m.build(), [x])
    assert np.array_equal(as_int8, np.clip(np.rint(x / np.float32(0.02)) - 9, -128, 127).astype(np.int8))
    assert np.array_equal(as_uint8, (as_int8.astype(int) + 128).astype(np.uint8))
    assert np.array_equal(as_float, (as_int8.astype(np.float32) + 9) * np.float32(0.02))


def test_softmax_and_logistic():
    x = int8(2, 10)
    m = ModelBuilder()
    rows = m.input("x", x.shape, scale=0.05, zero_point=3)
    m.output(m.softmax(rows, beta=0.5), m.logistic(rows))
    softmax, logistic = run_tflite_micro(m.build(), [x])
    real = (x.astype(float) - 3) * 0.05
    powers = np.exp(0.5 * real)
    expected = powers / powers.sum(axis=1, keepdims=True), 1 / (1 + np.exp(-real))
    for got, want in zip((softmax, logistic), expected, strict=True):
        assert np.abs(got.astype(float) + 128 - np.minimum(want * 256, 255)).max() <= 1


def test_activation_functions():
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    m = ModelBuilder()
    rows = m.input("x", x.shape, scale=0.05, zero_point=3)
    output: dict[str, Any] = {"scale": 0.06, "zero_point": -5}
    m.output(m.tanh(rows), m.leaky_relu(rows, 0.2, **output), m.hard_swish(rows, **output), m.elu(rows, **output))
    found = run_tflite_micro(m.build(), [x])
    real = (x.astype(float) - 3) * 0.05
    expected = (
        128 * np.tanh(real),
        np.where(real > 0, real, 0.2 * real) / 0.06 - 5,
        real * np.clip(real + 3, 0, 6) / 6 / 0.06 - 5,
        np.where(real > 0, real, np.expm1(real)) / 0.06 - 5,
    )
    for got, want in zip(found, expected, strict=True):
        assert np.abs(got - np.clip(want, -128, 127)).max() <= 1.1


def test_file_contents():
    m = ModelBuilder("a description")
    x = m.input("x", (1, 4, 4, 2), scale=0.5, zero_point=1, shape_signature=(-1, 4, 4, 2))
    y = m.depthwise_conv_2d(
        x, int8(1, 3, 2, 4), np.zeros(4, np.int32), weight_scale=[1, 2, 3, 4], stride=(2, 1), dilation=(1, 2), name="dw"
    )
    m.output(m.operator("GELU", [y, None], y.shape))
    data = m.build()
    assert data == m.build()
    assert data[4:8] == b"TFL3"
    model: Any = ModelT.InitFromPackedBuf(data)
    assert model.description == b"a description"
    codes = [(code.deprecatedBuiltinCode, code.builtinCode, code.version) for code in model.operatorCodes]
    assert codes == [(4, 4, 3), (127, 150, 1)]
    (graph,) = model.subgraphs
    image, weights, bias, output, _ = graph.tensors
    assert list(image.shapeSignature) == [-1, 4, 4, 2]
    assert (image.name, weights.name, bias.name, output.name) == (b"x", b"dw/weights", b"dw/bias", b"dw")
    assert (list(weights.quantization.scale), weights.quantization.quantizedDimension) == ([1, 2, 3, 4], 3)
    assert list(bias.quantization.scale) == [0.5, 1, 1.5, 2]
    assert (list(output.quantization.scale), list(output.quantization.zeroPoint)) == ([0.5], [1])
    options = graph.operators[0].builtinOptions
    assert (options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor) == (2, 1, 1, 2)
    assert options.depthMultiplier == 2
    assert list(graph.operators[1].inputs) == [3, -1]


def test_constants_are_aligned():
    m = ModelBuilder()
    marks = [bytes(RNG.integers(0, 256, 40 + i, dtype=np.uint8)) for i in range(5)]
    for i, mark in enumerate(marks):
        m.constant("c" * (i + 1), np.frombuffer(mark, np.int8))
    data = m.build()
    assert [data.find(mark) % 16 for mark in marks] == [0] * 5


def test_several_inputs_in_a_batch():
    a, b = int8(6, 1, 8), int8(6, 1, 8)
    m = ModelBuilder()
    m.output(m.add(m.input("a", (1, 8), scale=1.0), m.input("b", (1, 8), scale=1.0), scale=2.0))
    oracle = Oracle(m.build())
    (together,) = oracle.run_batch([a, b])
    assert np.array_equal(together, np.stack([oracle.run([p, q])[0] for p, q in zip(a, b, strict=True)]))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "padding", "expected"),
    [(7, 3, 2, 1, "SAME", 4), (7, 3, 2, 1, "VALID", 3), (7, 3, 1, 3, "VALID", 1), (2, 3, 1, 1, "VALID", 0)],
)
def test_window_output(size, kernel, stride, dilation, padding: Padding, expected):
    assert window_output(size, kernel, stride, dilation, padding) == expected


def test_shapes_that_do_not_fit_are_refused():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 3), scale=1.0)
    with pytest.raises(ValueError, match=r"CONV_2D: expected weights \[Cout, kh, kw, 3\], got \(5, 3, 3, 2\)"):
        m.conv_2d(x, int8(5, 3, 3, 2))
    with pytest.raises(ValueError, match=r"DEPTHWISE_CONV_2D: expected .* \[1, kh, kw, n \* 3\], got \(1, 3, 3, 4\)"):
        m.depthwise_conv_2d(x, int8(1, 3, 3, 4))
    with pytest.raises(ValueError, match=r"expected a bias of shape \(5,\), got \(4,\)"):
        m.conv_2d(x, int8(5, 3, 3, 3), np.zeros(4, np.int32))
    with pytest.raises(ValueError, match=r"FULLY_CONNECTED: expected an input of rows of 7 elements"):
        m.fully_connected(x, int8(5, 7))
    with pytest.raises(ValueError, match=r"RESHAPE: x of shape \(1, 4, 4, 3\) cannot become \(1, 47\)"):
        m.reshape(x, (1, 47))
    with pytest.raises(ValueError, match=r"MAX_POOL_2D: .* shape \(1, 0, 0, 3\): the window is larger"):
        m.max_pool_2d(x, 5, stride=1)
