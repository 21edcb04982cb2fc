# SPDX-License-Identifier: Apache-2.0
"""Layers that run together, row by row: in which order their pieces come, and how many rows a map between them keeps.

A *run* is a sequence of layers of which each piece is computed as soon as the next layer wants its rows. A map between
them never has to be whole: a ring of rows in the scratchpad holds what is still needed. It then costs no traffic at
all, however large it is.
"""

from collections.abc import Mapping, Sequence
from math import ceil, lcm

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
        parts = cuts[work.index]
        wanted = next((number for number, rows in enumerate(parts) if rows.end >= end), len(parts) - 1)
        while done[work.index] <= min(wanted + 1, len(parts) - 1):
            make(work)

    for work in reversed(works):
        make_until(work, work.height)
    return order


def ring_slots(name: str, order: Sequence[tuple[Work, Rows]]) -> int:
    """Groups of BANKS rows that a ring must have for a map that the pieces write and read in this order.

    No piece reaches over the end of a ring but one that reads it as the input of a convolution.
    """
    readers = {work.index for work, _ in order if work.layer.output != name}
    # From behind: the first row that any later piece still needs.
    needed: list[int | None] = []
    oldest: int | None = None
    for work, rows in reversed(order):
        if work.index in readers and (need := work.needs(rows).get(name)) is not None:
            oldest = need.first if oldest is None else min(oldest, need.first)
        needed.append(oldest)
    most, end = 1, 0
    whole = 1
    for (work, rows), first in zip(order, reversed(needed), strict=True):
        if work.layer.output == name:
            end = rows.end
            whole = lcm(whole, ceil((rows.end - rows.first) / BANKS)) if rows.first == 0 else whole
        elif getattr(work.layer, "operand", None) == name and rows.first == 0:
            whole = lcm(whole, ceil((rows.end - rows.first) / BANKS))
        if first is not None:
            most = max(most, end - first)
    return ceil(ceil(most / BANKS) / whole) * whole
