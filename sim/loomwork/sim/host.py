# SPDX-License-Identifier: Apache-2.0
"""Host steps: operators that the accelerator does not execute, run by tflite-micro's reference kernels."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from tflite_micro.python.tflite_micro import runtime

from loomwork.arch.program import HostStep

ARENA_BYTES = 16 << 20
"""Working memory given to tflite-micro at first; ResNet-50 and MobileNetV2 whole need less."""
LARGEST_ARENA_BYTES = 1 << 30
"""Working memory with which it gives up."""


class HostError(RuntimeError):
    """tflite-micro refused or failed to run a host step; the message names its operators."""


class HostRunner:
    """Runs one host step, image by image, with one interpreter.

    Raises HostError when tflite-micro cannot load the step's model, or the model has fewer inputs than the step.
    """

    def __init__(self, step: HostStep) -> None:
        self._step = step
        self._names = ", ".join(name for name, _ in step.operators)
        try:
            self._interpreter = _interpreter(step.model)
            self._shapes = [self._interpreter.get_input_details(i)["shape"] for i in range(len(step.inputs))]
        except Exception as error:
            raise HostError(f"tflite-micro cannot prepare the host operators {self._names}: {error}") from error

    def run(self, tensors: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Execute the step for every image.

        tensors: arrays `[images, ...]` by name; each image may have any shape with the right number of values.
        Returns arrays `[images, *shape of the model's output]`, which mostly begins with a batch of 1.
        """
        images = len(tensors[self._step.inputs[0]])
        results: list[list[NDArray[np.generic]]] = [[] for _ in self._step.outputs]
        for image in range(images):
            try:
                for index, (name, shape) in enumerate(zip(self._step.inputs, self._shapes, strict=True)):
                    value = np.ascontiguousarray(tensors[name][image]).reshape(shape)
                    self._interpreter.set_input(value, index)
                self._interpreter.invoke()
            except Exception as error:
                raise HostError(f"tflite-micro failed in the host operators {self._names}: {error}") from error
            for index, collected in enumerate(results):
                collected.append(np.array(self._interpreter.get_output(index)))
        return {name: np.stack(collected) for name, collected in zip(self._step.outputs, results, strict=True)}


def _interpreter(model: bytes) -> runtime.Interpreter:
    """An interpreter with as much working memory as the model needs: how much that is shows only by trying.

    Raises what tflite-micro raises; it has one error for too little memory and for operators it refuses.
    """
    arena = ARENA_BYTES
    while True:
        try:
            return runtime.Interpreter.from_bytes(model, arena_size=arena)
        except RuntimeError as error:
            arena *= 2
            if "failed to allocate" not in str(error) or arena > LARGEST_ARENA_BYTES:
                raise
