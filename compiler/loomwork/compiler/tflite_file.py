# SPDX-License-Identifier: Apache-2.0
"""Tensors, constants and operators of a `.tflite` file being written; `tflite_writer` adds a method for each operator.

File format: TensorFlow Lite schema version 3, `tensorflow/compiler/mlir/lite/schema/schema.fbs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import DTypeLike

Scale = float | Sequence[float] | np.ndarray | None

# Version of each operator's int8 form (`op_version.cc` in tensorflow/lite/tools/versioning); 1 where not listed.
INT8_VERSIONS = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "CONCATENATION"), 2),
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE", "RELU", "RELU6", "SOFTMAX", "LOGISTIC"), 2),
    **dict.fromkeys(("TANH", "LEAKY_RELU"), 2),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 3),
    "FULLY_CONNECTED": 4,
}


class Output(TypedDict, total=False):
    """What may be said about an operator's output: real value = scale * (stored value - zero_point)."""

    scale: Scale
    zero_point: int
    name: str


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model being built. `scale` holds float32 values: none, one, or one per channel along `axis`."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: tuple[float, ...]
    zero_point: int
    axis: int


class AlignedBuffer(schema.BufferT):
    """Constant data at a multiple of 16 bytes, as the schema demands; the Python generator does not see to it."""

    def pack_aligned(self, builder: flatbuffers.Builder) -> int:
        """Write the buffer, its data first; returns its offset."""
        builder.Prep(16, 0 if self.data is None else len(self.data))
        return super().Pack(builder)

    Pack = pack_aligned


class ModelFile:
    """A model of one subgraph, filled operator by operator in execution order.

    Shapes that do not fit are refused with a ValueError, since interpreters crash on them. Quantization is written as
    given, so that a model which a compiler has to refuse can be written too.
    """

    def __init__(self, description: str = "written by loomwork") -> None:
        self._description = description
        self._tensors: list[schema.TensorT] = []
        self._buffers: list[schema.BufferT] = [schema.BufferT()]  # buffer 0 means: not constant
        self._operators: list[schema.OperatorT] = []
        self._codes: list[str] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []

    def input(
        self,
        name: str,
        shape: Sequence[int],
        *,
        dtype: DTypeLike = "int8",
        scale: Scale = None,
        zero_point: int = 0,
        shape_signature: Sequence[int] | None = None,
    ) -> Tensor:
        """Add a model input; `shape_signature` has -1 for each dimension that is known only when the model runs."""
        tensor = self._tensor(name, shape, dtype, scale, zero_point, shape_signature=shape_signature)
        self._inputs.append(tensor.index)
        return tensor

    def constant(
        self, name: str, data: np.ndarray, *, scale: Scale = None, zero_point: int = 0, axis: int = 0
    ) -> Tensor:
        """Add a constant tensor; with several scales it is quantized per channel along `axis`."""
        self._buffers.append(AlignedBuffer(data=np.frombuffer(data.tobytes(), np.uint8)))
        return self._tensor(name, data.shape, data.dtype, scale, zero_point, axis, buffer=len(self._buffers) - 1)

    def output(self, *tensors: Tensor) -> None:
        """Add model outputs, in order."""
        self._outputs += [tensor.index for tensor in tensors]

    def operator(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        options: object = None,
        *,
        dtype: DTypeLike | None = None,
        **output: Unpack[Output],
    ) -> Tensor:
        """Append an operator with one output of `shape`; type and quantization are the first input's if not given.

        `code` is a name in the schema's BuiltinOperator and `options` its `...OptionsT` object; None among the inputs
        stands for an optional one that is absent. Errors: ValueError for a shape without elements.
        """
        if min(shape, default=1) < 1:
            raise ValueError(f"{code}: the output would have shape {tuple(shape)}: the window is larger than the input")
        first = next(tensor for tensor in inputs if tensor is not None)
        element = np.dtype(first.dtype if dtype is None else dtype)
        scale = output.get("scale", None if element.kind == "f" else first.scale)
        zero_point = output.get("zero_point", 0 if element.kind == "f" else first.zero_point)
        name = output.get("name", f"{code.lower()}_{len(self._operators)}")
        result = self._tensor(name, shape, element, scale, zero_point)
        if code not in self._codes:
            self._codes.append(code)
        kind = "NONE" if options is None else type(options).__name__.removesuffix("T")
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.index(code),
                inputs=np.array([-1 if tensor is None else tensor.index for tensor in inputs], np.int32),
                outputs=np.array([result.index], np.int32),
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
                builtinOptions=options,
            )
        )
        return result

    def build(self) -> bytes:
        """The finished file; the same calls give the same bytes."""
        graph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=np.array(self._inputs, np.int32),
            outputs=np.array(self._outputs, np.int32),
            operators=self._operators,
            name="main",
        )
        values = [getattr(schema.BuiltinOperator, code) for code in self._codes]
        model = schema.ModelT(
            version=3,
            operatorCodes=[
                schema.OperatorCodeT(min(value, 127), builtinCode=value, version=INT8_VERSIONS.get(code, 1))
                for code, value in zip(self._codes, values, strict=True)
            ],
            subgraphs=[graph],
            description=self._description,
            buffers=self._buffers,
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike,
        scale: Scale,
        zero_point: int,
        axis: int = 0,
        *,
        buffer: int = 0,
        shape_signature: Sequence[int] | None = None,
    ) -> Tensor:
        element = np.dtype(dtype)
        scales = np.atleast_1d(np.array([] if scale is None else scale, np.float32))
        quantization = schema.QuantizationParametersT(
            scale=scales, zeroPoint=np.full(len(scales), zero_point, np.int64), quantizedDimension=axis
        )
        self._tensors.append(
            schema.TensorT(
                shape=np.array(shape, np.int32),
                type=getattr(schema.TensorType, element.name.upper()),
                buffer=buffer,
                name=name,
                quantization=quantization if len(scales) else None,
                shapeSignature=None if shape_signature is None else np.array(shape_signature, np.int32),
                hasRank=True,
            )
        )
        plain_scales = tuple(float(value) for value in scales)
        return Tensor(len(self._tensors) - 1, name, tuple(map(int, shape)), element, plain_scales, zero_point, axis)
