# SPDX-License-Identifier: Apache-2.0
"""The graph between importer and lowering: feature maps and layers with their exact integer arithmetic.

Importers turn a model file into a `Graph`; passes turn a `Graph` into a `Graph`; lowering turns it into commands. Every
number a layer needs to be exact is in it: no scale is left to interpret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import INT8_MAX, INT8_MIN, Rounding
from loomwork.arch.program import HostRuntime, Tensor


class CompileError(ValueError):
    """A model that cannot be compiled: one sentence that names the operator or tensor, and what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where a part of a map begins in it: image row, column and channel. map: the name of the whole."""

    map: str
    row: int
    column: int
    channel: int


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """An int8 tensor `[height, width, channels]` of one image. A vector of n values is `[1, 1, n]`.

    part: of which other map this is a part (divide.py); only external memory holds both in the same place.
    """

    name: str
    height: int
    width: int
    channels: int
    zero_point: int
    part: Part | None = None

    @property
    def whole(self) -> str:
        """Name of the map that this one is a part of, or else its own."""
        return self.part.map if self.part else self.name

    @property
    def row_bytes(self) -> int:
        """Bytes of one image row."""
        return self.width * self.channels


@dataclass(frozen=True, kw_only=True)
class Requantize:
    """`clamp(requantize(value + bias) + zero_point)`, see arch/numerics.py.

    multiplier, shift: `[channels]` int64, or of length 1 when all channels share them. bias: `[channels]` int32 values
    (or length 1) that already contain what the input's zero point contributes.
    """

    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    bias: NDArray[np.int64]
    zero_point: int
    minimum: int = INT8_MIN
    maximum: int = INT8_MAX
    rounding: Rounding = Rounding.TFLITE


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operation on feature maps. name: of the operator in the model. operator: its type there, for reports."""

    name: str
    operator: str
    input: str
    output: str

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the maps that it reads."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class Convolution(Layer):
    """Convolution, dense or depthwise, over an input padded with its zero point.

    kernel: int8 `[kernel height, kernel width, input channels, output channels]`; depthwise:
    `[kernel height, kernel width, 1, output channels]`, output channel o reads input channel `o // multiplier` with
    `multiplier = output channels / input channels`. stride, dilation: (y, x). pad: rows above, columns to the left of
    the image (what lies below and to the right follows from the output's shape). Fully connected layers are
    convolutions whose kernel covers the image.
    """

    kernel: NDArray[np.int8]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    depthwise: bool = False
    requantize: Requantize


@dataclass(frozen=True, kw_only=True)
class PoolLayer(Layer):
    """A reduction of windows clipped to the image, then clamp.

    window, stride: (y, x). pad: rows above, columns to the left of the image.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int] = (0, 0)
    minimum: int = INT8_MIN
    maximum: int = INT8_MAX


@dataclass(frozen=True, kw_only=True)
class MaxPool(PoolLayer):
    """Maximum of each window."""


@dataclass(frozen=True, kw_only=True)
class AveragePool(PoolLayer):
    """TFLite AVERAGE_POOL_2D: mean of each window's raw values, half away from zero.

    rules: where that is not what the sum of a window becomes, what does, by the number of pixels that the window has in
    the image. All of each has length 1, and its clamp is not used.
    """

    rules: Mapping[int, Requantize] | None = None


@dataclass(frozen=True, kw_only=True)
class Mean(Layer):
    """Mean over the whole image: `clamp(requantize(sum + bias) + zero_point)`.

    The multiplier contains the division by the number of pixels (TFLite QuantizedMeanOrSum). All of `requantize` has
    length 1.
    """

    requantize: Requantize


@dataclass(frozen=True, kw_only=True)
class Combination(Layer):
    """`input` and `operand`, both of the output's shape, number by number; see COMBINE in arch/isa.py.

    rounding: of each of its steps.
    """

    operand: str
    zero_input: int
    zero_operand: int
    multiplier: int
    shift: int
    zero_point: int
    minimum: int = INT8_MIN
    maximum: int = INT8_MAX
    rounding: Rounding = Rounding.TFLITE

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Layer`."""
        return self.input, self.operand


@dataclass(frozen=True, kw_only=True)
class Add(Combination):
    """Their sum. Its steps and their order are those of TFLite's int8 ADD."""

    multiplier_input: int
    shift_input: int
    multiplier_operand: int
    shift_operand: int


@dataclass(frozen=True, kw_only=True)
class Multiply(Combination):
    """Their product, as TFLite's int8 MUL has it."""


@dataclass(frozen=True, kw_only=True)
class Rescale(Layer):
    """Requantize every value by itself (QUANTIZE int8 to int8, RELU, RELU6). All of `requantize` has length 1."""

    requantize: Requantize


@dataclass(frozen=True, kw_only=True)
class Move:
    """Pixels that a Rearrange copies, or fills with one value.

    source: which of the layer's maps they come from (0: `input`, then `others`). origin, step: row and column of the
    first pixel there, and from one to the next; a step may be 0. channel: the first one there. target, target_step,
    target_channel: likewise in the output. height, width, channels: how many; the channels of a move that is one pixel
    wide may run on into the pixels behind it. fill: the value written instead of what is read, None to copy.
    """

    source: int
    origin: tuple[int, int]
    step: tuple[int, int]
    channel: int
    target: tuple[int, int]
    target_step: tuple[int, int]
    target_channel: int
    height: int
    width: int
    channels: int
    fill: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rearrange(Layer):
    """Numbers of one or several maps in other places: concatenation, slices, padding, enlarging by repetition.

    others: maps that it reads beside `input`. moves: write every number of the output once. requantize: for each map
    that is read, as in Rescale.
    """

    others: tuple[str, ...] = ()
    moves: tuple[Move, ...]
    requantize: tuple[Requantize, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Layer`."""
        return self.input, *self.others


@dataclass(frozen=True, kw_only=True)
class Table(Layer):
    """Any function of one value: `table[value + 128]` (LOGISTIC, TANH, LEAKY_RELU, HARD_SWISH, ELU).

    table: 256 int8 entries, the first one for -128.
    """

    table: NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Layers in an order in which each reads only what is there.

    maps: feature maps by name. inputs, outputs: names of those that come from and go to external memory.
    """

    maps: dict[str, FeatureMap] = field(default_factory=dict[str, FeatureMap])
    layers: tuple[Layer, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HostPart:
    """Operators left to the host; see arch/program.py HostStep for the members.

    macs: multiply-accumulates of each operator, 0 for one that does not multiply matrices.
    """

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[tuple[str, str], ...]
    runtime: HostRuntime = HostRuntime.TFLITE_MICRO
    macs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """An imported network: parts in order of execution, tensors between them, the network's own inputs and outputs.

    A tensor that an accelerator part shares with others appears in `tensors` with its user's shape and in the part's
    `Graph` as the feature map of the same name. Reshaping is free: `[1, 8, 8, 64]` and `[1, 4096]` are the same bytes.
    """

    parts: tuple[Graph | HostPart, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
