# SPDX-License-Identifier: Apache-2.0
"""Bands of the scratchpad through which rows of maps pass: how large, and in which gaps."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple, TypeVar

from loomwork.arch.config import BANKS, Config
from loomwork.compiler.graph import Graph
from loomwork.compiler.views import row_words
from loomwork.compiler.work import Rows, Work

Key = TypeVar("Key", bound=Hashable)

READ_AHEAD = 4
"""Bands of maps that are read grow to so many times what is needed, where there is room: longer bands begin anew less
often, and rows that neighbouring pieces share are then loaded again."""
TURNAROUND_CYCLES = 150
"""Lost per piece where the next one's rows are loaded only when this one has been stored."""


@dataclass(frozen=True)
class Band:
    """Words of each bank for rows of a map: `BANKS * slots` image rows, from word `base` on."""

    base: int
    slots: int


@dataclass(frozen=True)
class Bands:
    """Bands of one layer. rows: output rows of a piece. cycles: roughly, of the layer. bands: by map."""

    rows: int
    cycles: float
    bands: dict[str, Band]


class Gap(NamedTuple):
    """Free words `start .. end - 1` of each bank."""

    start: int
    end: int


class BandFitter:
    """Sizes of bands for the maps of a graph."""

    def __init__(self, graph: Graph, config: Config) -> None:
        self._graph = graph
        self._config = config
        self._slots: dict[tuple[int, str, int], int] = {}

    def fit(self, work: Work, names: Sequence[str], gaps: Sequence[Gap]) -> Bands | None:
        """The bands of one layer in these gaps with which it takes the fewest cycles; None when there are none."""
        found: list[Bands] = []
        for rows in _piece_heights(work):
            for twice in (True, False):
                slots = {name: self.needed(work, name, rows, twice=twice) for name in names}
                bands = self._pack_layer(slots, gaps, work)
                if bands is not None:
                    found.append(Bands(rows, self._cycles(work, names, rows, twice=twice), bands))
        return min(found, key=lambda bands: bands.cycles, default=None)

    def pitch(self, name: str) -> int:
        """Words of each bank for a group of BANKS rows."""
        return row_words(self._graph.maps[name], self._config)

    def all_slots(self, name: str) -> int:
        """Groups of BANKS rows in all."""
        return ceil(self._graph.maps[name].height / BANKS)

    def needed(self, work: Work, name: str, rows: int, *, twice: bool = False) -> int:
        """Groups of BANKS rows that a piece of `rows` output rows needs of a map, or two pieces in turn."""
        key = (work.index, name, rows)
        if key not in self._slots:
            spans = [need.end - need.first // BANKS * BANKS for need in _rows_of(work, name, pieces(work.height, rows))]
            self._slots[key] = max(ceil(max(spans, default=1) / BANKS), 1)
        slots = self._slots[key]
        if twice:
            slots = max(slots, ceil(2 * rows / BANKS)) if name == work.layer.output else 2 * slots
        return min(slots, self.all_slots(name))

    def pack(self, slots: Mapping[tuple[int, str], int], gaps: Sequence[Gap]) -> dict[tuple[int, str], Band] | None:
        """Place bands of so many groups of rows, each of a map, in gaps; None when they do not fit."""
        left = [*gaps]
        bands: dict[tuple[int, str], Band] = {}
        for key in sorted(slots, key=lambda key: -slots[key] * self.pitch(key[1])):
            words = slots[key] * self.pitch(key[1])
            place = next((place for place, gap in enumerate(left) if gap.end - gap.start >= words), None)
            if place is None:
                return None
            bands[key] = Band(left[place].start, slots[key])
            left[place] = Gap(left[place].start + words, left[place].end)
        return bands

    def _pack_layer(self, slots: Mapping[str, int], gaps: Sequence[Gap], work: Work) -> dict[str, Band] | None:
        """Place the bands of a layer that runs alone: from the lower end for every other layer and from the upper end
        for those between, so that rows for the next layer can be loaded while this one is at work. A band that is read
        grows into the rest.
        """
        upper = work.index % 2 == 1
        left = [*reversed(gaps)] if upper else [*gaps]
        bands: dict[str, Band] = {}
        for number, name in enumerate(sorted(slots, key=lambda name: -slots[name] * self.pitch(name))):
            words = slots[name] * self.pitch(name)
            place = next((place for place, gap in enumerate(left) if gap.end - gap.start >= words), None)
            if place is None:
                return None
            start, end = left[place]
            grown = slots[name]
            if number == len(slots) - 1 and name != work.layer.output:
                most = min(READ_AHEAD * slots[name], self.all_slots(name))
                grown = max(grown, min(most, (end - start) // 2 // self.pitch(name)))
            words = grown * self.pitch(name)
            bands[name] = Band(end - words if upper else start, grown)
            left[place] = Gap(start, end - words) if upper else Gap(start + words, end)
        return bands

    def _cycles(self, work: Work, names: Sequence[str], rows: int, *, twice: bool) -> float:
        """Roughly what a layer takes in pieces of `rows`: while the array is at work, the rows of the next piece are
        loaded and those of the last one stored, if there is room for two.
        """
        cycles = loads = stores = 0.0
        for number, piece in enumerate(pieces(work.height, rows)):
            effort = work.effort(piece)
            array = max(effort.array, effort.stream, effort.drain)
            beats = {
                name: (need.end - need.first) * ceil(work.maps[name].row_bytes / self._config.bus_bytes)
                for name in names
                for need in _rows_of(work, name, [piece])
            }
            stores = beats.pop(work.layer.output, 0)
            loads = sum(beats.values())
            if not twice:
                cycles += loads + array + stores + TURNAROUND_CYCLES
            else:
                cycles += max(array, loads, stores) + (loads + TURNAROUND_CYCLES if number == 0 else 0)
        return cycles + (stores if twice else 0)


def pieces(height: int, rows: int) -> list[Rows]:
    """Output rows in pieces of `rows`, the last one of what is left."""
    return [Rows(first, min(first + rows, height)) for first in range(0, height, rows)]


def _piece_heights(work: Work) -> Iterator[int]:
    """Rows per piece to try, most first: those that keep pieces aligned to groups of BANKS rows."""
    most = min(work.max_rows, work.height)
    if most == work.height:
        yield most
    yield from range(most // BANKS * BANKS, 0, -BANKS)
    yield from (rows for rows in (2, 1) if rows <= most)


def _rows_of(work: Work, name: str, cuts: Sequence[Rows]) -> Iterator[Rows]:
    for rows in cuts:
        if name == work.layer.output:
            yield rows
        elif (need := work.needs(rows).get(name)) is not None:
            yield need
