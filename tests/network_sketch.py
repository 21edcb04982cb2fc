# SPDX-License-Identifier: Apache-2.0
"""Layers of random int8 networks: shapes are given, weights and quantization are drawn.

Most layers are scaled so that their values spread over int8, a few are not: what reaches the outputs still varies.
"""

import math
from collections.abc import Sequence
from typing import Unpack

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from loomwork.compiler.tflite_file import Tensor
from loomwork.compiler.tflite_writer import (
    Activation,
    ConvOutput,
    DenseOutput,
    ModelBuilder,
    Pair,
    PoolOutput,
    window_output,
)
from tests.layers import Choices

ELEMENTS, WEIGHTS, MACS = 6000, 40_000, 600_000
WIDTHS = (8, 16, 12, 4, 24, 3, 5, 7, 10, 13, 17, 20, 30, 33, 40, 48, 64, 65, 9, 15, 16, 31, 32, 23, 24, 100, 1, 2)
"""Channel counts, plain ones first."""
RELUS: tuple[Activation, ...] = ("RELU", "RELU", "RELU6")
TYPICAL = 38.0
"""Root mean square distance of a layer's values from the zero point, roughly."""


class Network:
    """A network in the making: each method adds a layer whose weights and quantization are random."""

    def __init__(self, choices: Choices, dead_filters: float = 0) -> None:
        """dead_filters: share of the filters of every layer that are zero, whatever else is drawn."""
        self.choose = choices
        self.dead_filters = dead_filters
        self.model = ModelBuilder()
        self.inputs: list[np.ndarray] = []
        self.layers: list[str] = []
        self._spread: dict[int, float] = {}
        # Habits of the tool that made the network.
        self.per_tensor = choices.once_in(4)
        self.biased = not choices.once_in(5)
        self.relu: Activation = choices.pick(RELUS)

    def image(self, height: int, width: int, channels: int) -> Tensor:
        """An input `[1, H, W, C]`, int8 or behind a QUANTIZE from uint8 or float32."""
        c = self.choose
        while height * width * channels > ELEMENTS:
            height, width = (height + 1) // 2, (width + 1) // 2
        shape, name = (1, height, width, channels), f"x{len(self.inputs)}"
        signature = (-1, *shape[1:]) if c.once_in(4) else None
        scale, zero_point = c.power(-9, -3), c.pick((-128, 0, -1, c.integer(-128, 127)))
        values = c.noise().integers(-128, 128, shape, dtype=np.int8)
        kind = c.pick(("int8", "int8", "int8", "uint8", "float32"))
        if kind == "int8":
            self.inputs.append(values)
            x = self.model.input(name, shape, scale=scale, zero_point=zero_point, shape_signature=signature)
        elif kind == "uint8":
            self.inputs.append((values ^ -128).view(np.uint8))
            given = self.model.input(
                name, shape, dtype="uint8", scale=scale, zero_point=zero_point + 128, shape_signature=signature
            )
            x = self.model.quantize(given, scale=scale, zero_point=zero_point)
        else:
            self.inputs.append((values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale))
            given = self.model.input(name, shape, dtype="float32", shape_signature=signature)
            x = self.model.quantize(given, scale=scale, zero_point=zero_point)
        self._spread[x.index] = math.hypot(74, zero_point + 0.5)
        return self._note(x, f"{kind} input")

    def output(self, *tensors: Tensor) -> None:
        """Model outputs: as they are, or behind a QUANTIZE to uint8 or a DEQUANTIZE."""
        for tensor in tensors:
            match self.choose.pick(("int8", "int8", "int8", "uint8", "float32")):
                case "uint8":
                    tensor = self.model.quantize(tensor, "uint8", zero_point=tensor.zero_point + 128)
                case "float32":
                    tensor = self.model.dequantize(tensor)
                case _:
                    pass
            self.model.output(tensor)

    def channels(self, most: int = 300) -> int:
        """A number of channels."""
        count = self.choose.integer(1, 300) if self.choose.once_in(8) else self.choose.pick(WIDTHS)
        return min(count, most)

    def conv(
        self, x: Tensor, channels: int, kernel: int | tuple[int, int] = 3, **options: Unpack[ConvOutput]
    ) -> Tensor:
        """CONV_2D with fewer channels than asked for where that would be too much work."""
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        positions = math.prod(_positions(x, (kh, kw), options))
        per_channel = kh * kw * x.shape[3]
        most = min(WEIGHTS // per_channel, MACS // (positions * per_channel), ELEMENTS // positions)
        weights = self._weights((max(1, min(channels, most)), kh, kw, x.shape[3]), 0)
        bias, scaled = self._scaled(x, weights, 0, options.get("activation", "NONE"))
        y = self.model.conv_2d(x, weights, bias, **{**options, **scaled})
        return self._note(y, f"conv {kh}x{kw} {_moves(options)}")

    def depthwise(
        self, x: Tensor, kernel: int | tuple[int, int] = 3, multiplier: int = 1, **options: Unpack[ConvOutput]
    ) -> Tensor:
        """DEPTHWISE_CONV_2D."""
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        weights = self._weights((1, kh, kw, x.shape[3] * multiplier), 3)
        bias, scaled = self._scaled(x, weights, 3, options.get("activation", "NONE"))
        y = self.model.depthwise_conv_2d(x, weights, bias, **{**options, **scaled})
        return self._note(y, f"depthwise {kh}x{kw}x{multiplier} {_moves(options)}")

    def dense(self, x: Tensor, units: int, *, keep_num_dims: bool = False, activation: Activation = "NONE") -> Tensor:
        """FULLY_CONNECTED of the whole tensor, or of its last axis."""
        depth = x.shape[-1] if keep_num_dims else math.prod(x.shape)
        weights = self._weights((max(1, min(units, 4 * WEIGHTS // depth)), depth), 0)
        bias, scaled = self._scaled(x, weights, 0, activation)
        return self._note(self.model.fully_connected(x, weights, bias, keep_num_dims=keep_num_dims, **scaled), "dense")

    def add(self, a: Tensor, b: Tensor, activation: Activation = "NONE") -> Tensor:
        scale = max(a.scale[0], b.scale[0]) * self.choose.power(-0.5, 1)
        y = self.model.add(a, b, scale=scale, zero_point=self._zero(activation), activation=activation)
        return self._note(y, "add")

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        scale = a.scale[0] * b.scale[0] * self.choose.power(6, 7)
        return self._note(self.model.mul(a, b, scale=scale, zero_point=self._zero("NONE")), "mul")

    def pool(self, x: Tensor, kind: str, size: int | tuple[int, int] = 2, **options: Unpack[PoolOutput]) -> Tensor:
        """Maximum or average pooling."""
        make = self.model.max_pool_2d if kind == "max" else self.model.average_pool_2d
        return self._note(make(x, size, **options), f"{kind} pool {size} {_moves(options)}")

    def global_average(self, x: Tensor) -> Tensor:
        """MEAN or AVERAGE_POOL_2D over the whole image."""
        if self.choose.once_in(2):
            return self._note(self.model.average_pool_2d(x, (x.shape[1], x.shape[2])), "global average pool")
        scale, zero_point = x.scale[0] * self.choose.power(-2, 0), self._zero("NONE")
        keep = self.choose.once_in(2)
        return self._note(self.model.mean(x, (1, 2), keep_dims=keep, scale=scale, zero_point=zero_point), "mean")

    def rescale(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """QUANTIZE to another quantization, that of a tensor if given."""
        scale = like.scale[0] if like else x.scale[0] * self.choose.power(-1, 1)
        return self._note(
            self.model.quantize(x, scale=scale, zero_point=like.zero_point if like else self._zero("NONE")), "quantize"
        )

    def relu_layer(self, x: Tensor) -> Tensor:
        """RELU on its own, with the same scale or another."""
        if self.choose.once_in(2):
            return self._note(self.model.relu(x), "relu")
        scale = x.scale[0] * self.choose.power(-1, 0.5)
        return self._note(self.model.relu(x, scale=scale, zero_point=-128), "relu")

    def concatenate(self, tensors: Sequence[Tensor], axis: int = 3) -> Tensor:
        """CONCATENATION, after bringing all to the quantization of the first, as tflite-micro wants it."""
        first = tensors[0]
        same = [first, *(self.rescale(tensor, first) for tensor in tensors[1:])]
        return self._note(self.model.concatenation(same, axis), "concatenation")

    def upsample(self, x: Tensor, height: int, width: int) -> Tensor:
        """RESIZE_NEAREST_NEIGHBOR."""
        size = self.model.constant(f"size{len(self.layers)}", np.array([height, width], np.int32))
        options = schema.ResizeNearestNeighborOptionsT()
        y = self.model.operator("RESIZE_NEAREST_NEIGHBOR", [x, size], (1, height, width, x.shape[3]), options)
        return self._note(y, "upsample")

    def classify(self, x: Tensor, classes: int | None = None) -> Tensor:
        """A dense layer and perhaps SOFTMAX."""
        logits = self.dense(x, classes or self.choose.pick((10, 2, 12, 3, 35, 100)))
        return self._note(self.model.softmax(logits), "softmax") if self.choose.once_in(4) else logits

    def _note(self, tensor: Tensor, what: str) -> Tensor:
        self.layers.append(f"{what.strip()} -> {'x'.join(map(str, tensor.shape))}")
        return tensor

    def _zero(self, activation: Activation) -> int:
        low = -128 if activation in ("RELU", "RELU6") and not self.choose.once_in(6) else None
        return low if low is not None else self.choose.pick((0, self.choose.integer(-60, 60), -128, 127, 3))

    def _weights(self, shape: tuple[int, ...], axis: int) -> np.ndarray:
        """Int8 weights, often pruned, sometimes with channels of zeros."""
        noise = self.choose.noise()
        weights = noise.integers(-127, 128, shape, dtype=np.int8)
        regime = self.choose.pick(("dense", "dense", "pruned", "dead channels"))
        if regime == "pruned":
            weights[noise.random(shape) < 0.6] = 0
        elif regime == "dead channels":
            np.moveaxis(weights, axis, 0)[noise.random(shape[axis]) < 0.4] = 0
        np.moveaxis(weights, axis, 0)[noise.random(shape[axis]) < self.dead_filters] = 0
        return weights

    def _scaled(
        self, x: Tensor, weights: np.ndarray, axis: int, activation: Activation
    ) -> tuple[np.ndarray | None, DenseOutput]:
        """Bias, scales and zero point with which the result mostly spreads over int8."""
        c = self.choose
        if weights.shape[axis] <= 4:
            activation = "NONE"  # of so few channels, RELU would leave none alive
        channels = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
        spread = self._spread.get(x.index, TYPICAL) * np.sqrt((channels**2).sum(axis=1))
        spread[spread == 0] = max(1.0, spread.max())
        if self.per_tensor:
            spread = spread.max(keepdims=True)
        wanted = np.exp2([c.integer(-64, 64) / 64 for _ in spread]) * 85
        if c.once_in(40):
            wanted *= c.power(-5, 3)
        effective = np.minimum(wanted / spread, 0.49)
        scale = c.power(-9, -2)
        if activation == "RELU6":
            scale = 6 / 255 * c.power(-0.5, 0.5)
        reach = np.broadcast_to(spread, len(channels)) / 2
        bias = np.floor(c.noise().uniform(-1, 1, len(channels)) * reach).astype(np.int32)
        return bias if self.biased else None, {
            "weight_scale": effective * scale / x.scale[0],
            "scale": scale,
            "zero_point": self._zero(activation),
            "activation": activation,
        }


def _positions(x: Tensor, kernel: tuple[int, int], options: ConvOutput) -> tuple[int, int]:
    """Height and width of a convolution's output."""
    stride, dilation = _pair(options.get("stride", 1)), _pair(options.get("dilation", 1))
    padding = options.get("padding", "SAME")
    height, width = (
        window_output(x.shape[1 + axis], kernel[axis], stride[axis], dilation[axis], padding) for axis in (0, 1)
    )
    return height, width


def _pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _moves(options: ConvOutput | PoolOutput) -> str:
    return " ".join(f"{name} {value}" for name, value in options.items())
