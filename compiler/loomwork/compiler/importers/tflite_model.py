# SPDX-License-Identifier: Apache-2.0
"""Reading `.tflite` files: bytes to plain tensors and operators, or one sentence that says what is wrong.

File format: TensorFlow Lite schema version 3, `tensorflow/compiler/mlir/lite/schema/schema.fbs`.
"""

import math
import struct
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from loomwork.compiler.graph import CompileError

T = TypeVar("T")

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
MAX_RANK = 8
REUSE = 8
"""How often the bytes of a file may be part of a vector."""
MAX_ELEMENTS = 1 << 28
"""Elements of one tensor; beyond it a size is taken for damage rather than for a feature map."""

_CODES: dict[int, str] = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_TYPES: dict[int, str] = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
NUMPY_TYPES = frozenset(
    ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)
"""Tensor types whose elements NumPy holds as they lie in the file."""


class ModelFileError(ValueError):
    """A file that does not hold together; the message says where."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor. scale: float32 values: none, one, or one per channel along `axis`; zero_point: int64, as many.

    signature: the shape with -1 for what is known only at run time, None when all of it is known. data: the values of
    a constant: an array of `shape`, or the bytes as they lie in the file when NumPy does not know the type.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    signature: tuple[int, ...] | None
    variable: bool
    data: NDArray[np.generic] | None

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator. code: its name in the schema's BuiltinOperator. inputs: tensors, None for an absent optional one.

    table: the operator as the schema's object API holds it; `table.builtinOptions` are its options.
    """

    index: int
    code: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    table: schema.OperatorT = field(repr=False)

    @property
    def name(self) -> str:
        """TFLite operators have no names: that of the first output."""
        return self.outputs[0].name

    def __str__(self) -> str:
        # A fused operator lists all names it came from.
        return f"{self.code} {self.name.split(';')[0]!r}"


