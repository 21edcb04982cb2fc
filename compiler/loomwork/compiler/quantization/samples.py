# SPDX-License-Identifier: Apache-2.0
"""Calibration data: checked against the network's inputs, and handed out one inference at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from loomwork.compiler.quantization.check import inputs
from loomwork.compiler.quantization.error import QuantizeError
from loomwork.compiler.quantization.shapes import shape_of

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Inputs of a network, `[inferences, *shape of the input]` by name, all of the same length."""

    arrays: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """What one inference takes, after the other."""
        for index in range(len(self)):
            yield {name: np.asarray(array[index]) for name, array in self.arrays.items()}


def check_samples(model: onnx.ModelProto, data: Mapping[str, Array], what: str = "calibration data") -> Samples:
    """Bring arrays `[samples, ...]` into the form that the inputs of a model with fixed shapes take.

    For an input of `[batch, ...]` an array is `[samples, ...]` with samples a multiple of batch, or
    `[samples, batch, ...]`. Floats of any width become float32; integers do not, for whether 0 to 255 or 0 to 1 is
    meant is not ours to guess. Raises QuantizeError when an array is missing, unknown, empty, or does not fit.
    """
    values = {value.name: value for value in inputs(model)}
    for name in data:
        if name not in values:
            raise QuantizeError(f"{what} has {name}, but the inputs are {', '.join(values)}: name the arrays like them")
    arrays: dict[str, Array] = {}
    for name, value in values.items():
        if name not in data:
            raise QuantizeError(f"{what} has no array for input {name}: add one of that name")
        array = _converted(name, np.asarray(data[name]), value, what)
        arrays[name] = _batched(name, array, shape_of(value), what)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{count} for {name}" for name, count in counts.items())
        raise QuantizeError(f"{what} has different numbers of samples ({text}): give as many for each input")
    return Samples(arrays=arrays)


def _converted(name: str, array: Array, value: onnx.ValueInfoProto, what: str) -> Array:
    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    if array.dtype != wanted:
        if not (np.issubdtype(array.dtype, np.floating) and np.issubdtype(wanted, np.floating)):
            raise QuantizeError(
                f"{what} for input {name} is {array.dtype}, the network takes {wanted}: convert it as in training, "
                f"for instance (array / 255).astype('{wanted}')"
            )
        with np.errstate(over="ignore"):
            array = array.astype(wanted)
    if array.size == 0:
        raise QuantizeError(f"{what} for input {name} is empty, {list(array.shape)}: give some samples, 100 are plenty")
    if np.issubdtype(wanted, np.floating):
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise QuantizeError(
                f"{what} for input {name} has {bad} values that are NaN or infinite: remove these samples"
            )
    return array


def _batched(name: str, array: Array, shape: tuple[int, ...], what: str) -> Array:
    if array.shape[1:] == shape:
        return array
    if not shape or array.ndim != len(shape) or array.shape[1:] != shape[1:]:
        expected = ", ".join(["samples", *map(str, shape[1:] if shape else ())])
        raise QuantizeError(f"{what} for input {name} is {list(array.shape)}, expected [{expected}]: reshape it")
    if len(array) % shape[0]:
        raise QuantizeError(
            f"{what} for input {name} has {len(array)} samples, but the network takes {shape[0]} at once: give a "
            "multiple of that"
        )
    return array.reshape(-1, *shape)
