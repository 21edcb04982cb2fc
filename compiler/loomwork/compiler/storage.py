# SPDX-License-Identifier: Apache-2.0
"""Which feature maps stay in the scratchpad, and through which bands of rows the others pass.

A map that finds no room lies in external memory: a layer that reads it has a few of its rows loaded at a time into a
band of the scratchpad, a layer that writes it has rows stored from one. Whole maps are preferred; when they do not fit,
the map whose traffic is cheapest for the words it frees leaves, one after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from loomwork.arch.config import BANKS, Config
from loomwork.compiler.allocate import (
    Lifetime,
    check_map,
    described,
    first_fit,
    lifetimes,
    operand_maps,
    touched_maps,
)
from loomwork.compiler.graph import Graph
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.views import row_words
from loomwork.compiler.work import Rows, Work

READ_AHEAD = 4
"""Bands of maps that are read grow to so many times what one piece needs, where there is room: longer bands begin anew
less often, and rows that neighbouring pieces share are then loaded again."""

TURNAROUND_CYCLES = 150
"""Lost per piece where the next one's rows are loaded only when this one has been stored."""


@dataclass(frozen=True)
class Band:
    """Words of each bank for rows of a map: `BANKS * slots` image rows, from word `base` on."""

    base: int
    slots: int


@dataclass(frozen=True)
class Storage:
    """Where everything lies in the scratchpad.

    whole: first word of the maps that have room for all their rows. bands: by layer and map. piece_rows: output rows of
    a piece of the layers that have bands. lives: what is where, when, for reports.
    """

    whole: Mapping[str, int]
    bands: Mapping[tuple[int, str], Band]
    piece_rows: Mapping[int, int]
    lives: Mapping[Lifetime, int]

    def words_at(self, layer: int) -> int:
        """Words of each bank in use while a layer runs."""
        return sum(life.words for life in self.lives if life.first <= layer <= life.last)


@dataclass(frozen=True)
class _Bands:
    """Bands of one layer. rows: output rows of a piece. cycles: roughly, of the layer. bands: by map."""

    rows: int
    cycles: float
    bands: dict[str, Band]


def plan_storage(works: Sequence[Work], graph: Graph, config: Config) -> Storage:
    """Find room for every map, whole or in bands.

    Raises CompileError for a map larger than commands can name, UnsupportedLayerError for a layer of which not even
    one row finds room.
    """
    for name in dict.fromkeys(name for work in works for name in touched_maps(work.layer)):
        check_map(graph.maps[name], config)
    planner = _Planner(works, graph, config)
    external: set[str] = set()
    while not isinstance(result := planner.place(external), Storage):
        external.add(planner.leaves(result, external))
    return result


class _Gap(NamedTuple):
    """Free words `start .. end - 1` of each bank."""

    start: int
    end: int


