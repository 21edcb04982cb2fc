# SPDX-License-Identifier: Apache-2.0
"""Tiles, pooling runs and channel groups cover everything once and stay within what commands can say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomwork.compiler.tiling import (
    accumulator_tiles,
    balanced,
    channel_groups,
    covered,
    pooling_runs,
    row_chunks,
)

SIDES = st.integers(1, 40)


@given(SIDES, SIDES, st.sampled_from([16, 32, 64, 256]), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_tiles_cover_the_output_once_and_fit(
    height: int, width: int, depth: int, window_y: int, window_x: int, gap: int
) -> None:
    window, stride = (window_y, window_x), (window_y + gap, window_x)
    seen: set[tuple[int, int]] = set()
    for tile in accumulator_tiles(height, width, depth, window=window, stride=stride):
        values = covered(tile.height, window_y, stride[0]) * covered(tile.width, window_x, stride[1])
        assert values <= depth
        pixels = {(tile.y + y, tile.x + x) for y in range(tile.height) for x in range(tile.width)}
        assert not pixels & seen
        seen |= pixels
    assert seen == {(y, x) for y in range(height) for x in range(width)}


def test_tiles_are_whole_rows_of_equal_number_where_they_fit() -> None:
    tiles = accumulator_tiles(25, 10, 128)
    assert [(tile.y, tile.x, tile.height, tile.width) for tile in tiles] == [
        (0, 0, 8, 10),
        (8, 0, 8, 10),
        (16, 0, 9, 10),
    ]


def test_wide_rows_are_split_into_equal_columns() -> None:
    assert [(tile.x, tile.width) for tile in accumulator_tiles(1, 40, 16)] == [(0, 13), (13, 13), (26, 14)]


def test_layers_with_large_steps_get_narrow_tiles() -> None:
    tiles = accumulator_tiles(3, 3, 64, max_height=1, max_width=1)
    assert len(tiles) == 9


def test_a_window_larger_than_the_accumulators_is_refused() -> None:
    with pytest.raises(ValueError, match="a pooling window of 5x5 does not fit 16 accumulators"):
        accumulator_tiles(4, 4, 16, window=(5, 5), stride=(5, 5))


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
    assert list(row_chunks(3, 1000, 10)) == [(0, 1), (1, 1), (2, 1)]
