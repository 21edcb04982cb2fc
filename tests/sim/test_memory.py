# SPDX-License-Identifier: Apache-2.0
"""Tensors in the windows of external memory."""

import numpy as np
import pytest

from loomwork.arch.program import AcceleratorStep, Placement
from loomwork.sim.memory import pack_inputs, unpack_outputs, window_bytes


def step(inputs: list[Placement], outputs: list[Placement]) -> AcceleratorStep:
    return AcceleratorStep(commands=b"", constants=b"", inputs=tuple(inputs), outputs=tuple(outputs))


A = Placement(tensor="a", offset=4, row_stride=8, rows=2, row_bytes=3)
B = Placement(tensor="b", offset=32, row_stride=5, rows=1, row_bytes=5)


def test_inputs_lie_where_the_placements_say():
    a = np.array([[[1, 2, 3], [-1, -2, -128]], [[11, 12, 13], [21, 22, 127]]], np.int8)
    b = np.array([[5, 6, 7, 8, 9], [15, 16, 17, 18, 19]], np.int8)
    window = pack_inputs(step([A, B], []), {"a": a, "b": b})
    assert window.dtype == np.uint8
    first = [0] * 4 + [1, 2, 3, 0, 0, 0, 0, 0] + [255, 254, 128, 0, 0, 0, 0, 0] + [0] * 12 + [5, 6, 7, 8, 9]
    second = [0] * 4 + [11, 12, 13, 0, 0, 0, 0, 0] + [21, 22, 127, 0, 0, 0, 0, 0] + [0] * 12 + [15, 16, 17, 18, 19]
    assert window.tolist() == [first, second]


def test_outputs_are_taken_from_where_the_placements_say():
    window = np.arange(2 * 37, dtype=np.uint8).reshape(2, 37)
    window[0, 4] = 200
    outputs = unpack_outputs(step([], [A, B]), window)
    assert {name: value.dtype for name, value in outputs.items()} == {"a": np.int8, "b": np.int8}
    assert outputs["a"].tolist() == [[-56, 5, 6, 12, 13, 14], [41, 42, 43, 49, 50, 51]]
    assert outputs["b"].tolist() == [[32, 33, 34, 35, 36], [69, 70, 71, 72, 73]]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_values_count_not_their_layout_in_memory(order):
    image = np.asarray(np.arange(-6, 6, dtype=np.int8).reshape(2, 2, 3, 1), order=order)
    place = Placement(tensor="a", offset=0, row_stride=3, rows=2, row_bytes=3)
    window = pack_inputs(step([place], []), {"a": image})
    assert window.view(np.int8).tolist() == [[-6, -5, -4, -3, -2, -1], [0, 1, 2, 3, 4, 5]]


def test_outputs_do_not_share_memory_with_the_window():
    window = np.zeros((1, 37), np.uint8)
    outputs = unpack_outputs(step([], [B]), window)
    window[:] = 9
    assert not outputs["b"].any()


def test_a_window_ends_where_its_last_placement_does():
    assert window_bytes([]) == 0
    assert window_bytes([A]) == 4 + 2 * 8
    assert window_bytes([B, A]) == 32 + 5
