# SPDX-License-Identifier: Apache-2.0
"""Which feature maps stay in the scratchpad, and through which bands of rows the others pass.

A map that finds no room lies in external memory: a layer that reads it has a few of its rows loaded at a time into a
band of the scratchpad, a layer that writes it has rows stored from one. Whole maps are preferred; when they do not fit,
the map whose traffic is cheapest for the words it frees leaves, one after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

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


@dataclass
class _Sizes:
    """Bands of one layer. rows: output rows of a piece. slots: by map. words: of each bank, in all."""

    rows: int
    slots: dict[str, int] = field(default_factory=dict[str, int])
    words: int = 0


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


class _Planner:
    def __init__(self, works: Sequence[Work], graph: Graph, config: Config) -> None:
        self._works = works
        self._graph = graph
        self._config = config
        self._lives = lifetimes(graph, config)
        self._slots: dict[tuple[int, str, int], int] = {}

    def place(self, external: set[str]) -> Storage | int:
        """A storage with these maps in external memory, or the layer that is in the way."""
        whole = [life for life in self._lives if life.map not in external]
        sizes: dict[int, _Sizes] = {}
        shares: dict[int, bool] = {}
        for index, work in enumerate(self._works):
            room = self._config.bank_words - sum(life.words for life in whole if life.first <= index <= life.last)
            names = [name for name in touched_maps(work.layer) if name in external]
            if room < 0:
                return index
            if not names:
                continue
            # Half of the room, so that the next layer's bands are loaded while this one is at work, if that is enough.
            half = self._size(work, names, room // 2)
            found = half or self._size(work, names, room)
            if found is None:
                return index
            sizes[index], shares[index] = found, half is not None
        for overlapping in (True, False):
            bands = [
                Lifetime(
                    name, index, index + (overlapping and shares[index] and shares.get(index + 1, False)), w, index
                )
                for index, found in sizes.items()
                for name, slots in found.slots.items()
                for w in (slots * row_words(self._graph.maps[name], self._config),)
            ]
            places = first_fit([*whole, *bands], self._config.bank_words)
            if places is not None:
                return Storage(
                    whole={life.map: base for life, base in places.items() if life.band is None},
                    bands={
                        (life.band, life.map): Band(base, sizes[life.band].slots[life.map])
                        for life, base in places.items()
                        if life.band is not None
                    },
                    piece_rows={index: found.rows for index, found in sizes.items()},
                    lives=places,
                )
        return max(range(len(self._works)), key=lambda i: sum(x.words for x in whole if x.first <= i <= x.last))

    def leaves(self, index: int, external: set[str]) -> str:
        """The map to put into external memory, so that layer `index` finds room. Raises UnsupportedLayerError."""
        work = self._works[index]
        touched = touched_maps(work.layer)

        def freed(life: Lifetime) -> int:
            if life.map not in touched:
                return life.words
            return life.words - self._needed(work, life.map, 1) * row_words(self._graph.maps[life.map], self._config)

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

    def _size(self, work: Work, names: Sequence[str], room: int) -> _Sizes | None:
        """The bands of one layer, in `room` words of each bank, with which it takes the fewest cycles; None when there
        are none.
        """
        found: dict[float, _Sizes] = {}
        for rows in _piece_heights(work):
            for twice in (True, False):
                sizes = _Sizes(rows)
                for name in names:
                    self._add(sizes, name, self._needed(work, name, rows, twice=twice))
                if sizes.words <= room:
                    found.setdefault(self._cycles(work, names, rows, twice=twice), sizes)
        if not found:
            return None
        sizes = found[min(found)]
        for name in names:
            if name != work.layer.output:
                self._grow(sizes, work, name, room)
        return sizes

    def _cycles(self, work: Work, names: Sequence[str], rows: int, *, twice: bool) -> float:
        """Roughly what a layer takes in pieces of `rows`. Without room for two pieces, transfers wait for the array."""
        cycles = 0.0
        for piece in pieces(work.height, rows):
            effort = work.effort(piece)
            array = max(effort.array, effort.stream, effort.drain)
            moved = sum(
                (need.end - need.first) * ceil(work.maps[name].row_bytes / self._config.bus_bytes)
                for name in names
                for need in _rows_of(work, name, [piece])
            )
            cycles += max(array, moved) if twice else array + moved + TURNAROUND_CYCLES
        return cycles

    def _grow(self, sizes: _Sizes, work: Work, name: str, room: int) -> None:
        pitch = row_words(self._graph.maps[name], self._config)
        most = min(READ_AHEAD * self._needed(work, name, sizes.rows), self._all_slots(name))
        self._add(sizes, name, min(max(most - sizes.slots[name], 0), (room - sizes.words) // pitch))

    def _add(self, sizes: _Sizes, name: str, slots: int) -> None:
        sizes.slots[name] = sizes.slots.get(name, 0) + slots
        sizes.words += slots * row_words(self._graph.maps[name], self._config)

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
        words = sum(self._needed(work, n, 1) * row_words(self._graph.maps[n], self._config) for n in names)
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
