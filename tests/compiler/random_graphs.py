# SPDX-License-Identifier: Apache-2.0
"""Random graphs, made layer by layer from a seed."""

import random
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import Rounding
from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Convolution,
    FeatureMap,
    Graph,
    Layer,
    MaxPool,
    Mean,
    Multiply,
    Requantize,
    Rescale,
    Table,
)


class GraphMaker:
    """Adds random layers to a graph; every method returns the name of the new feature map.

    clamps: activation ranges for the next layers; random when there are none.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.maps: dict[str, FeatureMap] = {}
        self.layers: list[Layer] = []
        self.inputs: list[str] = []
        self.clamps: list[tuple[int, int]] = []

    def graph(self, *outputs: str) -> Graph:
        return Graph(maps=self.maps, layers=tuple(self.layers), inputs=tuple(self.inputs), outputs=outputs)

    def values(self, images: int) -> dict[str, NDArray[np.int8]]:
        """Random contents of the inputs."""
        return {
            name: self.numpy.integers(
                -128, 128, (images, self.maps[name].height, self.maps[name].width, self.maps[name].channels)
            ).astype(np.int8)
            for name in self.inputs
        }

    def input(self, height: int, width: int, channels: int) -> str:
        name = self._map(height, width, channels)
        self.inputs.append(name)
        return name

    def convolution(
        self,
        source: str,
        channels: int = 4,
        *,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        pad: tuple[int, int] = (0, 0),
        size: tuple[int, int] | None = None,
        depthwise: bool = False,
        per_channel: bool = True,
    ) -> str:
        """size: of the output; when absent, as much as the padding (same on both sides) allows."""
        x = self.maps[source]
        if size is None:
            size = (
                (x.height + 2 * pad[0] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1,
                (x.width + 2 * pad[1] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1,
            )
        inputs = 1 if depthwise else x.channels
        weights = self.numpy.integers(-127, 128, (*kernel, inputs, channels)).astype(np.int8)
        terms = kernel[0] * kernel[1] * inputs
        output = self._map(*size, channels)
        return self._add(
            Convolution,
            source,
            output,
            kernel=weights,
            stride=stride,
            dilation=dilation,
            pad=pad,
            depthwise=depthwise,
            requantize=self.requantize(output, terms * 40, channels if per_channel else 1, channels),
        )

    def dense(self, source: str, channels: int) -> str:
        x = self.maps[source]
        return self.convolution(source, channels, kernel=(x.height, x.width), per_channel=False)

    def pool(
        self,
        kind: type[MaxPool] | type[AveragePool],
        source: str,
        *,
        window: tuple[int, int],
        stride: tuple[int, int],
        pad: tuple[int, int] = (0, 0),
        size: tuple[int, int] | None = None,
    ) -> str:
        x = self.maps[source]
        if size is None:
            size = ((x.height - window[0]) // stride[0] + 1, (x.width - window[1]) // stride[1] + 1)
        low, high = self._clamp()
        output = self._map(*size, x.channels, zero_point=x.zero_point)
        return self._add(kind, source, output, window=window, stride=stride, pad=pad, minimum=low, maximum=high)

    def mean(self, source: str) -> str:
        x = self.maps[source]
        output = self._map(1, 1, x.channels)
        return self._add(Mean, source, output, requantize=self.requantize(output, x.height * x.width, 1, 1))

    def add(self, source: str, operand: str) -> str:
        x = self.maps[source]
        output = self._map(x.height, x.width, x.channels)
        low, high = self._clamp()
        g = self.random
        return self._add(
            Add,
            source,
            output,
            operand=operand,
            multiplier_input=g.randint(1 << 30, (1 << 31) - 1),
            shift_input=g.randint(-4, 0),
            zero_input=x.zero_point,
            multiplier_operand=g.randint(1 << 30, (1 << 31) - 1),
            shift_operand=g.randint(-4, 0),
            zero_operand=self.maps[operand].zero_point,
            multiplier=g.randint(1 << 30, (1 << 31) - 1),
            shift=g.randint(-20, -16),
            zero_point=self.maps[output].zero_point,
            minimum=low,
            maximum=high,
        )

    def multiply(self, source: str, operand: str) -> str:
        x, g = self.maps[source], self.random
        output = self._map(x.height, x.width, x.channels)
        low, high = self._clamp()
        return self._add(
            Multiply,
            source,
            output,
            operand=operand,
            zero_input=x.zero_point,
            zero_operand=self.maps[operand].zero_point,
            multiplier=g.randint(1 << 30, (1 << 31) - 1),
            shift=g.randint(-10, -5),
            zero_point=self.maps[output].zero_point,
            minimum=low,
            maximum=high,
            rounding=g.choice(list(Rounding)),
        )

    def rescale(self, source: str) -> str:
        x = self.maps[source]
        output = self._map(x.height, x.width, x.channels)
        return self._add(Rescale, source, output, requantize=self.requantize(output, 1, 1, 1))

    def table(self, source: str) -> str:
        """A function that rises, that rises and falls, of few values, or of any."""
        x, g = self.maps[source], self.random
        entries = self.numpy.integers(-128, 128, 256)
        match g.randint(0, 3):
            case 0:
                entries = np.sort(entries)
            case 1:
                entries = np.abs(np.sort(entries) - g.randint(-90, 90)) - 128
            case 2:
                entries = np.repeat(entries[:4], 64)
            case _:
                pass
        output = self._map(x.height, x.width, x.channels)
        return self._add(Table, source, output, table=np.clip(entries, -128, 127).astype(np.int8))

    def requantize(self, output: str, spread: int, rescalings: int, biases: int) -> Requantize:
        """spread: about how large values come, so that many outputs are neither saturated nor zero."""
        low, high = self._clamp()
        exponent = -(spread.bit_length() - 1)
        return Requantize(
            multiplier=self.numpy.integers(1 << 30, 1 << 31, rescalings),
            shift=self.numpy.integers(exponent - 1, exponent + 2, rescalings),
            bias=self.numpy.integers(-64 * spread, 64 * spread + 1, biases),
            zero_point=self.maps[output].zero_point,
            minimum=low,
            maximum=high,
        )

    def random_layer(self, source: str) -> str:
        """One random layer that fits the map."""
        x, g = self.maps[source], self.random
        kinds: list[Callable[[], str]] = [
            lambda: self._random_convolution(source, depthwise=False),
            lambda: self._random_convolution(source, depthwise=False),
            lambda: self._random_convolution(source, depthwise=True),
            lambda: self.add(source, g.choice(self._same_shape(source))),
            lambda: self._residual(source),
            lambda: self._random_pool(source, MaxPool),
            lambda: self._random_pool(source, AveragePool),
            lambda: self.rescale(source),
            lambda: self.table(source),
        ]
        if x.height * x.width > 1 and g.random() < 0.1:
            kinds = [lambda: self.mean(source), lambda: self.dense(source, g.randint(1, 40))]
        return g.choice(kinds)()

    def _random_convolution(self, source: str, *, depthwise: bool) -> str:
        x, g = self.maps[source], self.random
        kernel = (g.choice([1, 2, 3, 3, 5]), g.choice([1, 2, 3, 3, 5]))
        pad = (g.randint(0, kernel[0] - 1), g.randint(0, kernel[1] - 1))
        stride, dilation = (g.randint(1, 3), g.randint(1, 2)), (g.choice([1, 1, 2, 3]), g.choice([1, 1, 2]))
        after = (g.randint(0, kernel[0] - 1), g.randint(0, kernel[1] - 1))
        if g.random() < 0.5:
            stride = (1, 1)
        height, width = (
            max(1, (inputs + before + behind - distance * (taps - 1) - 1) // step + 1)
            for inputs, before, behind, distance, taps, step in zip(
                (x.height, x.width), pad, after, dilation, kernel, stride, strict=True
            )
        )
        channels = x.channels * g.choice([1, 1, 2, 3]) if depthwise else g.choice([1, 3, 4, 7, 8, 16, 20])
        if depthwise and channels > 40:
            channels = x.channels
        return self.convolution(
            source,
            channels,
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            pad=pad,
            size=(height, width),
            depthwise=depthwise,
            per_channel=g.random() < 0.6,
        )

    def _residual(self, source: str) -> str:
        x, g = self.maps[source], self.random
        kernel = (g.choice([1, 3]), g.choice([1, 3]))
        pad = (kernel[0] // 2, kernel[1] // 2)
        branch = self.convolution(source, x.channels, kernel=kernel, pad=pad, depthwise=g.random() < 0.3)
        return self.add(branch, source) if g.random() < 0.5 else self.add(source, branch)

    def _random_pool(self, source: str, kind: type[MaxPool] | type[AveragePool]) -> str:
        x, g = self.maps[source], self.random
        if g.random() < 0.4 and x.height > 1 and x.width > 1:
            return self.pool(kind, source, window=(2, 2), stride=(2, 2))
        window = (g.randint(1, min(4, x.height)), g.randint(1, min(4, x.width)))
        pad = (g.randint(0, window[0] - 1), g.randint(0, window[1] - 1))
        stride = (g.randint(1, 3), g.randint(1, 3))
        # The last window still touches the image.
        size = ((x.height - 1 + pad[0]) // stride[0] + 1, (x.width - 1 + pad[1]) // stride[1] + 1)
        return self.pool(kind, source, window=window, stride=stride, pad=pad, size=size)

    def _same_shape(self, source: str) -> list[str]:
        x = self.maps[source]
        return [
            name for name, m in self.maps.items() if (m.height, m.width, m.channels) == (x.height, x.width, x.channels)
        ]

    def _clamp(self) -> tuple[int, int]:
        if self.clamps:
            return self.clamps.pop(0)
        if self.random.random() < 0.85:
            return -128, 127
        low, high = sorted((self.random.randint(-128, 127), self.random.randint(-128, 127)))
        return low, high

    def _map(self, height: int, width: int, channels: int, zero_point: int | None = None) -> str:
        name = f"m{len(self.maps)}"
        zero = self.random.randint(-128, 127) if zero_point is None else zero_point
        self.maps[name] = FeatureMap(name=name, height=height, width=width, channels=channels, zero_point=zero)
        return name

    def _add(self, kind: type[Layer], source: str, output: str, **members: object) -> str:
        name = f"layer{len(self.layers)}"
        self.layers.append(kind(name=name, operator=kind.__name__.upper(), input=source, output=output, **members))
        return output


def random_graph(seed: int, layers: int, *, largest: int = 12, products: bool = False) -> GraphMaker:
    """A chain of random layers with some residual connections. products: in the place of sums."""
    maker = GraphMaker(seed)
    g = maker.random
    name = maker.input(g.randint(1, largest), g.randint(1, largest), g.choice([1, 2, 3, 4, 5, 8, 12, 16]))
    for _ in range(layers):
        name = maker.random_layer(name)
    if products:
        maker.layers = [_product(layer, g) if isinstance(layer, Add) else layer for layer in maker.layers]
    return maker


def _product(layer: Add, g: random.Random) -> Multiply:
    members: dict[str, Any] = {field.name: getattr(layer, field.name) for field in fields(Multiply)}
    members |= {"operator": "MULTIPLY", "shift": g.randint(-10, -5)}
    return Multiply(**members)
