# SPDX-License-Identifier: Apache-2.0
"""A small builder for quantized `.tflite` files.

    m = ModelBuilder()
    x = m.input("x", (1, 8, 8, 3), scale=0.05, zero_point=-3)
    y = m.conv_2d(x, weights, bias, weight_scale=0.01, activation="RELU", scale=0.1, zero_point=4)
    m.output(m.max_pool_2d(y, 2))
    Path("net.tflite").write_bytes(m.build())

Activations are `[N, H, W, C]`; a pair such as a stride is one number or (height, width). Every operator method returns
its output `Tensor`, whose shape follows TFLite's rules. The keywords `scale`, `zero_point` and `name` describe that
output; a scale or zero point left out is the input's.
"""

import math
from collections.abc import Sequence
from typing import Literal, Unpack, cast

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import DTypeLike

from loomwork.compiler.tflite_file import ModelFile, Output, Scale, Tensor

Pair = int | tuple[int, int]
Padding = Literal["SAME", "VALID"]
Activation = Literal["NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"]


class ActivatedOutput(Output, total=False):
    """Output of an operator with a fused activation."""

    activation: Activation


class PoolOutput(ActivatedOutput, total=False):
    """Output of a pooling operator; the stride is the window's size if not given, the padding VALID."""

    stride: Pair
    padding: Padding


class DenseOutput(ActivatedOutput, total=False):
    """Output of an operator with weights; `weight_scale` is one number or one per output channel."""

    weight_scale: Scale
    weight_zero_point: int


class ConvOutput(DenseOutput, total=False):
    """Output of a convolution; stride and dilation are 1 if not given, the padding SAME."""

    stride: Pair
    dilation: Pair
    padding: Padding


