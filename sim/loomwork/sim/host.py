# SPDX-License-Identifier: Apache-2.0
"""Host steps: operators that the accelerator does not execute, run by tflite-micro's reference kernels or ONNX Runtime.

Both are loaded when a program needs them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.program import HostRuntime, HostStep

if TYPE_CHECKING:
    import onnxruntime
    from tflite_micro.python.tflite_micro import runtime

ARENA_BYTES = 16 << 20
"""Working memory given to tflite-micro at first; ResNet-50 and MobileNetV2 whole need less."""
LARGEST_ARENA_BYTES = 1 << 30
"""Working memory with which it gives up."""

Array = NDArray[np.generic]
Invoke = Callable[[Sequence[Array]], list[Array]]
"""Runs a model once: from its inputs to its outputs, in order. An input may have any shape with as many values."""


class HostError(RuntimeError):
    """A host step that cannot be prepared or run; the message names its runtime and its operators."""


class HostRunner:
    """Runs one host step, image by image, with one interpreter.

    Raises HostError when the runtime cannot load the step's model, or the model has fewer inputs than the step.
    """

    def __init__(self, step: HostStep) -> None:
        self._step = step
        self._names = ", ".join(name for name, _ in step.operators)
        try:
            self._invoke = _RUNTIMES[step.runtime](step)
        except Exception as error:
            raise HostError(f"{step.runtime} cannot prepare the host operators {self._names}: {error}") from error

    def run(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Execute the step for every image.

        tensors: arrays `[images, ...]` by name; each image may have any shape with the right number of values.
        Returns arrays `[images, *shape of the model's output]`, which mostly begins with a batch of 1.
        """
        images = len(tensors[self._step.inputs[0]])
        results: list[list[Array]] = [[] for _ in self._step.outputs]
        for image in range(images):
            try:
                outputs = self._invoke([tensors[name][image] for name in self._step.inputs])
            except Exception as error:
                raise HostError(f"{self._step.runtime} failed in the host operators {self._names}: {error}") from error
            for collected, output in zip(results, outputs, strict=True):
                collected.append(output)
        return {name: np.stack(collected) for name, collected in zip(self._step.outputs, results, strict=True)}


def _tflite_micro(step: HostStep) -> Invoke:
    interpreter = _interpreter(step.model)
    shapes = [interpreter.get_input_details(index)["shape"] for index in range(len(step.inputs))]

    def invoke(inputs: Sequence[Array]) -> list[Array]:
        for index, (value, shape) in enumerate(zip(inputs, shapes, strict=True)):
            interpreter.set_input(np.ascontiguousarray(value).reshape(shape), index)
        interpreter.invoke()
        return [np.array(interpreter.get_output(index)) for index in range(len(step.outputs))]

    return invoke


def onnx_session(model: bytes) -> "onnxruntime.InferenceSession":
    """ONNX Runtime for a model, with quantized kernels whose sums do not overflow.

    On x86 processors without VNNI those for uint8 and int8 add pairs of products in 16 bits, and are far off where
    these saturate; the option `session.x64quantprecision` replaces them by others, and finds none for operators like
    QLinearConv of int8 and int8, which need no replacement. Raises what ONNX Runtime raises.
    """
    import onnxruntime

    def start(precision: str) -> "onnxruntime.InferenceSession":
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # nothing: it warns of every model that it improves, and errors are raised
        options.add_session_config_entry("session.x64quantprecision", precision)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    try:
        return start("1")
    except Exception:  # of many kinds; what it does not run at all is told by the second one
        return start("0")


def _onnx_runtime(step: HostStep) -> Invoke:
    session = onnx_session(step.model)
    expected = session.get_inputs()
    if len(expected) < len(step.inputs):
        raise ValueError(f"its model has {len(expected)} inputs, the step {len(step.inputs)}")

    def invoke(inputs: Sequence[Array]) -> list[Array]:
        pairs = zip(expected, inputs, strict=True)
        feed = {node.name: np.ascontiguousarray(value).reshape(node.shape) for node, value in pairs}
        return [np.asarray(result) for result in session.run(None, feed)]

    return invoke


_RUNTIMES: dict[HostRuntime, Callable[[HostStep], Invoke]] = {
    HostRuntime.TFLITE_MICRO: _tflite_micro,
    HostRuntime.ONNX_RUNTIME: _onnx_runtime,
}


def _interpreter(model: bytes) -> "runtime.Interpreter":
    """An interpreter with as much working memory as the model needs: how much that is shows only by trying.

    Raises what tflite-micro raises; it has one error for too little memory and for operators it refuses.
    """
    from tflite_micro.python.tflite_micro import runtime

    arena = ARENA_BYTES
    while True:
        try:
            return runtime.Interpreter.from_bytes(model, arena_size=arena)
        except RuntimeError as error:
            arena *= 2
            if "failed to allocate" not in str(error) or arena > LARGEST_ARENA_BYTES:
                raise
