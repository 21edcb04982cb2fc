# SPDX-License-Identifier: Apache-2.0
"""Random int8 models of one to three layers, to compare implementations on.

    case = random_case(seed=7, kind="conv_2d")       # the same seed gives the same model and inputs
    @given(cases("conv_2d"))                          # the same models, chosen and shrunk by Hypothesis

Tensors are small (about 4,000 elements, 150,000 multiply-accumulates), their parameters are not tame: channel counts
beside the multiples of an array, kernels up to 11x11, strides and dilations up to 3, zero points over all of int8,
effective multipliers (input scale * weight scale / output scale) from 2**-40 to 8, biases that use all 32 bits,
saturating outputs. `CORNERS` holds what a compiler may well refuse.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

from loomwork.compiler.tflite_file import Output, Tensor
from loomwork.compiler.tflite_writer import Activation, DenseOutput, ModelBuilder, Padding, window_output

T = TypeVar("T")

CHANNELS = (1, 3, 8, 2, 4, 5, 7, 9, 12, 15, 16, 17, 19, 24, 31, 33, 40)
UNITS = (1, 3, 8, 10, 15, 17, 20, 33, 40, 64, 100)
KERNELS = (1, 3, 3, 3, 3, 2, 5, 4, 5, 7, 6, 8, 9, 10, 11)
ACTIVATIONS: tuple[Activation, ...] = ("NONE", "NONE", "NONE", "RELU", "RELU", "RELU6", "RELU_N1_TO_1")
MAX_ELEMENTS, MAX_WEIGHTS, MAX_MACS = 4096, 8192, 150_000


@dataclass(frozen=True)
class Case:
    """A model and inputs for one inference; `name` holds its kind, seed and shapes."""

    name: str
    model_bytes: bytes = field(repr=False)
    inputs: list[np.ndarray] = field(repr=False)


class Choices:
    """Random choices, all made of one: an integer in [low, high]. What comes first or is lower is simpler."""

    def __init__(self, integer: Callable[[int, int], int]) -> None:
        self.integer = integer

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def once_in(self, n: int) -> bool:
        return self.integer(1, n) == n

    def power(self, low: float, high: float) -> float:
        """A float32 in [2**low, 2**high], evenly spread in its logarithm."""
        return float(np.float32(2.0 ** (self.integer(round(low * 4096), round(high * 4096)) / 4096)))

    def ratio(self, low: float, high: float) -> float:
        """A ratio of scales: mostly close to 1, sometimes anywhere in [2**low, 2**high]."""
        return self.power(low, high) if self.once_in(6) else self.power(-0.5, 1)

    def zero_point(self, activation: Activation = "NONE") -> int:
        """Anywhere in int8; mostly low before an activation, which would else leave little to see."""
        low = self.integer(-128, 0)
        if activation != "NONE" and not self.once_in(4):
            return self.pick((-128, -128, low))
        return self.pick((0, -128, low, *[self.integer(-128, 127)] * 4, self.pick((-128, 127))))

    def noise(self) -> np.random.Generator:
        return np.random.default_rng(self.integer(0, 2**32 - 1))


class Sketch:
    """A model in the making; each method adds one random layer and returns its output."""

    def __init__(self, choices: Choices) -> None:
        self.choose = choices
        self.model = ModelBuilder()
        self.inputs: list[np.ndarray] = []
        self.shapes: list[str] = []

    def image(
        self,
        batch: int = 1,
        shape: Sequence[int] | None = None,
        scale: float | None = None,
        dtype: str = "int8",
        elements: int = MAX_ELEMENTS,
    ) -> Tensor:
        """Add an input with its data; if no shape is given, `[batch, H, W, C]` of at most so many `elements`."""
        c = self.choose
        if shape is None:
            height, width = c.integer(1, 12), c.integer(1, 12)
            shape = (batch, height, width, c.pick([n for n in CHANNELS if n * height * width <= elements // batch]))
        scale, zero_point = scale or c.power(-10, 0), c.zero_point()
        values = self._values(shape, zero_point)
        name = f"x{len(self.inputs)}"
        if dtype == "float32":
            self.inputs.append((values.astype(np.float32) - np.float32(zero_point + 0.37)) * np.float32(scale))
            return self._note(self.model.input(name, shape, dtype=dtype), "float32")
        self.inputs.append(values if dtype == "int8" else (values ^ -128).view(np.uint8))
        stored_zero = zero_point if dtype == "int8" else zero_point + 128
        return self._note(self.model.input(name, shape, dtype=dtype, scale=scale, zero_point=stored_zero), dtype)

    def conv_2d(
        self,
        x: Tensor,
        kernel: int | None = None,
        padding: Padding | None = None,
        groups: int = 1,
        *,
        keep_shape: bool = False,
    ) -> Tensor:
        """Add a convolution; a padding of None means either, `keep_shape` that the output has the input's shape."""
        c = self.choose
        kh, kw, stride, dilation, how = self._window(x, kernel, padding)
        if keep_shape:
            stride, how = (1, 1), "SAME"
        depth = x.shape[3] // groups
        rows = window_output(x.shape[1], kh, stride[0], dilation[0], how)
        columns = window_output(x.shape[2], kw, stride[1], dilation[1], how)
        most = min(MAX_WEIGHTS, MAX_MACS // (rows * columns)) // (kh * kw * depth)
        out = x.shape[3] if keep_shape else groups * c.pick([n for n in CHANNELS if n * groups <= most] or [1])
        weights = self._weights((out, kh, kw, depth), 0)
        bias, output = self._requantization(x, weights, 0)
        y = self.model.conv_2d(x, weights, bias, stride=stride, dilation=dilation, padding=how, **output)
        return self._note(y, f"conv {kh}x{kw} stride {stride} dilation {dilation} {how}")

    def depthwise_conv_2d(self, x: Tensor) -> Tensor:
        c = self.choose
        kh, kw, stride, dilation, how = self._window(x, None, None)
        multiplier = c.pick((1, 1, 1, 2, 3, 8)) if x.shape[3] < 9 else 1
        weights = self._weights((1, kh, kw, x.shape[3] * multiplier), 3)
        bias, output = self._requantization(x, weights, 3)
        y = self.model.depthwise_conv_2d(x, weights, bias, stride=stride, dilation=dilation, padding=how, **output)
        return self._note(y, f"depthwise {kh}x{kw}x{multiplier} stride {stride} dilation {dilation} {how}")

    def fully_connected(self, x: Tensor, rows: int = 1) -> Tensor:
        depth = math.prod(x.shape) // rows
        units = self.choose.pick([n for n in UNITS if n * depth <= 40_000])
        weights = self._weights((units, depth), 0)
        bias, output = self._requantization(x, weights, 0)
        return self._note(self.model.fully_connected(x, weights, bias, **output), "fully connected")

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        scale, activation = self._sum_scale(a, b), self.choose.pick(ACTIVATIONS)
        zero_point = self.choose.zero_point(activation)
        return self._note(self.model.add(a, b, scale=scale, zero_point=zero_point, activation=activation), "add")

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        y = self.model.sub(a, b, scale=self._sum_scale(a, b), zero_point=self.choose.zero_point())
        return self._note(y, "sub")

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        scale = a.scale[0] * b.scale[0] * 64 * self.choose.ratio(-6, 6)
        return self._note(self.model.mul(a, b, scale=scale, zero_point=self.choose.zero_point()), "mul")

    def pool(self, x: Tensor, kind: str) -> Tensor:
        c = self.choose
        pool = self.model.max_pool_2d if kind == "max" else self.model.average_pool_2d
        kh, kw, stride, _, how = self._window(x, c.pick((2, 2, 3, 1, 4, 5)) if c.once_in(2) else None, None)
        y = pool(x, (kh, kw), stride=stride, padding=how, activation=c.pick(ACTIVATIONS))
        return self._note(y, f"{kind} pool {kh}x{kw} stride {stride} {how}")

    def mean(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        c = self.choose
        scale, zero_point = x.scale[0], x.zero_point
        if c.once_in(2):
            scale, zero_point = scale * c.ratio(-6, 2), c.zero_point()
        return self._note(self.model.mean(x, axes, keep_dims=c.once_in(2), scale=scale, zero_point=zero_point), "mean")

    def pad(self, x: Tensor) -> Tensor:
        (top, bottom, left, right) = [self.choose.integer(0, 3) for _ in range(4)]
        return self._note(self.model.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)]), "pad")

    def reshape(self, x: Tensor) -> Tensor:
        n = math.prod(x.shape)
        return self._note(self.model.reshape(x, self.choose.pick(((1, n), (1, 1, 1, n), (1, n, 1, 1)))), "reshape")

    def requantize(self, x: Tensor, how: str = "quantize") -> Tensor:
        """QUANTIZE or RELU to another scale and zero point."""
        scale = x.scale[0] * self.choose.ratio(-8, 8) if x.scale else self.choose.power(-10, 0)
        layer = self.model.quantize if how == "quantize" else self.model.relu
        zero_point = self.choose.zero_point("RELU" if how == "relu" else "NONE")
        return self._note(layer(x, scale=scale, zero_point=zero_point), how)

    def activation(self, x: Tensor, how: str | None = None) -> Tensor:
        """A function of one value, to another scale and zero point where there is a choice."""
        c = self.choose
        how = how or c.pick(("hard_swish", "leaky_relu", "logistic", "tanh", "elu"))
        if how in ("logistic", "tanh"):
            return self._note(self.model.logistic(x) if how == "logistic" else self.model.tanh(x), how)
        output = Output(scale=x.scale[0] * c.ratio(-3, 3), zero_point=c.zero_point())
        if how == "leaky_relu":
            return self._note(self.model.leaky_relu(x, c.pick((0.01, 0.1, 0.3, 1.5, -0.5)), **output), how)
        return self._note((self.model.hard_swish if how == "hard_swish" else self.model.elu)(x, **output), how)

    def _note(self, tensor: Tensor, what: str) -> Tensor:
        self.shapes.append(f"{what} {'x'.join(map(str, tensor.shape))}".strip())
        return tensor

    def _sum_scale(self, a: Tensor, b: Tensor) -> float:
        return max(a.scale[0], b.scale[0]) * self.choose.ratio(-12, 6)  # below 2**-19 tflite-micro aborts

    def _window(
        self, x: Tensor, kernel: int | None, padding: Padding | None
    ) -> tuple[int, int, tuple[int, int], tuple[int, int], Padding]:
        """Kernel height and width, strides, dilations and padding; VALID only where the window fits."""
        c = self.choose
        kh = kernel or c.pick(KERNELS)
        kw = kernel or (kh if c.once_in(2) else c.pick(KERNELS))
        if kh * kw * math.prod(x.shape) > MAX_MACS // 2:
            kh, kw = min(kh, 3), min(kw, 3)
        stride, dilation = c.pick(((1, 1), (1, 1), (2, 2), (c.integer(1, 3), c.integer(1, 3)))), (1, 1)
        if c.once_in(4):
            stride, dilation = c.pick(((1, 1), (1, 1), stride)), (c.integer(1, 3), c.integer(1, 3))
        if padding == "VALID":
            kh, kw, dilation = min(kh, x.shape[1]), min(kw, x.shape[2]), (1, 1)
        fits = (kh - 1) * dilation[0] < x.shape[1] and (kw - 1) * dilation[1] < x.shape[2]
        return kh, kw, stride, dilation, padding or (c.pick(("SAME", "VALID")) if fits else "SAME")

    def _values(self, shape: Sequence[int], zero_point: int) -> np.ndarray:
        """Int8 activations: evenly spread, at the ends of the range, near the zero point, or all the same."""
        noise = self.choose.noise()
        regime = self.choose.pick(("even",) * 10 + ("ends", "near zero", "constant"))
        if regime == "ends":
            return noise.choice(np.array([-128, 127], np.int8), shape)
        if regime == "near zero":
            return np.clip(zero_point + noise.integers(-6, 7, shape), -128, 127).astype(np.int8)
        if regime == "constant":
            return np.full(shape, noise.integers(-128, 128), np.int8)
        return noise.integers(-128, 128, shape, dtype=np.int8)

    def _weights(self, shape: tuple[int, ...], axis: int) -> np.ndarray:
        """Int8 weights, sometimes with zeros, with whole channels of zeros or with -128, which converters avoid."""
        noise = self.choose.noise()
        weights = noise.integers(-127, 128, shape, dtype=np.int8)
        regime = self.choose.pick(("dense", "dense", "pruned", "dead channels", "one sign", "with -128"))
        if regime == "pruned":
            weights[noise.random(shape) < 0.6] = 0
        elif regime == "dead channels":
            np.moveaxis(weights, axis, 0)[noise.random(shape[axis]) < 0.5] = 0
        elif regime == "one sign":
            weights = np.abs(weights)
        elif regime == "with -128":
            weights[weights < -100] = -128
        return weights

    def _requantization(self, x: Tensor, weights: np.ndarray, axis: int) -> tuple[np.ndarray | None, DenseOutput]:
        """Bias and output keywords of an operator with weights.

        Neither the accumulator nor its product with the power of two of a multiplier above 1 leaves the range of int32,
        where tflite-micro would depend on what C++ leaves undefined.
        """
        c = self.choose
        channels = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
        peak = np.maximum(np.abs(channels).sum(axis=1) * 255, 1)  # largest |accumulator| without bias
        # Its deviation and mean for evenly spread inputs.
        spread = np.sqrt((channels**2).sum(axis=1)) * 74 + np.abs(channels.sum(axis=1) * (x.zero_point + 0.5))
        if not c.once_in(2):  # per tensor
            peak, spread = peak.max(keepdims=True), spread.max(keepdims=True)
        regime = c.pick(("fit",) * 8 + ("saturating", "saturating", "tiny", "large", "mixed", "mixed"))
        kinds = [c.pick(("fit", "saturating", "tiny", "large", "none")) if regime == "mixed" else regime for _ in peak]
        # Powers of two: of the deviation that fills the output's range, or else of the effective multiplier itself.
        relative = {"fit": (-1, 1), "saturating": (1, 6)}
        absolute = {"tiny": (-20, -12), "large": (-4, 3), "none": (-40, -31)}
        effective = np.array([c.power(*(relative | absolute)[kind]) for kind in kinds])
        effective = np.where([kind in relative for kind in kinds], effective * 64 / np.maximum(spread, 1), effective)
        effective = np.where(effective > 0.49, np.minimum(effective, np.maximum(0.49, 2.0**28 / peak)), effective)
        scale = c.power(-9, -2)
        room = 2.0**31 / np.maximum(1, 2 * effective) - peak - 2
        size = {"none": 0 * peak, "small": spread, "large": 300 / effective, "huge": room}
        reach = np.minimum(size[c.pick(("small",) * 12 + ("none", "large", "huge"))], room)
        bias = np.floor(c.noise().uniform(-1, 1, len(channels)) * reach).astype(np.int32)
        activation = c.pick(ACTIVATIONS)
        return None if c.once_in(8) else bias, {
            "weight_scale": effective * scale / x.scale[0],
            "scale": scale,
            "zero_point": c.zero_point(activation),
            "activation": activation,
        }


