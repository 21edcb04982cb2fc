# SPDX-License-Identifier: Apache-2.0
"""The reference of exactness: tflite-micro, run in process on a `.tflite` model.

    outputs = Oracle(Path("net.tflite")).run([image])          # one inference
    outputs = Oracle(model_bytes).run_batch([images])           # images [n, *shape of the input]
    outputs = run_tflite_micro(model_bytes, [image])            # one inference, nothing kept

What goes wrong with tflite-micro (0.dev20261023182759), found by trying:

- Raised here as `OracleError`, with what the interpreter printed: a file that is no model; an operator that is unknown
  or refuses its types or quantization (CONV_2D, pools: uint8; CONCATENATION: inputs of another scale than the output;
  pools: another scale or zero point than the input's; SOFTMAX: output scale other than 1/256; FULLY_CONNECTED: bias
  scale apart from input scale * weight scale); an activation range beyond int32; a RESHAPE to another size; an arena
  that is too small; an array of the wrong shape or type.
- **Aborts the process** (TFLITE_CHECK, SIGABRT): ADD and SUB with 2 * max(input scales) / output scale >= 2**20, or
  with an input scale of 0; SOFTMAX with beta * input scale <= 2**-26.
- **Crashes the process** (SIGSEGV, SIGFPE): weights whose Cin is larger than the input's; a tensor index out of range
  in an operator, among the outputs or in `GetTensor`; an arena of under 200 bytes.
- Computes nonsense without a word: truncated files whose tables are whole (constant data is read past the end), missing
  buffers, an output shape that the operator does not produce, stride 0, a scale of 0, infinity or NaN, a weight zero
  point of CONV_2D or DEPTHWISE_CONV_2D (ignored; FULLY_CONNECTED per tensor applies it), RELU6 with an output scale of
  its own (ignored), fused TANH or SIGN_BIT (ignored).

So a model from a fuzzer goes through the compiler's own checks before it comes here, or runs in a process of its own.
"""

import math
import os
import struct
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ai_edge_litert.schema_py_generated import Model, SubGraph
from tflite_micro.python.tflite_micro import runtime


class OracleError(RuntimeError):
    """tflite-micro refuses the model or its inputs; the message holds the interpreter's own words."""


class Oracle:
    """A model in a tflite-micro interpreter, to be run any number of times.

    `input_shapes` and `input_dtypes` say what `run` expects. With `keep_tensors`, `tensor(i)` gives the value of any
    tensor after the last run. Operators that carry state over from run to run (variables) are not reset.
    """

    def __init__(self, model: bytes | Path, *, keep_tensors: bool = False) -> None:
        data = model.read_bytes() if isinstance(model, Path) else model
        modes = runtime.InterpreterConfig
        with _translated_errors("load the model"):
            graph = _subgraph(data)
            self._interpreter = runtime.Interpreter.from_bytes(
                data,
                arena_size=_arena_size(graph, len(data)),
                intrepreter_config=modes.kPreserveAllTensors if keep_tensors else modes.kAllocationRecording,
            )
            details = [self._interpreter.get_input_details(i) for i in range(graph.InputsLength())]
        self._tensor_count = graph.TensorsLength() if keep_tensors else 0
        self._output_count = graph.OutputsLength()
        self.input_shapes: list[tuple[int, ...]] = [tuple(map(int, detail["shape"])) for detail in details]
        self.input_dtypes: list[np.dtype] = [np.dtype(detail["dtype"]) for detail in details]

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One inference: arrays of exactly the shapes and types of the model's inputs to those of its outputs."""
        if len(inputs) != len(self.input_shapes):
            raise OracleError(f"expected {len(self.input_shapes)} inputs, got {len(inputs)}")
        with _translated_errors("run the model"):
            return self._infer(inputs)

    def run_batch(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One inference for each index of the inputs' first axis; the outputs are stacked along a new first axis."""
        lengths = {len(array) for array in inputs}
        if len(inputs) != len(self.input_shapes) or len(lengths) != 1 or 0 in lengths:
            shapes = [array.shape for array in inputs]
            raise OracleError(f"expected arrays [n, *shape] for inputs of shapes {self.input_shapes}, got {shapes}")
        with _translated_errors("run the model"):
            results = [self._infer(sample) for sample in zip(*inputs, strict=True)]
        return [np.stack(column) for column in zip(*results, strict=True)]

    def tensor(self, index: int) -> np.ndarray:
        """Value of the tensor with that index in the file, after the last run; needs `keep_tensors`."""
        if not 0 <= index < self._tensor_count:
            raise OracleError(f"expected a tensor index below {self._tensor_count}, got {index} (0: not kept)")
        return self._interpreter.GetTensor(index, 0)["tensor_data"]

    def _infer(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        # Every input is set for every run: the interpreter reuses their memory for later tensors.
        for index, array in enumerate(inputs):
            self._interpreter.set_input(array, index)
        self._interpreter.invoke()
        return [self._interpreter.get_output(index) for index in range(self._output_count)]


def run_tflite_micro(model: bytes | Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs of one inference; see `Oracle` for more than one."""
    return Oracle(model).run(inputs)


def _subgraph(data: bytes) -> SubGraph:
    graph = Model.GetRootAs(data).Subgraphs(0)
    if graph is None:
        raise ValueError("the file holds no subgraph")
    return graph


def _arena_size(graph: SubGraph, model_bytes: int) -> int:
    """Bytes that are surely enough: every tensor at a place of its own, and the interpreter's records of them."""
    tensors = [tensor for i in range(graph.TensorsLength()) if (tensor := graph.Tensors(i)) is not None]
    shapes = [[max(1, tensor.Shape(i)) for i in range(tensor.ShapeLength())] for tensor in tensors]
    elements = sum(math.prod(shape) for shape in shapes)
    return 8 * elements + 1024 * (len(tensors) + graph.OperatorsLength()) + model_bytes + (1 << 17)


@contextmanager
def _translated_errors(action: str) -> Generator[None, None, None]:
    """Turn what the interpreter raises into an OracleError that includes what it printed."""
    with _captured_stderr() as printed:
        try:
            yield
        except (RuntimeError, ValueError, IndexError, TypeError, struct.error) as error:
            raise OracleError(f"tflite-micro cannot {action}: {error}\n{printed()}".rstrip()) from error


@contextmanager
def _captured_stderr() -> Generator[Callable[[], str], None, None]:
    """Collect what C++ code writes to file descriptor 2 inside the block."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), 1 << 16, 0).decode(errors="replace")
        finally:
            os.dup2(saved, 2)
            os.close(saved)
