# SPDX-License-Identifier: Apache-2.0
"""Cutting operators out of a TFLite model into a `.tflite` file of their own, for tflite-micro to run on the host."""

from collections.abc import Callable, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from loomwork.compiler.importers.tflite_model import IDENTIFIER, SCHEMA_VERSION, Operator, Tensor
from loomwork.compiler.tflite_file import AlignedBuffer

_TYPES: dict[str, int] = {
    name.lower(): value for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}


class Cut:
    """A model in the making: operators are added in order of execution, and what they need comes with them.

    available: whether a tensor is there when the model starts. source: for a tensor that is neither there nor computed
    by an operator added before, the tensor with the same bytes that is: a RESHAPE is added.
    """

    def __init__(self, available: Callable[[Tensor], bool], source: Callable[[Tensor], Tensor]) -> None:
        self._available = available
        self._source = source
        self._indices: dict[int, int] = {}
        self._tensors: list[schema.TensorT] = []
        self._buffers: list[schema.BufferT] = [schema.BufferT()]
        self._operators: list[schema.OperatorT] = []
        self._codes: list[tuple[str, int]] = []
        self.inputs: list[Tensor] = []

    def add(self, operator: Operator) -> None:
        """Append an operator as it is."""
        reads = [-1 if tensor is None else self.need(tensor) for tensor in operator.inputs]
        writes = [self._put(tensor) for tensor in operator.outputs]
        table = operator.table
        self._append(operator.code, operator.version, reads, writes, table.builtinOptionsType, table.builtinOptions)

    def need(self, tensor: Tensor) -> int:
        """Index in the new model of a tensor that an operator or the outside reads."""
        if tensor.index in self._indices:
            return self._indices[tensor.index]
        if tensor.data is not None:
            return self._put(tensor)
        if self._available(tensor):
            self.inputs.append(tensor)
            return self._put(tensor)
        source = self.need(self._source(tensor))
        shape = np.array(tensor.shape, np.int32)
        self._buffers.append(AlignedBuffer(data=shape.view(np.uint8)))
        self._tensors.append(
            schema.TensorT(
                shape=np.array(shape.shape, np.int32),
                type=schema.TensorType.INT32,
                buffer=len(self._buffers) - 1,
                name=f"{tensor.name}/shape",
                hasRank=True,
            )
        )
        reads = [source, len(self._tensors) - 1]
        kind = schema.BuiltinOptions.ReshapeOptions
        self._append("RESHAPE", 1, reads, [self._put(tensor)], kind, schema.ReshapeOptionsT(shape))
        return self._indices[tensor.index]

    def build(self, outputs: Sequence[Tensor]) -> bytes:
        """The finished file; the same operators give the same bytes."""
        returned = [self.need(tensor) for tensor in outputs]
        graph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=np.array([self._indices[tensor.index] for tensor in self.inputs], np.int32),
            outputs=np.array(returned, np.int32),
            operators=self._operators,
            name="host",
        )
        codes = [(getattr(schema.BuiltinOperator, code), version) for code, version in self._codes]
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[schema.OperatorCodeT(min(code, 127), builtinCode=code, version=v) for code, v in codes],
            subgraphs=[graph],
            description="operators left to the host",
            buffers=self._buffers,
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _append(
        self, code: str, version: int, reads: list[int], writes: list[int], kind: int, options: object | None
    ) -> None:
        if (code, version) not in self._codes:
            self._codes.append((code, version))
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.index((code, version)),
                inputs=np.array(reads, np.int32),
                outputs=np.array(writes, np.int32),
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )

    def _put(self, tensor: Tensor) -> int:
        """Add a tensor, with its constant data."""
        buffer = 0
        if tensor.data is not None:
            data = np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8)
            self._buffers.append(AlignedBuffer(data=data))
            buffer = len(self._buffers) - 1
        quantization = None
        if len(tensor.scale):
            quantization = schema.QuantizationParametersT(
                scale=tensor.scale, zeroPoint=tensor.zero_point, quantizedDimension=tensor.axis
            )
        self._indices[tensor.index] = len(self._tensors)
        self._tensors.append(
            schema.TensorT(
                shape=np.array(tensor.shape, np.int32),
                type=_TYPES[tensor.dtype],
                buffer=buffer,
                name=tensor.name,
                quantization=quantization,
                hasRank=True,
            )
        )
        return self._indices[tensor.index]
