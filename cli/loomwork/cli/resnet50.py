# SPDX-License-Identifier: Apache-2.0
"""A network of the shape of ResNet-50 with random int8 weights, the same bytes on every machine.

    Path("resnet50_shaped.tflite").write_bytes(resnet50_shaped())

Layers as in He et al., "Deep Residual Learning for Image Recognition" (2016), table 1: 224x224x3 to 1000 classes,
25.5 million weights. The stride of a stage is in its first 3x3 convolution ("version 1.5", as in torchvision and
MLPerf): 4,089,184,256 MACs; in the 1x1 convolution before it, as in the paper, it would make 3,857,973,248. Batch
normalization is folded into the convolutions, SOFTMAX left out.

Random weights cost an accelerator what trained ones do: nothing here skips zeros. So that values neither saturate nor
vanish on the way, each layer is quantized for what random signals come to: real values before an activation have a
standard deviation of 1, and the bias takes away the mean that a ReLU gave to the input, as batch normalization would.
Only integers of the generator, exact integer sums and IEEE divisions and square roots decide a bit of the file.
"""

import math
from dataclasses import dataclass

import numpy as np

from loomwork.compiler.tflite_file import Tensor
from loomwork.compiler.tflite_writer import ModelBuilder, Pair

SEED = 50
EXPANSION = 4
"""Channels of a bottleneck block's output for each one inside it."""


@dataclass(frozen=True)
class Signal:
    """Mean and standard deviation of the real values that a layer reads, over random weights in front of it.

    The deviations here are a little more than those of independent values, for each channel also has a mean of its own.
    """

    mean: float
    deviation: float


NOISE = Signal(0.0, 1.0)
RELU = Signal(0.40, 0.60)
"""max(x, 0) of a normal x; independent values: 1 / sqrt(2 pi) and sqrt(1/2 - 1 / (2 pi)), which is 0.58."""
POOLED = Signal(1.10, 0.68)
"""The maximum of 3x3 values behind a ReLU that share much of what they were computed from."""
RESIDUAL = (
    *(Signal(0.56, 0.85), Signal(0.83, 1.04), Signal(1.04, 1.20)),
    *(Signal(1.23, 1.34), Signal(1.40, 1.48), Signal(1.55, 1.61)),
)
"""Output of a stage's n-th block: max(x + y, 0) with x the output of the block before, or normal, and y normal."""

UNSIGNED_SCALE, SIGNED_SCALE = 1 / 32, 1 / 24
"""Of values with a standard deviation of 1, behind a ReLU and without: 8 deviations, or 5 to each side."""