class _Planner:
    def __init__(self, works: Sequence[Work], graph: Graph, config: Config) -> None:
        self._works = works
        self._graph = graph
        self._config = config
        self._lives = lifetimes(graph, config)
        self._slots: dict[tuple[int, str, int], int] = {}

    def place(self, external: set[str]) -> Storage | int:
        """A storage with these maps in external memory, or the layer that is in the way."""
        lives = [life for life in self._lives if life.map not in external]
        places = first_fit(lives, self._config.bank_words)
        if places is None:
            return max(range(len(self._works)), key=lambda i: sum(x.words for x in lives if x.first <= i <= x.last))
        found: dict[int, _Bands] = {}
        for index, work in enumerate(self._works):
            names = [name for name in touched_maps(work.layer) if name in external]
            if names:
                bands = self._fit_bands(work, names, self._gaps(index, places))
                if bands is None:
                    return index
                found[index] = bands
        for index, layer in found.items():
            for name, band in layer.bands.items():
                places[Lifetime(name, index, index, band.slots * self._pitch(name), index)] = band.base
        return Storage(
            whole={life.map: base for life, base in places.items() if life.band is None},
            bands={(index, name): band for index, layer in found.items() for name, band in layer.bands.items()},
            piece_rows={index: layer.rows for index, layer in found.items()},
            lives=places,
        )

    def _gaps(self, layer: int, places: Mapping[Lifetime, int]) -> list[_Gap]:
        """Free words of each bank while a layer runs."""
        taken = sorted((base, life.words) for life, base in places.items() if life.first <= layer <= life.last)
        ends = [0, *(base + words for base, words in taken)]
        starts = [*(base for base, _ in taken), self._config.bank_words]
        return [_Gap(end, start) for end, start in zip(ends, starts, strict=True) if end < start]

    def leaves(self, index: int, external: set[str]) -> str:
        """The map to put into external memory, so that layer `index` finds room. Raises UnsupportedLayerError."""
        work = self._works[index]
        touched = touched_maps(work.layer)

        def freed(life: Lifetime) -> int:
            if life.map not in touched:
                return life.words
            return life.words - self._needed(work, life.map, 1) * self._pitch(life.map)

        def cost(life: Lifetime) -> float:
            return self._traffic(life.map) / freed(life)

        candidates = [
            life
            for life in self._lives
            if life.map not in external and life.first <= index <= life.last and freed(life) > 0
        ]
        if not candidates:
            raise UnsupportedLayerError(work.layer, self._why_not(work))
        return min(candidates, key=cost).map

    def _traffic(self, name: str) -> int:
        """Bytes that cross the bus only because a map lies in external memory."""
        readers = sum(name in operand_maps(layer) for layer in self._graph.layers)
        crossings = 1 + readers - (name in self._graph.inputs) * 2 - (name in self._graph.outputs)
        feature_map = self._graph.maps[name]
        return max(crossings, 0) * feature_map.height * feature_map.row_bytes

    def _fit_bands(self, work: Work, names: Sequence[str], gaps: Sequence[_Gap]) -> _Bands | None:
        """The bands of one layer in these gaps with which it takes the fewest cycles; None when there are none."""
        found: list[_Bands] = []
        for rows in _piece_heights(work):
            for twice in (True, False):
                slots = {name: self._needed(work, name, rows, twice=twice) for name in names}
                bands = self._pack(slots, gaps, work)
                if bands is not None:
                    found.append(_Bands(rows, self._cycles(work, names, rows, twice=twice), bands))
        return min(found, key=lambda bands: bands.cycles, default=None)

    def _pack(self, slots: Mapping[str, int], gaps: Sequence[_Gap], work: Work) -> dict[str, Band] | None:
        """Place bands in gaps, from the lower end for every other layer and from the upper end for those between, so
        that rows for the next layer can be loaded while this one is at work. Bands that are read grow into what is left.
        """
        upper = work.index % 2 == 1
        left = [*reversed(gaps)] if upper else [*gaps]
        bands: dict[str, Band] = {}
        for number, name in enumerate(sorted(slots, key=lambda name: -slots[name] * self._pitch(name))):
            words = slots[name] * self._pitch(name)
            place = next((place for place, gap in enumerate(left) if gap.end - gap.start >= words), None)
            if place is None:
                return None
            start, end = left[place].start, left[place].end
            grown = slots[name]
            if number == len(slots) - 1 and name != work.layer.output:
                most = min(READ_AHEAD * slots[name], self._all_slots(name))
                grown = max(grown, min(most, (end - start) // 2 // self._pitch(name)))
            words = grown * self._pitch(name)
            bands[name] = Band(end - words if upper else start, grown)
            left[place] = _Gap(start, end - words) if upper else _Gap(start + words, end)
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

    def _pitch(self, name: str) -> int:
        return row_words(self._graph.maps[name], self._config)

    def _all_slots(self, name: str) -> int:
        return ceil(self._graph.maps[name].height / BANKS)

    def _needed(self, work: Work, name: str, rows: int, *, twice: bool = False) -> int:
        """Groups of BANKS rows that a piece of `rows` output rows needs of a map, or two pieces in turn."""
        key = (work.index, name, rows)
        if key not in self._slots:
            spans = [need.end - need.first // BANKS * BANKS for need in _rows_of(work, name, pieces(work.height, rows))]
            self._slots[key] = max(ceil(max(spans, default=1) / BANKS), 1)
        slots = self._slots[key]
        if twice:
            slots = max(slots, ceil(2 * rows / BANKS)) if name == work.layer.output else 2 * slots
        return min(slots, self._all_slots(name))

    def _why_not(self, work: Work) -> str:
        names = touched_maps(work.layer)
        words = sum(self._needed(work, n, 1) * self._pitch(n) for n in names)
        needed = words * BANKS * self._config.rows / 1024
        return (
            f"one row of its output needs {needed:.1f} KiB of scratchpad for rows of "
            f"{', '.join(described(self._graph.maps[name]) for name in names)}, but configuration {self._config.name} "
            f"has {self._config.scratchpad_kib} KiB; choose one with a larger scratchpad_kib"
        )


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
