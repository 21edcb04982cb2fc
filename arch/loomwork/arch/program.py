# SPDX-License-Identifier: Apache-2.0
"""A compiled network: what the compiler writes and every backend runs.

A program is a list of steps over named tensors. An accelerator step is one run of the engine from `start` to `done`;
a host step is a small model, TFLite or ONNX, of the operators that the accelerator does not execute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loomwork.arch.config import Config


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that crosses the border of a step.

    shape: as the user sees it, batch first. dtype: NumPy name ("int8", "uint8", "int32", "float32").
    scale, zero_point: per-tensor quantization, `real = scale * (value - zero_point)`; None when not quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: without the first dimension where that is a batch of 1."""
        return self.shape[1:] if self.shape[:1] == (1,) else self.shape


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an int8 tensor lies in the INPUTS or OUTPUTS window of an accelerator step.

    The tensor is `rows` rows of `row_bytes` bytes (NHWC, one image), `row_stride` bytes apart, the first at `offset`.
    A tensor of rank 2 or less is one row.
    """

    tensor: str
    offset: int
    row_stride: int
    rows: int
    row_bytes: int


@dataclass(frozen=True, kw_only=True)
class AcceleratorStep:
    """One run of the engine.

    commands, constants: contents of those windows. inputs, outputs: tensors in those windows.
    workspace_bytes: size of the WORKSPACE window.
    """

    commands: bytes
    constants: bytes
    inputs: tuple[Placement, ...]
    outputs: tuple[Placement, ...]
    workspace_bytes: int = 0


class HostRuntime(StrEnum):
    """What executes a host step, and so what its model is."""

    TFLITE_MICRO = "tflite-micro"
    """A `.tflite` file."""
    ONNX_RUNTIME = "onnxruntime"
    """An ONNX model."""


@dataclass(frozen=True, kw_only=True)
class HostStep:
    """Operators executed on the host.

    model: a file of just these operators, for `runtime`. inputs, outputs: tensors in the order of the model's.
    operators: (operator, reason it is not on the accelerator), for reports.
    """

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[tuple[str, str], ...]
    runtime: HostRuntime = HostRuntime.TFLITE_MICRO


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled network for one configuration.

    tensors: every tensor named by a step, an input or an output. report: what the compiler found out (JSON values).
    """

    config: Config
    isa_hash: int
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[AcceleratorStep | HostStep, ...]
    report: Mapping[str, Any] = field(default_factory=dict[str, Any])