def random_case(seed: int, kind: str) -> Case:
    """The model and inputs that `seed` stands for, of one of the `KINDS`."""
    noise = np.random.default_rng([seed, *kind.encode()])
    return _case(Choices(lambda low, high: int(noise.integers(low, high, endpoint=True))), kind, f"{kind}[{seed}]")


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    """Hypothesis strategy for cases of one of the `KINDS`."""
    return _case(Choices(lambda low, high: draw(st.integers(low, high))), kind, kind)


def _case(choices: Choices, kind: str, title: str) -> Case:
    sketch = Sketch(choices)
    sketch.model.output(KINDS[kind](sketch))
    return Case(f"{title}: {', '.join(sketch.shapes)}", sketch.model.build(), sketch.inputs)


def _pair(s: Sketch, shape: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Two inputs, the second of the first's shape if not given; scales mostly close, sometimes up to 2**20 apart."""
    a = s.image()
    return a, s.image(shape=shape or a.shape, scale=a.scale[0] * s.choose.ratio(-20, 20))


def _twice(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


def _residual(s: Sketch) -> Tensor:
    x = s.image(elements=512)
    return s.add(x, s.conv_2d(x, s.choose.pick((1, 3)), keep_shape=True))


def _uint8_edges(s: Sketch) -> Tensor:
    x = s.requantize(s.image(dtype="uint8"))
    y = s.conv_2d(x)
    return s.model.quantize(y, "uint8", scale=y.scale[0] * s.choose.pick((1.0, 1.7)), zero_point=y.zero_point + 128)


LAYERS: dict[str, Callable[[Sketch], Tensor]] = {
    "conv_2d": lambda s: s.conv_2d(s.image()),
    "depthwise_conv_2d": lambda s: s.depthwise_conv_2d(s.image()),
    "fully_connected": lambda s: s.fully_connected(s.image()),
    "add": lambda s: s.add(*(_twice(s.image()) if s.choose.once_in(8) else _pair(s))),
    "max_pool_2d": lambda s: s.pool(s.image(), "max"),
    "average_pool_2d": lambda s: s.pool(s.image(), "average"),
    "mean": lambda s: s.mean(s.image(), s.choose.pick(((1, 2), (2, 1)))),
    "pad": lambda s: s.pad(s.image()),
    "reshape": lambda s: s.reshape(s.image()),
    "relu": lambda s: s.requantize(s.image(), "relu"),
    "relu6": lambda s: s.model.relu6(s.image()),
    "quantize": lambda s: s.requantize(s.image()),
    "logistic": lambda s: s.model.logistic(s.image()),
    "tanh": lambda s: s.activation(s.image(), "tanh"),
    "leaky_relu": lambda s: s.activation(s.image(), "leaky_relu"),
    "hard_swish": lambda s: s.activation(s.image(), "hard_swish"),
    "elu": lambda s: s.activation(s.image(), "elu"),
    "softmax": lambda s: s.model.softmax(s.image(), beta=s.choose.pick((1.0, 1.0, 0.5, 3.0))),
}
GRAPHS: dict[str, Callable[[Sketch], Tensor]] = {
    "conv_relu_max_pool": lambda s: s.pool(s.requantize(s.conv_2d(s.image()), "relu"), "max"),
    "conv_add_residual": _residual,
    "conv_table_max_pool": lambda s: s.pool(s.activation(s.conv_2d(s.image())), "max"),
    "conv_table_conv_table": lambda s: s.activation(s.conv_2d(s.activation(s.conv_2d(s.image())), kernel=1)),
    "pad_conv": lambda s: s.conv_2d(s.pad(s.image()), padding="VALID"),
    "depthwise_pointwise": lambda s: s.conv_2d(s.depthwise_conv_2d(s.image()), kernel=1),
    "conv_reshape_fully_connected": lambda s: s.fully_connected(s.reshape(s.conv_2d(s.image()))),
    "conv_mean_fully_connected_softmax": lambda s: s.model.softmax(
        s.fully_connected(s.mean(s.conv_2d(s.image()), (1, 2)))
    ),
    "uint8_edges": _uint8_edges,
    "float_edges": lambda s: s.model.dequantize(s.conv_2d(s.requantize(s.image(dtype="float32")))),
}
CORNERS: dict[str, Callable[[Sketch], Tensor]] = {
    "conv_2d_batch": lambda s: s.conv_2d(s.image(batch=2)),
    "conv_2d_groups": lambda s: s.conv_2d(s.image(shape=(1, 5, 6, 6)), groups=s.choose.pick((2, 3))),
    "fully_connected_rows": lambda s: s.fully_connected(s.image(shape=(3, s.choose.pick(CHANNELS))), rows=3),
    "add_broadcast": lambda s: s.add(*_pair(s, (1, 1, 1, 1))),
    "mean_axes": lambda s: s.mean(s.image(), s.choose.pick(((1,), (2,), (3,), (1, 2, 3)))),
    "sub": lambda s: s.sub(*_pair(s)),
    "mul": lambda s: s.mul(*_pair(s)),
    "concatenation": lambda s: s.model.concatenation(_twice(s.image()), 3),
}
KINDS = LAYERS | GRAPHS | CORNERS
