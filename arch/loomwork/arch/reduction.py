# SPDX-License-Identifier: Apache-2.0
"""How a convolution's reduction is cut into passes of the systolic array.

The reduction of one output pixel runs over `kernel_rows` image rows, in each of which it takes `length` contiguous
bytes (`kernel width x channels` in NHWC). Laid end to end they are cut into passes of at most `rows` bytes. One pass
may span up to four image rows, because they lie in different scratchpad banks: a 3-channel or 1-channel first layer
thereby fills the array.

A pass of DEPTHWISE takes up to `taps` neighbouring columns from each of up to four kernel rows: in `depthwise_groups`
groups of `depthwise_taps` array rows, the weights of kernel column `k` of a pass's kernel row `g` are in array row
`g * depthwise_taps + k`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from loomwork.arch.config import BANKS


@dataclass(frozen=True)
class Segment:
    """The bytes that one pass takes from one image row.

    kernel_row: which row of the kernel. start: first byte in that kernel row. row: array row that receives the first
    byte. length: bytes.
    """

    kernel_row: int
    start: int
    row: int
    length: int


def rows_in_parallel(row_step: int) -> int:
    """Neighbouring kernel rows, `row_step` image rows apart (dilation), that lie in different banks."""
    if row_step % 2:
        return BANKS
    return 2 if row_step % 4 else 1


def passes(rows: int, kernel_rows: int, length: int, row_step: int) -> Iterator[tuple[Segment, ...]]:
    """Cut a reduction of `kernel_rows` x `length` bytes into passes, in the order the hardware takes them.

    rows: rows of the array. row_step: image rows between kernel rows.
    """
    kernel_row = start = 0
    while kernel_row < kernel_rows:
        segments: list[Segment] = []
        row = 0
        while row < rows and kernel_row < kernel_rows and len(segments) < rows_in_parallel(row_step):
            taken = min(rows - row, length - start)
            segments.append(Segment(kernel_row, start, row, taken))
            row += taken
            start += taken
            if start == length:
                kernel_row, start = kernel_row + 1, 0
        yield tuple(segments)


@cache
def pass_count(rows: int, kernel_rows: int, length: int, row_step: int) -> int:
    """Number of passes of `passes` with the same arguments."""
    return sum(1 for _ in passes(rows, kernel_rows, length, row_step))


def depthwise_passes(groups: int, kernel_rows: int, row_step: int) -> Iterator[range]:
    """Cut the kernel rows of a DEPTHWISE into passes, in the order the hardware takes them.

    groups: kernel rows that one pass can take at most (`Config.depthwise_groups`). row_step: image rows between them.
    """
    most = min(groups, rows_in_parallel(row_step))
    for first in range(0, kernel_rows, most):
        yield range(first, min(first + most, kernel_rows))


def depthwise_columns(tile_height: int, tile_width: int, x_stride: int, taps: int, shared: int) -> int:
    """Input columns, and cycles, that a pass of DEPTHWISE takes for all output pixels; see its operands."""
    return tile_height * ((tile_width - 1) * x_stride + taps - shared) + shared
