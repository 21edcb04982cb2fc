# SPDX-License-Identifier: Apache-2.0
"""Random quantized ONNX graphs: what is compiled agrees with its layers in every bit, and these with ONNX Runtime."""

import os

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from loomwork.arch.config import NANO, SMALL, Config
from tests.compiler.onnx_check import check, layers
from tests.onnx_models import QdqBuilder

CASES = int(os.environ.get("LOOMWORK_RANDOM_CASES", "12"))


class Network:
    """A graph in the making. Every tensor that is computed is an output, so that each operator is judged on its own
    and no difference of one step grows on the way."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.model = QdqBuilder(
            dtype=draw(st.sampled_from(["int8", "uint8"])), stored=draw(st.booleans()), seed=draw(st.integers(0, 999))
        )
        depth, height, width = draw(st.integers(1, 9)), draw(st.integers(4, 9)), draw(st.integers(4, 9))
        self.images = {self._input((1, depth, height, width)): (1, depth, height, width)}

    def _input(self, shape: tuple[int, ...]) -> str:
        scale = self._draw(st.sampled_from([0.0173, 0.05173, 0.1319]))
        return self.model.input(shape, scale=scale, zero_point=self._draw(st.sampled_from([-128, -5, 3, 127])))

    def step(self) -> None:
        """One operator on a tensor that is there."""
        name = self._draw(st.sampled_from(sorted(self.images)))
        shape = self.images[name]
        kind = self._draw(st.sampled_from(["conv", "depthwise", "pool", "add", "concat", "slice", "pad", "resize"]))
        real, result = getattr(self, f"_{kind}")(name, shape)
        if self._draw(st.booleans()):
            real = self.model.node("Relu", real)
        scale = self.model.fitting_scale(real)
        stored = self.model.quantize(real, scale=scale, zero_point=self._draw(st.sampled_from([-128, -5, 60])))
        self.images[stored] = result
        self.model.output(stored, stored=True)

    def _conv(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        depth, height, width = shape[1:]
        outs, size, stride = (self._draw(st.integers(1, most)) for most in (9, 3, 2))
        steps = np.geomspace(0.0021, 0.0083, outs) if self._draw(st.booleans()) else 0.00413
        w = self.model.weights((outs, depth, size, size), scale=steps)
        y = self.model.node("Conv", name, w, pads=[size - 1, 0, 0, size - 1], strides=[stride, stride])
        return y, (1, outs, (height - 1) // stride + 1, (width - 1) // stride + 1)

    def _depthwise(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        times = self._draw(st.integers(1, 2))
        w = self.model.weights((shape[1] * times, 1, 3, 3), scale=0.0113)
        y = self.model.node("Conv", name, w, pads=[1, 1, 1, 1], group=shape[1])
        return y, (1, shape[1] * times, *shape[2:])

    def _pool(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        op = self._draw(st.sampled_from(["MaxPool", "AveragePool"]))
        y = self.model.node(op, name, kernel_shape=[2, 2])
        return y, (*shape[:2], shape[2] - 1, shape[3] - 1)

    def _add(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        others = [other for other, found in self.images.items() if found == shape]
        other = self._draw(st.sampled_from([*others, ""])) or self._input(shape)
        return self.model.node(self._draw(st.sampled_from(["Add", "Sub"])), name, other), shape

    def _concat(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        others = [other for other, found in self.images.items() if found[2:] == shape[2:]]
        other = self._draw(st.sampled_from(others))
        y = self.model.node("Concat", name, other, axis=1)
        return y, (1, shape[1] + self.images[other][1], *shape[2:])

    def _slice(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        axis = self._draw(st.integers(1, 3))
        if shape[axis] < 4:
            axis = int(np.argmax(shape))
        step = self._draw(st.sampled_from([1, 2, -1]))
        first, last = (1, shape[axis]) if step > 0 else (shape[axis] - 2, -shape[axis] - 1)
        y = self.model.node("Slice", name, *(self.model.constant([value]) for value in (first, last, axis, step)))
        sizes = list(shape)
        sizes[axis] = len(range(shape[axis])[1::step] if step > 0 else range(shape[axis])[first::step])
        return y, tuple(sizes)

    def _pad(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        mode = self._draw(st.sampled_from(["constant", "edge", "reflect"]))
        y = self.model.node("Pad", name, self.model.constant([0, 0, 1, 0, 0, 0, 0, 2]), mode=mode)
        return y, (*shape[:2], shape[2] + 1, shape[3] + 2)

    def _resize(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        y = self.model.node("Resize", name, "", self.model.constant([1.0, 1.0, 2.0, 1.0]), mode="nearest")
        return y, (*shape[:2], 2 * shape[2], shape[3])


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Two to five operators."""
    network = Network(draw)
    for _ in range(draw(st.integers(2, 5))):
        network.step()
    return network


@settings(max_examples=2 * CASES, deadline=None, derandomize=True, phases=[Phase.generate])
@given(networks(), st.sampled_from([NANO, SMALL]))
def test_random_networks(network: Network, config: Config) -> None:
    """An operator of which two others read the real result may be left to the host."""
    assert layers(check(network.model.case(2), config=config, host=None, fewest=1))
