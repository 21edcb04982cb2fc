# SPDX-License-Identifier: Apache-2.0
"""Where layers are cut into pieces."""

from collections.abc import Sequence

from loomwork.compiler.storage import Storage, pieces
from loomwork.compiler.tiling import balanced
from loomwork.compiler.work import Rows, Work


def choose_cuts(works: Sequence[Work], storage: Storage) -> list[list[Rows]]:
    """The pieces of each layer, in order."""
    return [
        pieces(work.height, storage.piece_rows[work.index])
        if work.index in storage.piece_rows
        else [Rows(first, first + size) for first, size in balanced(work.height, work.max_rows)]
        for work in works
    ]
