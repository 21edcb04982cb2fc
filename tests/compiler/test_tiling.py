# SPDX-License-Identifier: Apache-2.0
"""Tiles, pooling runs and channel groups cover everything once and stay within what commands can say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomwork.compiler.tiling import (
    balanced,
    channel_groups,
    covered,
    largest_tile,
    pooling_runs,
    row_chunk,
)

SIDES = st.integers(1, 40)


@given(SIDES, st.sampled_from([16, 32, 64, 256]), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_tiles_are_the_largest_that_fit(width: int, depth: int, window_y: int, window_x: int, gap: int) -> None:
    window, stride = (window_y, window_x), (window_y + gap, window_x)
    rows, columns = largest_tile(width, depth, window=window, stride=stride)

    def values(rows: int, columns: int) -> int:
        return covered(rows, window_y, stride[0]) * covered(columns, window_x, stride[1])

    assert values(rows, columns) <= depth < values(rows + 1, columns)
    assert columns == width or values(1, width) > depth
    # Rows are not split into more parts than needed.
    parts = -(-width // columns)
    assert parts == 1 or values(1, -(-width // (parts - 1))) > depth


def test_tiles_are_whole_rows_where_they_fit() -> None:
    assert largest_tile(10, 128) == (12, 10)


def test_wide_rows_are_split_into_equal_columns() -> None:
    assert largest_tile(40, 16) == (1, 14)


def test_layers_with_large_steps_get_narrow_tiles() -> None:
    assert largest_tile(3, 64, max_height=1, max_width=1) == (1, 1)


def test_a_window_larger_than_the_accumulators_is_refused() -> None:
    with pytest.raises(ValueError, match="a pooling window of 5x5 does not fit 16 accumulators"):
        largest_tile(4, 16, window=(5, 5), stride=(5, 5))


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 20), st.data())
def test_pooling_runs_are_the_clipped_windows(inputs: int, window: int, stride: int, data: st.DataObject) -> None:
    pad = data.draw(st.integers(0, window - 1))
    outputs = (inputs - 1 + pad) // stride + 1
    actual = [
        (run.start + index * run.step, run.size)
        for run in pooling_runs(outputs, inputs, window, stride, pad)
        for index in range(run.count)
    ]
    expected: list[tuple[int, int]] = []
    for position in range(outputs):
        inside = [i for i in range(position * stride - pad, position * stride - pad + window) if 0 <= i < inputs]
        expected.append((inside[0], len(inside)))
    assert actual == expected


def test_pooling_runs_join_what_is_alike() -> None:
    runs = pooling_runs(8, 8, 3, 1, 1)
    assert [(run.first, run.count, run.start, run.size, run.step) for run in runs] == [
        (0, 1, 0, 2, 0),
        (1, 6, 0, 3, 1),
        (7, 1, 6, 2, 0),
    ]


def test_a_pooling_window_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="output position 2 lies outside the input"):
        pooling_runs(3, 4, 2, 2, 0)


@pytest.mark.parametrize(("channels", "cols"), [(1, 4), (4095, 4), (4096, 4), (9000, 16), (2050, 2)])
def test_channel_groups_are_whole_blocks(channels: int, cols: int) -> None:
    groups = channel_groups(channels, cols)
    assert [first for first, _ in groups] == [sum(count for _, count in groups[:i]) for i in range(len(groups))]
    assert sum(count for _, count in groups) == channels
    assert all(count <= min(4095, 1023 * cols) for _, count in groups)
    assert all(first % cols == 0 for first, _ in groups)


@given(st.integers(1, 300), st.integers(1, 50))
def test_balanced_pieces_differ_by_one_at_most(total: int, limit: int) -> None:
    pieces = list(balanced(total, limit))
    sizes = [size for _, size in pieces]
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= limit
    assert len(pieces) == -(-total // limit)


def test_row_chunks_have_a_row_at_least() -> None:
    assert [row_chunk(values, 10) for values in (1000, 10, 5, 3)] == [1, 1, 2, 3]
