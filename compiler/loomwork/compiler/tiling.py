# SPDX-License-Identifier: Apache-2.0
"""Cutting a layer's output into pieces that one command can do."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from loomwork.compiler.limits import largest

MAX_TILE_SIDE = largest("CONVOLVE", "tile_width")
"""Largest width or height of a tile, in pixels."""
MAX_CHANNELS = largest("DRAIN", "channels")
"""Most channels of one DRAIN."""
MAX_BLOCKS = largest("CONVOLVE", "blocks")
"""Most blocks of output channels of one CONVOLVE."""
MAX_POOL_STEP = largest("DRAIN", "pool_x_step")
"""Largest step between pooling windows, in pixels."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of output pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Run:
    """Neighbouring output positions, along one axis, whose pooling windows have the same size and a constant step.

    first, count: output positions. start: first input position of the first window. size: input positions per window.
    step: from one window to the next; 0 for a single one.
    """

    first: int
    count: int
    start: int
    size: int
    step: int


def covered(count: int, window: int, stride: int) -> int:
    """Input positions that `count` neighbouring windows span."""
    return (count - 1) * stride + window


def balanced(total: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cut `total` into the fewest pieces of at most `limit`, as equal as can be; gives (start, size)."""
    pieces = ceil(total / limit)
    start = 0
    for piece in range(pieces):
        end = total * (piece + 1) // pieces
        yield start, end - start
        start = end


def largest_tile(
    width: int,
    depth: int,
    *,
    window: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    max_height: int = MAX_TILE_SIDE,
    max_width: int = MAX_TILE_SIDE,
) -> tuple[int, int]:
    """Height and width of the largest tile of output pixels whose values fit `depth` accumulators.

    width: of the image, in output pixels; whole rows if possible, else equal parts of a row. window, stride: (y, x) of
    a pooling on the way out of the accumulators; one output pixel then stands for a window of values. max_height,
    max_width: output pixels, for layers whose steps are too large for a command.
    Raises ValueError when not even one output pixel fits.
    """

    def most(limit: int, window: int, stride: int) -> int:
        return (min(limit, MAX_TILE_SIDE) - window) // stride + 1 if window <= min(limit, MAX_TILE_SIDE) else 0

    row_values = covered(width, window[1], stride[1])
    whole_rows = row_values <= MAX_TILE_SIDE and width <= max_width and row_values * window[0] <= depth
    tile_width = width if whole_rows else min(max_width, most(depth // window[0], window[1], stride[1]))
    if tile_width < 1:
        raise ValueError(f"a pooling window of {window[0]}x{window[1]} does not fit {depth} accumulators")
    tile_width = ceil(width / ceil(width / tile_width))
    return min(max_height, most(depth // covered(tile_width, window[1], stride[1]), window[0], stride[0])), tile_width


def channel_groups(channels: int, cols: int) -> list[tuple[int, int]]:
    """Cut channels into groups of whole blocks (but the last) that one command can name; gives (first, count)."""
    limit = min(MAX_BLOCKS, MAX_CHANNELS // cols) * cols
    return [(first, min(limit, channels - first)) for first in range(0, channels, limit)]


def pooling_runs(outputs: int, inputs: int, window: int, stride: int, pad: int) -> list[Run]:
    """Cut one axis of a pooling into runs of equal windows; windows are clipped to `0 .. inputs - 1`.

    Raises ValueError when a window lies wholly outside.
    """
    runs: list[Run] = []
    for position in range(outputs):
        start = max(0, position * stride - pad)
        size = min(inputs, position * stride - pad + window) - start
        if size < 1:
            raise ValueError(f"the pooling window of output position {position} lies outside the input")
        if runs and runs[-1].size == size:
            last = runs[-1]
            step = start - last.start - (last.count - 1) * last.step
            if step <= MAX_POOL_STEP and (last.count == 1 or step == last.step):
                runs[-1] = Run(last.first, last.count + 1, last.start, size, step)
                continue
        runs.append(Run(position, 1, start, size, 0))
    return runs


def pooling_counts(
    outputs: tuple[int, int],
    inputs: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
) -> set[int]:
    """How many pixels of the image the windows of a pooling have, clipped to it; all arguments are (y, x).

    Raises ValueError when a window lies wholly outside.
    """
    axes = zip(outputs, inputs, window, stride, pad, strict=True)
    rows, columns = ({run.size for run in pooling_runs(*axis)} for axis in axes)
    return {height * width for height in rows for width in columns}


def row_chunk(values_per_row: int, values: int) -> int:
    """Rows of about `values` values, so that the next layer can begin before all are done."""
    return max(1, min(MAX_TILE_SIDE, values // values_per_row))
