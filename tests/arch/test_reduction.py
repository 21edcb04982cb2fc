# SPDX-License-Identifier: Apache-2.0
"""How a reduction is cut into passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomwork.arch.config import BANKS
from loomwork.arch.reduction import depthwise_columns, depthwise_passes, pass_count, passes, rows_in_parallel

shapes = st.tuples(st.sampled_from([2, 4, 8, 16, 32, 64]), st.integers(1, 12), st.integers(1, 200), st.integers(1, 63))


@given(shapes)
def test_every_byte_comes_once_and_in_order(shape: tuple[int, int, int, int]):
    rows, kernel_rows, length, row_step = shape
    taken = [
        (segment.kernel_row, segment.start + place)
        for segments in passes(rows, kernel_rows, length, row_step)
        for segment in segments
        for place in range(segment.length)
    ]
    assert taken == [(row, byte) for row in range(kernel_rows) for byte in range(length)]


@given(shapes)
def test_segments_fill_the_array_from_its_first_row_without_gaps(shape: tuple[int, int, int, int]):
    rows, kernel_rows, length, row_step = shape
    for segments in passes(rows, kernel_rows, length, row_step):
        assert segments
        place = 0
        for segment in segments:
            assert segment.row == place
            assert segment.length > 0
            place += segment.length
        assert place <= rows


@given(shapes, st.integers(0, 100))
def test_segments_of_a_pass_lie_in_different_banks(shape: tuple[int, int, int, int], first_row: int):
    rows, kernel_rows, length, row_step = shape
    for segments in passes(rows, kernel_rows, length, row_step):
        banks = [(first_row + segment.kernel_row * row_step) % BANKS for segment in segments]
        assert len(set(banks)) == len(banks)


@given(shapes)
def test_no_pass_ends_early_without_a_reason(shape: tuple[int, int, int, int]):
    """A pass is full, or has used all banks it may, or is the last one."""
    rows, kernel_rows, length, row_step = shape
    cut = list(passes(rows, kernel_rows, length, row_step))
    assert pass_count(rows, kernel_rows, length, row_step) == len(cut)
    for segments in cut[:-1]:
        full = sum(segment.length for segment in segments) == rows
        assert full or len(segments) == rows_in_parallel(row_step)


@pytest.mark.parametrize(("row_step", "parallel"), [(1, 4), (2, 2), (3, 4), (4, 1), (5, 4), (6, 2), (8, 1)])
def test_rows_in_parallel(row_step: int, parallel: int):
    assert rows_in_parallel(row_step) == parallel
    assert len({place * row_step % BANKS for place in range(parallel)}) == parallel


@pytest.mark.parametrize(
    ("rows", "kernel_rows", "length", "count"),
    [
        (16, 3, 9, 2),  # 3 x 3 over 3 channels: 27 bytes
        (16, 3, 48, 9),  # 3 x 3 over 16 channels
        (16, 10, 4, 3),  # 10 x 4 over 1 channel: 40 bytes, 4 rows at most in a pass
        (16, 1, 640, 40),  # dense
    ],
)
def test_known_layers(rows: int, kernel_rows: int, length: int, count: int):
    assert pass_count(rows, kernel_rows, length, 1) == count


@given(st.sampled_from([1, 2, 4]), st.integers(1, 12), st.integers(1, 63), st.integers(-9, 9))
def test_kernel_rows_of_a_depthwise_pass_lie_in_different_banks(
    groups: int, kernel_rows: int, row_step: int, first_row: int
):
    cut = [list(kernel_rows_of_pass) for kernel_rows_of_pass in depthwise_passes(groups, kernel_rows, row_step)]
    assert [kernel_row for part in cut for kernel_row in part] == list(range(kernel_rows))
    for part in cut:
        banks = {(first_row + kernel_row * row_step) % BANKS for kernel_row in part}
        assert 0 < len(part) == len(banks) <= groups
    # No pass ends early without a reason.
    assert all(len(part) == min(groups, rows_in_parallel(row_step)) for part in cut[:-1])


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 5))
def test_depthwise_columns_reach_from_the_first_tap_to_the_last(tile_width: int, x_stride: int, taps: int):
    columns = {pixel * x_stride + tap for pixel in range(tile_width) for tap in range(taps)}
    assert depthwise_columns(tile_width, x_stride, taps) == max(columns) + 1