@dataclass(frozen=True, eq=False)
class Model:
    """The one subgraph of a file, its operators in order of execution."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def is_tflite(data: bytes) -> bool:
    """Whether a file says that it is a TFLite model."""
    return data[4:8] == IDENTIFIER


def read_model(data: bytes, name: str) -> Model:
    """Read a `.tflite` file. name: what to call it in messages.

    Raises CompileError for a file that is no TFLite model, is damaged, or whose shapes are not known.
    """
    if not is_tflite(data):
        raise CompileError(f"{name}: this is not a TFLite model: its bytes 4 to 7 must be {IDENTIFIER.decode()!r}")
    try:
        return _Reader(data).model()
    except ModelFileError as error:
        raise CompileError(f"{name}: {error}") from None
    except (struct.error, ValueError, IndexError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise CompileError(f"{name}: the file is truncated or damaged: a table in it leads nowhere") from error


class _Reader:
    """Walks the tables of one file. The FlatBuffers runtime checks nothing but the end of the buffer."""

    def __init__(self, data: bytes) -> None:
        self._budget = REUSE * len(data)
        self._model = schema.Model.GetRootAs(data)

    def model(self) -> Model:
        """Read everything. Raises ModelFileError, or what the FlatBuffers runtime raises when it leaves the file."""
        version = self._model.Version()
        if version != SCHEMA_VERSION:
            raise ModelFileError(f"schema version {version} was found, {SCHEMA_VERSION} is the one there is")
        subgraphs = self._model.SubgraphsLength()
        if subgraphs != 1:
            raise ModelFileError(
                f"the file has {subgraphs} subgraphs; only a model of one can be compiled (no IF, WHILE or CALL_ONCE)"
            )
        graph = _present(self._model.Subgraphs(0), "subgraph 0")
        tensors = tuple(
            self._tensor(index, _present(graph.Tensors(index), f"tensor {index}"))
            for index in range(graph.TensorsLength())
        )
        codes = [
            self._code(_present(self._model.OperatorCodes(index), f"operator code {index}"))
            for index in range(self._model.OperatorCodesLength())
        ]
        operators = tuple(
            self._operator(index, _present(graph.Operators(index), f"operator {index}"), codes, tensors)
            for index in range(graph.OperatorsLength())
        )
        inputs = _pick(tensors, self._vector(graph.InputsAsNumpy()), "the model's inputs")
        outputs = _pick(tensors, self._vector(graph.OutputsAsNumpy()), "the model's outputs")
        model = Model(tensors, operators, inputs, outputs)
        _check_order(model)
        for tensor in inputs:
            _check_signature(tensor)
        return model

    def _vector(self, vector: NDArray[np.generic] | int) -> NDArray[np.generic]:
        """A vector as an array; the generated code says 0 for one that is absent.

        Tables may share vectors. That all of them together exceed the file many times is no honest sharing, but a
        small file that would fill the memory.
        """
        array = np.empty(0, np.int32) if isinstance(vector, int) else vector
        self._budget -= array.nbytes
        if self._budget < 0:
            raise ModelFileError("the file is damaged: its tables share the same bytes over and over")
        return array

    def _code(self, code: schema.OperatorCode) -> tuple[str, int]:
        value = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return _CODES.get(value, f"operator {value}"), code.Version()

    def _tensor(self, index: int, table: schema.Tensor) -> Tensor:
        name = (table.Name() or b"").decode(errors="replace") or f"tensor {index}"
        shape = tuple(int(n) for n in self._vector(table.ShapeAsNumpy()))
        if len(shape) > MAX_RANK or any(n < 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise ModelFileError(f"tensor {name!r} has shape {shape}: up to {MAX_ELEMENTS} elements are possible")
        if table.Sparsity() is not None:
            raise ModelFileError(f"tensor {name!r} is stored sparsely; convert the model with dense weights")
        dtype = _TYPES.get(table.Type())
        if dtype is None:
            raise ModelFileError(f"the file is damaged: tensor {name!r} has the unknown type {table.Type()}")
        scale, zero_point, axis = np.empty(0, np.float32), np.empty(0, np.int64), 0
        quantization = table.Quantization()
        if quantization is not None:
            scale = self._vector(quantization.ScaleAsNumpy()).astype(np.float32)
            zero_point = self._vector(quantization.ZeroPointAsNumpy()).astype(np.int64)
            axis = quantization.QuantizedDimension()
            if len(zero_point) == 0:
                zero_point = np.zeros(len(scale), np.int64)
            if len(scale) and len(zero_point) != len(scale):
                raise ModelFileError(f"tensor {name!r} has {len(scale)} scales but {len(zero_point)} zero points")
        signature = tuple(int(n) for n in self._vector(table.ShapeSignatureAsNumpy())) or None
        data = self._constant(name, shape, dtype, table.Buffer())
        return Tensor(index, name, shape, dtype, scale, zero_point, axis, signature, table.IsVariable(), data)

    def _constant(self, name: str, shape: tuple[int, ...], dtype: str, buffer: int) -> NDArray[np.generic] | None:
        """The values of a constant tensor, None for one that is computed."""
        if buffer == 0:
            return None
        if buffer >= self._model.BuffersLength():
            raise ModelFileError(f"the file is damaged: tensor {name!r} is in buffer {buffer}, which does not exist")
        table = _present(self._model.Buffers(buffer), f"buffer {buffer}")
        if table.Offset() > 1 or table.Size() > 1:
            raise ModelFileError(f"tensor {name!r} lies behind the model's tables, in a file of over 2 GB")
        data = table.DataAsNumpy()
        if isinstance(data, int) or len(data) == 0:
            return None
        if dtype not in NUMPY_TYPES:
            return data
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        if len(data) != expected:
            raise ModelFileError(f"the file is damaged: tensor {name!r} holds {len(data)} bytes, its shape {expected}")
        return data.view(dtype).reshape(shape)

    def _operator(
        self, index: int, table: schema.Operator, codes: list[tuple[str, int]], tensors: tuple[Tensor, ...]
    ) -> Operator:
        if table.OpcodeIndex() >= len(codes):
            raise ModelFileError(
                f"the file is damaged: operator {index} is of kind {table.OpcodeIndex()}, unknown in it"
            )
        code, version = codes[table.OpcodeIndex()]
        place = f"operator {index} ({code})"
        reads = self._vector(table.InputsAsNumpy())
        inputs = tuple(None if i == -1 else _pick(tensors, [i], place)[0] for i in reads)
        outputs = _pick(tensors, self._vector(table.OutputsAsNumpy()), place)
        if not outputs:
            raise ModelFileError(f"the file is damaged: {place} has no output")
        return Operator(index, code, version, inputs, outputs, schema.OperatorT.InitFromObj(table))


def _present(table: T | None, what: str) -> T:
    if table is None:
        raise ModelFileError(f"the file is damaged: {what} is missing")
    return table


def _pick(tensors: tuple[Tensor, ...], indices: NDArray[np.generic] | list[int], place: str) -> tuple[Tensor, ...]:
    for index in indices:
        if not 0 <= index < len(tensors):
            raise ModelFileError(f"the file is damaged: {place} refers to tensor {index} of {len(tensors)}")
    return tuple(tensors[int(index)] for index in indices)


def _check_order(model: Model) -> None:
    """Every tensor that is read must be there, and be written once."""
    if not model.inputs or not model.outputs:
        raise ModelFileError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; it needs both"
        )
    written = {tensor.index for tensor in model.inputs}
    if len(written) != len(model.inputs) or any(tensor.data is not None for tensor in model.inputs):
        raise ModelFileError("the file is damaged: a model input is listed twice or is a constant")
    for operator in model.operators:
        for tensor in operator.inputs:
            if tensor is None or tensor.data is not None:
                continue
            if tensor.variable:
                raise ModelFileError(
                    f"{operator} keeps state in tensor {tensor.name!r}; only models that compute each output from "
                    f"their inputs alone can be compiled"
                )
            if tensor.index not in written:
                raise ModelFileError(f"{operator} reads tensor {tensor.name!r}, which nothing before it computes")
        for tensor in operator.outputs:
            if tensor.index in written or tensor.data is not None:
                raise ModelFileError(f"{operator} writes tensor {tensor.name!r}, which is already there")
            if 0 in tensor.shape:
                raise ModelFileError(
                    f"{operator} computes tensor {tensor.name!r} of shape {tensor.shape}, which is empty"
                )
            written.add(tensor.index)
    for tensor in model.outputs:
        if tensor.index not in written:
            raise ModelFileError(f"nothing computes the model's output {tensor.name!r}")


def _check_signature(tensor: Tensor) -> None:
    """Only the batch of a model input may be left open; it is then one image."""
    if tensor.signature is None:
        if 0 in tensor.shape:
            raise ModelFileError(f"the model's input {tensor.name!r} has shape {tensor.shape}, which is empty")
        return
    if len(tensor.signature) != len(tensor.shape) or any(n == -1 for n in tensor.signature[1:]) or 0 in tensor.shape:
        raise ModelFileError(
            f"the model's input {tensor.name!r} has the dynamic shape {tensor.signature}; "
            f"convert the model with a fixed shape (only the batch may be left open)"
        )