def window_output(size: int, kernel: int, stride: int = 1, dilation: int = 1, padding: Padding = "SAME") -> int:
    """Number of positions of a window sliding over `size` elements; `ComputeOutSize` in TFLite's kernels/padding.h."""
    return -(-size // stride) if padding == "SAME" else (size - (kernel - 1) * dilation - 1) // stride + 1


class ModelBuilder(ModelFile):
    """Builds a model of one subgraph, operator by operator in execution order."""

    def conv_2d(
        self, x: Tensor, weights: np.ndarray, bias: np.ndarray | None = None, **output: Unpack[ConvOutput]
    ) -> Tensor:
        """`weights` [Cout, kh, kw, Cin / groups]; `bias` [Cout] int32, in units of input scale * weight scale."""
        groups, rest = divmod(x.shape[3], weights.shape[3])
        if rest or weights.shape[0] % groups:
            raise ValueError(f"CONV_2D: expected weights [Cout, kh, kw, {x.shape[3]}], got {weights.shape}")
        return self._conv("CONV_2D", x, weights, bias, 0, output)

    def depthwise_conv_2d(
        self, x: Tensor, weights: np.ndarray, bias: np.ndarray | None = None, **output: Unpack[ConvOutput]
    ) -> Tensor:
        """`weights` [1, kh, kw, Cin * multiplier]; output channel c reads input channel c // multiplier."""
        if weights.shape[0] != 1 or weights.shape[3] % x.shape[3]:
            raise ValueError(f"DEPTHWISE_CONV_2D: expected weights [1, kh, kw, n * {x.shape[3]}], got {weights.shape}")
        return self._conv("DEPTHWISE_CONV_2D", x, weights, bias, 3, output)

    def fully_connected(
        self,
        x: Tensor,
        weights: np.ndarray,
        bias: np.ndarray | None = None,
        *,
        keep_num_dims: bool = False,
        **output: Unpack[DenseOutput],
    ) -> Tensor:
        """`weights` [units, depth]; the output is [elements / depth, units], or [..., units] with `keep_num_dims`."""
        units, depth = weights.shape
        rows, rest = divmod(math.prod(x.shape), depth)
        if rest or (keep_num_dims and x.shape[-1] != depth):
            raise ValueError(f"FULLY_CONNECTED: expected an input of rows of {depth} elements, got shape {x.shape}")
        options = schema.FullyConnectedOptionsT(_activation(output), keepNumDims=keep_num_dims)
        shape = (*x.shape[:-1], units) if keep_num_dims else (rows, units)
        inputs = self._weighted(x, weights, bias, 0, output)
        return self.operator("FULLY_CONNECTED", inputs, shape, options, **_plain(output))

    def max_pool_2d(self, x: Tensor, size: Pair, **output: Unpack[PoolOutput]) -> Tensor:
        """Maximum over windows of `size`."""
        return self._pool("MAX_POOL_2D", x, size, output)

    def average_pool_2d(self, x: Tensor, size: Pair, **output: Unpack[PoolOutput]) -> Tensor:
        """Average over the elements of each window that lie in the image."""
        return self._pool("AVERAGE_POOL_2D", x, size, output)

    def add(self, a: Tensor, b: Tensor, **output: Unpack[ActivatedOutput]) -> Tensor:
        """Sum, with broadcasting."""
        return self._binary("ADD", a, b, schema.AddOptionsT(_activation(output)), output)

    def sub(self, a: Tensor, b: Tensor, **output: Unpack[ActivatedOutput]) -> Tensor:
        """Difference, with broadcasting."""
        return self._binary("SUB", a, b, schema.SubOptionsT(_activation(output)), output)

    def mul(self, a: Tensor, b: Tensor, **output: Unpack[ActivatedOutput]) -> Tensor:
        """Element-wise product, with broadcasting."""
        return self._binary("MUL", a, b, schema.MulOptionsT(_activation(output)), output)

    def mean(self, x: Tensor, axes: Sequence[int], *, keep_dims: bool = False, **output: Unpack[Output]) -> Tensor:
        """Mean over `axes`, which remain as ones with `keep_dims`."""
        dropped = {axis % len(x.shape) for axis in axes}
        shape = [1 if i in dropped else n for i, n in enumerate(x.shape) if keep_dims or i not in dropped]
        inputs = [x, self.constant(f"{x.name}/axes", np.array(axes, np.int32))]
        return self.operator("MEAN", inputs, shape, schema.ReducerOptionsT(keep_dims), **output)

    def pad(self, x: Tensor, paddings: Sequence[tuple[int, int]], **output: Unpack[Output]) -> Tensor:
        """Extend each dimension by (before, after) elements of real value 0."""
        shape = [before + n + after for n, (before, after) in zip(x.shape, paddings, strict=True)]
        inputs = [x, self.constant(f"{x.name}/paddings", np.array(paddings, np.int32))]
        return self.operator("PAD", inputs, shape, schema.PadOptionsT(), **output)

    def reshape(self, x: Tensor, shape: Sequence[int], **output: Unpack[Output]) -> Tensor:
        """The same elements in the same order under another shape."""
        if math.prod(shape) != math.prod(x.shape):
            raise ValueError(f"RESHAPE: {x.name} of shape {x.shape} cannot become {tuple(shape)}")
        new_shape = np.array(shape, np.int32)
        inputs = [x, self.constant(f"{x.name}/shape", new_shape)]
        return self.operator("RESHAPE", inputs, shape, schema.ReshapeOptionsT(new_shape), **output)

    def concatenation(self, inputs: Sequence[Tensor], axis: int, **output: Unpack[Output]) -> Tensor:
        """Join along `axis`."""
        shape = list(inputs[0].shape)
        shape[axis] = sum(tensor.shape[axis] for tensor in inputs)
        return self.operator("CONCATENATION", inputs, shape, schema.ConcatenationOptionsT(axis), **output)

    def quantize(self, x: Tensor, dtype: DTypeLike = "int8", **output: Unpack[Output]) -> Tensor:
        """To an integer type, from float32 or from another quantization."""
        return self.operator("QUANTIZE", [x], x.shape, schema.QuantizeOptionsT(), dtype=dtype, **output)

    def dequantize(self, x: Tensor, **output: Unpack[Output]) -> Tensor:
        """To float32."""
        return self.operator("DEQUANTIZE", [x], x.shape, schema.DequantizeOptionsT(), dtype="float32", **output)

    def relu(self, x: Tensor, **output: Unpack[Output]) -> Tensor:
        """max(x, 0)"""
        return self.operator("RELU", [x], x.shape, **output)

    def relu6(self, x: Tensor, **output: Unpack[Output]) -> Tensor:
        """min(max(x, 0), 6)"""
        return self.operator("RELU6", [x], x.shape, **output)

    def softmax(self, x: Tensor, *, beta: float = 1.0, **output: Unpack[Output]) -> Tensor:
        """Softmax of beta * x over the last axis; int8 output has scale 1/256 and zero point -128."""
        return self.operator("SOFTMAX", [x], x.shape, schema.SoftmaxOptionsT(beta), **_unit_range(x, output))

    def logistic(self, x: Tensor, **output: Unpack[Output]) -> Tensor:
        """1 / (1 + exp(-x)); int8 output has scale 1/256 and zero point -128."""
        return self.operator("LOGISTIC", [x], x.shape, **_unit_range(x, output))

    def tanh(self, x: Tensor, **output: Unpack[Output]) -> Tensor:
        """Hyperbolic tangent; int8 output has scale 1/128 and zero point 0."""
        return self.operator("TANH", [x], x.shape, **{**Output(scale=1 / 128, zero_point=0), **output})

    def leaky_relu(self, x: Tensor, alpha: float, **output: Unpack[Output]) -> Tensor:
        """X where it is positive, alpha * x elsewhere"""
        return self.operator("LEAKY_RELU", [x], x.shape, schema.LeakyReluOptionsT(alpha), **output)

    def hard_swish(self, x: Tensor, **output: Unpack[Output]) -> Tensor:
        """X * min(max(x + 3, 0), 6) / 6"""
        return self.operator("HARD_SWISH", [x], x.shape, schema.HardSwishOptionsT(), **output)

    def elu(self, x: Tensor, **output: Unpack[Output]) -> Tensor:
        """X where it is positive, exp(x) - 1 elsewhere"""
        return self.operator("ELU", [x], x.shape, **output)

    def _conv(
        self, code: str, x: Tensor, weights: np.ndarray, bias: np.ndarray | None, axis: int, output: ConvOutput
    ) -> Tensor:
        """`axis` of the weights is the output channel: 0, or 3 for a depthwise convolution."""
        (sh, sw), (dh, dw) = _pair(output.get("stride", 1)), _pair(output.get("dilation", 1))
        padding = output.get("padding", "SAME")
        options = schema.DepthwiseConv2DOptionsT() if axis else schema.Conv2DOptionsT()
        if isinstance(options, schema.DepthwiseConv2DOptionsT):
            options.depthMultiplier = weights.shape[3] // x.shape[3]
        options.padding = getattr(schema.Padding, padding)
        options.strideH, options.strideW = sh, sw
        options.dilationHFactor, options.dilationWFactor = dh, dw
        options.fusedActivationFunction = _activation(output)
        height = window_output(x.shape[1], weights.shape[1], sh, dh, padding)
        width = window_output(x.shape[2], weights.shape[2], sw, dw, padding)
        inputs = self._weighted(x, weights, bias, axis, output)
        return self.operator(code, inputs, (x.shape[0], height, width, weights.shape[axis]), options, **_plain(output))

    def _pool(self, code: str, x: Tensor, size: Pair, output: PoolOutput) -> Tensor:
        (kh, kw), (sh, sw) = _pair(size), _pair(output.get("stride", size))
        padding = output.get("padding", "VALID")
        options = schema.Pool2DOptionsT(getattr(schema.Padding, padding), sw, sh, kw, kh, _activation(output))
        height = window_output(x.shape[1], kh, sh, padding=padding)
        width = window_output(x.shape[2], kw, sw, padding=padding)
        return self.operator(code, [x], (x.shape[0], height, width, x.shape[3]), options, **_plain(output))

    def _binary(self, code: str, a: Tensor, b: Tensor, options: object, output: ActivatedOutput) -> Tensor:
        return self.operator(code, [a, b], np.broadcast_shapes(a.shape, b.shape), options, **_plain(output))

    def _weighted(
        self, x: Tensor, weights: np.ndarray, bias: np.ndarray | None, axis: int, output: DenseOutput
    ) -> list[Tensor]:
        """Inputs of an operator with weights; TFLite fixes the bias scale at input scale * weight scale."""
        name = output.get("name", f"operator_{len(self._operators)}")
        scale, zero_point = output.get("weight_scale"), output.get("weight_zero_point", 0)
        w = self.constant(f"{name}/weights", weights, scale=scale, zero_point=zero_point, axis=axis)
        if bias is None:
            return [x, w]
        if bias.shape != (weights.shape[axis],):
            raise ValueError(f"{name}: expected a bias of shape ({weights.shape[axis]},), got {bias.shape}")
        bias_scale = np.multiply(x.scale, w.scale, dtype=np.float32) if x.scale and w.scale else None
        return [x, w, self.constant(f"{name}/bias", bias, scale=bias_scale)]


def _pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _activation(output: ActivatedOutput) -> int:
    return getattr(schema.ActivationFunctionType, output.get("activation", "NONE"))


def _plain(output: Output) -> Output:
    return cast("Output", {key: value for key, value in output.items() if key in Output.__annotations__})


def _unit_range(x: Tensor, output: Output) -> Output:
    return output if x.dtype.kind == "f" else {"scale": 1 / 256, "zero_point": -128, **output}
