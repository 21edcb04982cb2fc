# SPDX-License-Identifier: Apache-2.0
"""Layers that run together, row by row: in which order their pieces come, and how many rows a map between them keeps.

A *run* is a sequence of layers of which each piece is computed as soon as the next layer wants its rows. A map between
them never has to be whole: a ring of rows in the scratchpad holds what is still needed. It then costs no traffic at
all, however large it is.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from math import ceil, lcm
from typing import NamedTuple

from loomwork.arch.config import BANKS
from loomwork.compiler.limits import largest
from loomwork.compiler.work import Rows, Work

MAX_RING = largest("CONVOLVE", "ring")
"""Most groups of BANKS rows in a ring."""


def piece_order(works: Sequence[Work], cuts: Mapping[int, Sequence[Rows]]) -> list[tuple[Work, Rows]]:
    """The pieces of a run.

    works: its layers, in order. cuts: their pieces, by layer. Each piece comes behind those that it reads, as late as
    it can, but for one: while its rows are on their way through the drain, the array is at work on that one.
    """
    makers = {work.layer.output: work for work in works}
    ends = {index: [rows.end for rows in parts] for index, parts in cuts.items()}
    done = dict.fromkeys(cuts, 0)
    order: list[tuple[Work, Rows]] = []

    def make(work: Work) -> None:
        rows = cuts[work.index][done[work.index]]
        for name, need in work.needs(rows).items():
            if name in makers:
                make_until(makers[name], need.end)
        order.append((work, rows))
        done[work.index] += 1

    def make_until(work: Work, end: int) -> None:
        last = ends[work.index]
        wanted = min(bisect_left(last, end) + 1, len(last) - 1)
        while done[work.index] <= wanted:
            make(work)

    for work in reversed(works):
        make_until(work, work.height)
    return order


def ring_slots(order: Sequence[tuple[Work, Rows]], names: Collection[str]) -> dict[str, int]:
    """Groups of BANKS rows that a ring must have for each of these maps, which the pieces write and read in this order.

    No piece reaches over the end of a ring but one that reads it as the input of a convolution.
    """
    uses: dict[str, list[_Use]] = {name: [] for name in names}
    for work, rows in order:
        operand = getattr(work.layer, "operand", None)
        for name, need in work.needs(rows).items():
            if name in uses:
                uses[name].append(_Use(need, written=False, in_one=name == operand and rows.first == 0, piece=rows))
        if work.layer.output in uses:
            uses[work.layer.output].append(_Use(rows, written=True, in_one=rows.first == 0, piece=rows))
    return {name: _slots(found) for name, found in uses.items()}


class _Use(NamedTuple):
    """A piece writes or reads rows of a map. in_one: it tells how many rows must never be parted by a ring's end."""

    rows: Rows
    written: bool
    in_one: bool
    piece: Rows


def _slots(uses: Sequence[_Use]) -> int:
    """The ring of one map, from its uses in order."""
    # From behind: the first row that any later piece still needs.
    needed: list[int | None] = []
    oldest: int | None = None
    for use in reversed(uses):
        if not use.written:
            oldest = use.rows.first if oldest is None else min(oldest, use.rows.first)
        needed.append(oldest)
    most, end, whole = 1, 0, 1
    for use, first in zip(uses, reversed(needed), strict=True):
        if use.written:
            end = use.rows.end
        if use.in_one:
            whole = lcm(whole, ceil((use.piece.end - use.piece.first) / BANKS))
        if first is not None:
            most = max(most, end - first)
    return ceil(ceil(most / BANKS) / whole) * whole
