# SPDX-License-Identifier: Apache-2.0
"""External memory: how the tensors of an accelerator step lie in its windows, and how fast it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.program import AcceleratorStep, Placement

Bytes = NDArray[np.uint8]

READ_LATENCY = 40
"""Cycles from a read address to its first data, unless told otherwise."""


@dataclass(frozen=True)
class MemoryTiming:
    """How the external memory behaves.

    latency: cycles from address to first data. stall_percent: chance per cycle that a channel pauses (and that reads
    of different ids overtake each other). seed: of those chances.
    """

    latency: int = READ_LATENCY
    stall_percent: int = 0
    seed: int = 0


def window_bytes(placements: Sequence[Placement]) -> int:
    """Bytes that a window must have to hold the placements."""
    return max((p.offset + p.rows * p.row_stride for p in placements), default=0)


def pack_inputs(step: AcceleratorStep, tensors: Mapping[str, NDArray[np.int8]]) -> Bytes:
    """Lay out the step's inputs as its INPUTS window.

    tensors: int8 arrays `[images, ...]` by name. Returns `[images, window bytes]` uint8, zero between rows.
    """
    images = {tensors[p.tensor].shape[0] for p in step.inputs}
    window = np.zeros((max(images, default=1), window_bytes(step.inputs)), dtype=np.uint8)
    for p in step.inputs:
        rows = tensors[p.tensor].view(np.uint8).reshape(-1, p.rows, p.row_bytes)
        _rows_of(window, p)[:, :, : p.row_bytes] = rows
    return window


def unpack_outputs(step: AcceleratorStep, window: Bytes) -> dict[str, NDArray[np.int8]]:
    """Take the step's outputs out of its OUTPUTS window.

    window: `[images, window bytes]` uint8. Returns int8 arrays `[images, rows * row_bytes]` by tensor name.
    """
    return {
        p.tensor: _rows_of(window, p)[:, :, : p.row_bytes].copy().reshape(len(window), -1).view(np.int8)
        for p in step.outputs
    }


def padded(data: Bytes, multiple: int) -> Bytes:
    """A copy, filled with zeros to a whole number of bus beats."""
    copy = np.zeros(-(-data.size // multiple) * multiple, dtype=np.uint8)
    copy[: data.size] = data
    return copy


def _rows_of(window: Bytes, p: Placement) -> Bytes:
    """A view `[images, rows, row_stride]` of one tensor's part of a window."""
    part = window[:, p.offset : p.offset + p.rows * p.row_stride]
    return part.reshape(len(window), p.rows, p.row_stride)