class Weights:
    """Random bytes: the raw 64-bit words of PCG64, whose sequence NumPy guarantees, lowest byte first."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.PCG64(seed)

    def draw(self, *shape: int) -> np.ndarray:
        """Int8 values of that shape, -127 to 127, each equally likely but for a second share of 0."""
        count = math.prod(shape)
        words = np.asarray(self._generator.random_raw(-(-count // 8)))
        values = np.frombuffer(words.astype("<u8").tobytes(), np.int8)[:count].reshape(shape)
        return np.where(values == -128, np.int8(0), values)


class Builder:
    """Adds layers with random weights to a model."""

    def __init__(self, seed: int) -> None:
        self.model = ModelBuilder("ResNet-50-shaped network with random weights, written by loomwork")
        self._weights = Weights(seed)

    def conv(
        self,
        x: Tensor,
        signal: Signal,
        channels: int,
        kernel: int,
        name: str,
        *,
        stride: Pair = 1,
        relu: bool,
        valid: bool = False,
    ) -> Tensor:
        """A convolution of values with the given mean and deviation, to a mean of 0 and a deviation of 1."""
        weights, bias, weight_scale = self._normalized(x, signal, (channels, kernel, kernel, x.shape[3]))
        return self.model.conv_2d(
            x,
            weights,
            bias,
            stride=stride,
            padding="VALID" if valid else "SAME",
            activation="RELU" if relu else "NONE",
            weight_scale=weight_scale,
            scale=UNSIGNED_SCALE if relu else SIGNED_SCALE,
            zero_point=-128 if relu else 3,
            name=name,
        )

    def dense(self, x: Tensor, signal: Signal, units: int, name: str) -> Tensor:
        """A fully connected layer, normalized like a convolution."""
        weights, bias, weight_scale = self._normalized(x, signal, (units, x.shape[-1]))
        return self.model.fully_connected(
            x, weights, bias, weight_scale=weight_scale, scale=SIGNED_SCALE, zero_point=-5, name=name
        )

    def _normalized(
        self, x: Tensor, signal: Signal, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, bias and weight scales, one of each per output channel.

        The largest weight of a channel is between 64 and 127, drawn for each; its scale makes up for it.
        """
        channels, depth = shape[0], math.prod(shape[1:])
        largest = 64 + self._weights.draw(channels).astype(np.int32) % 64
        drawn = self._weights.draw(*shape).astype(np.int32)
        weights = (drawn * largest.reshape(-1, *[1] * (len(shape) - 1)) + 64) >> 7
        # A uniform distribution over -a..a has the deviation a / sqrt(3).
        weight_scale = math.sqrt(3) / (largest * (math.sqrt(depth) * signal.deviation))
        mean = round(signal.mean / x.scale[0])
        bias = -mean * weights.reshape(channels, depth).sum(axis=1, dtype=np.int64)
        return weights.astype(np.int8), bias.astype(np.int32), weight_scale


def resnet50_shaped(
    *,
    size: int = 224,
    width: int = 64,
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    classes: int = 1000,
    seed: int = SEED,
) -> bytes:
    """The `.tflite` file: int8 image `[1, size, size, 3]` to int8 logits `[1, classes]`.

    width: channels behind the first convolution, and inside the blocks of the first stage; each stage doubles them.
    blocks: of each stage, at most six.
    """
    b = Builder(seed)
    image = b.model.input("image", (1, size, size, 3), scale=1 / 64, zero_point=-3)
    padded = b.model.pad(image, ((0, 0), (3, 3), (3, 3), (0, 0)), name="pad")
    first = b.conv(padded, NOISE, width, 7, "conv1", stride=2, relu=True, valid=True)
    x = b.model.max_pool_2d(first, 3, stride=2, padding="SAME", name="pool1")
    signal = POOLED
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if stage and not index else 1
            x = _block(b, x, signal, width << stage, stride, index, f"stage{stage + 2}/block{index + 1}")
            signal = RESIDUAL[index]
    mean = b.model.mean(x, (1, 2), name="mean", scale=x.scale[0] * 0.75, zero_point=-128)
    # The pixels of a channel mostly average out.
    b.model.output(b.dense(mean, Signal(signal.mean, signal.deviation / 4), classes, "logits"))
    return b.model.build()


def _block(b: Builder, x: Tensor, signal: Signal, inner: int, stride: int, index: int, name: str) -> Tensor:
    """A bottleneck: 1x1, 3x3 and 1x1 convolutions beside a shortcut, which the first of a stage projects."""
    outer = inner * EXPANSION
    y = b.conv(x, signal, inner, 1, f"{name}/conv1", relu=True)
    y = b.conv(y, RELU, inner, 3, f"{name}/conv2", stride=stride, relu=True)
    y = b.conv(y, RELU, outer, 1, f"{name}/conv3", relu=False)
    shortcut = x if index else b.conv(x, signal, outer, 1, f"{name}/projection", stride=stride, relu=False)
    result = RESIDUAL[index]
    # Over 8 deviations above the mean, as what a channel adds up on its way is no sum of independent values.
    scale = (result.mean + 8 * result.deviation) / 255
    return b.model.add(y, shortcut, activation="RELU", scale=scale, zero_point=-128, name=f"{name}/add")
