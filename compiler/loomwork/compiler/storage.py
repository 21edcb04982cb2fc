# SPDX-License-Identifier: Apache-2.0
"""Which feature maps stay in the scratchpad, which run through it row by row, and which pass through bands of rows.

Every map is *whole* in the scratchpad if there is room. One that finds none becomes *streamed*, if only convolutions
read it: the layers from its maker to its last reader then run together (streaming.py), and a ring of its rows is
enough. Where that cannot be, or finds no room either, it lies in *external* memory: rows are loaded into a band of the
scratchpad for each layer that reads it, and stored from one by the layer that makes it. So are maps in parts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loomwork.arch.config import BANKS, Config
from loomwork.compiler.allocate import (
    Lifetime,
    check_map,
    described,
    first_fit,
    lifetimes,
    touched_maps,
)
from loomwork.compiler.bands import Band, BandFitter, Gap, pieces
from loomwork.compiler.graph import Graph
from loomwork.compiler.lower_convolution import ConvolutionWork
from loomwork.compiler.streaming import MAX_RING, piece_order, ring_slots
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.work import Work

PIECE_HEIGHTS = (64, 32, 16, 8, 4, 2, 1)
"""Most output rows of the pieces of a run, to try one after the other."""


@dataclass(frozen=True)
class Storage:
    """Where everything lies in the scratchpad.

    whole: first word of the maps that have room for all their rows. bands: of the other ones, by layer and map; a
    streamed map has the same ring for each of its layers. streamed: their names. runs: layers that run together, in
    order, most of them alone. piece_rows: output rows of a piece of the layers whose pieces are not free to choose.
    lives: what is where, when, for reports.
    """

    whole: Mapping[str, int]
    bands: Mapping[tuple[int, str], Band]
    streamed: frozenset[str]
    runs: Sequence[range]
    piece_rows: Mapping[int, int]
    lives: Mapping[Lifetime, int]

    def words_at(self, layer: int) -> int:
        """Words of each bank in use while a layer runs."""
        return sum(life.words for life in self.lives if life.first <= layer <= life.last)


def plan_storage(works: Sequence[Work], graph: Graph, config: Config) -> Storage:
    """Find room for every map.

    Raises UnsupportedLayerError for a layer with a map larger than commands can name, or of which not even one row
    finds room.
    """
    for work in works:
        for name in touched_maps(work.layer):
            check_map(work.layer, graph.maps[name], config)
    planner = _Planner(works, graph, config)
    while not isinstance(result := planner.place(), Storage):
        planner.make_room(result)
    return result


_RunKey = tuple[range, int, tuple[str, ...], tuple[str, ...]]
"""A run, the most rows of its pieces, and its maps that are streamed and external."""


class _Planner:
    def __init__(self, works: Sequence[Work], graph: Graph, config: Config) -> None:
        self._works = works
        self._graph = graph
        self._config = config
        self._lives = {life.map: life for life in lifetimes(graph, config)}
        self._fitter = BandFitter(graph, config)
        self._streamed: set[str] = set()
        # What is divided is in external memory: the parts lie in the wholes.
        parts = [feature_map for feature_map in graph.maps.values() if feature_map.part]
        self._external = {name for part in parts for name in (part.name, part.whole)}
        self._slots_of_runs: dict[_RunKey, tuple[dict[tuple[int, str], int] | None, dict[int, int]]] = {}

    def place(self) -> Storage | range:
        """A storage with the maps as they are divided now, or the run that is in the way."""
        runs = self._runs()
        whole = [self._stretched(life, runs) for life in self._whole()]
        places = first_fit(whole, self._config.bank_words)
        if places is None:
            return max(runs, key=lambda run: sum(life.words for life in whole if _meet(life, run)))
        bands: dict[tuple[int, str], Band] = {}
        piece_rows: dict[int, int] = {}
        for run in runs:
            gaps = self._gaps(run, places)
            found = self._run_bands(run, gaps) if len(run) > 1 else self._layer_bands(run.start, gaps)
            if found is None:
                return run
            bands |= found[0]
            piece_rows |= found[1]
        for (index, name), band in bands.items():
            run = next(run for run in runs if index in run)
            first, last = (run[0], run[-1]) if name in self._streamed else (index, index)
            places[Lifetime(name, first, last, band.slots * self._fitter.pitch(name), first)] = band.base
        return Storage(
            whole={life.map: base for life, base in places.items() if life.band is None},
            bands=bands,
            streamed=frozenset(self._streamed),
            runs=runs,
            piece_rows=piece_rows,
            lives=places,
        )

    def make_room(self, run: range) -> None:
        """Take a map out of the way of a run. Raises UnsupportedLayerError when there is none left.

        First what costs no traffic: inputs and outputs, which are loaded and stored anyhow; then what can be streamed.
        A run that is there already grows only if it then fits.
        """
        near = [life for life in self._lives.values() if _meet(life, run) and life.map not in self._external]
        whole = [life for life in near if life.map not in self._streamed and self._frees(life, run) > 0]
        free = [life for life in whole if not self._traffic(life.map)]
        streamable = sorted(
            (life for life in whole if self._can_stream(life.map)), key=lambda life: -self._frees(life, run)
        )
        for life in streamable if not free else ():
            if len(run) == 1 or (life.first in run and life.last in run) or self._would_fit(life):
                self._streamed.add(life.map)
                return
        # When streaming needs too many rows at once, a run can be parted.
        # Maps of few rows free nothing, but bands go where each layer has room for them.
        candidates = free or whole + [life for life in near if life.map in self._streamed] or near
        if not candidates:
            layer = self._works[run.start]
            raise UnsupportedLayerError(layer.layer, self._why_not(layer))
        leaves = min(candidates, key=lambda life: self._traffic(life.map) / max(self._frees(life, run), 1)).map
        self._streamed.discard(leaves)
        self._external.add(leaves)

    def _would_fit(self, life: Lifetime) -> bool:
        """Whether the run that a map makes, were it streamed, is no longer in the way."""
        self._streamed.add(life.map)
        result = self.place()
        self._streamed.discard(life.map)
        return isinstance(result, Storage) or not _meet(life, result)

    def _whole(self) -> Iterator[Lifetime]:
        apart = self._streamed | self._external
        return (life for life in self._lives.values() if life.map not in apart)

    def _runs(self) -> list[range]:
        """Layers joined by streamed maps."""
        runs: list[range] = []
        for index in range(len(self._works)):
            spans = (self._lives[name] for name in self._streamed)
            if runs and any(life.first < index <= life.last for life in spans):
                runs[-1] = range(runs[-1].start, index + 1)
            else:
                runs.append(range(index, index + 1))
        return runs

    @staticmethod
    def _stretched(life: Lifetime, runs: Sequence[range]) -> Lifetime:
        """All layers of a run are at work at once: a life that meets a run lasts for all of it."""
        touched = [run for run in runs if _meet(life, run)]
        return Lifetime(life.map, touched[0][0], touched[-1][-1], life.words)

    def _can_stream(self, name: str) -> bool:
        """Whether a ring will do: every reader is a convolution, which takes it as its input or adds it, not both."""
        if name in (*self._graph.inputs, *self._graph.outputs):
            return False
        readers = [work for work in self._works if name in work.layer.reads]
        return all(isinstance(work, ConvolutionWork) and work.layer.reads.count(name) == 1 for work in readers)

    def _frees(self, life: Lifetime, run: range) -> int:
        """Words of each bank that are free when a map is no longer whole (or streamed)."""
        words = 0
        for index in run:
            if life.map in touched_maps(self._works[index].layer):
                words = max(words, self._fitter.needed(self._works[index], life.map, 1))
        return life.words - words * self._fitter.pitch(life.map)

    def _traffic(self, name: str) -> int:
        """Bytes that cross the bus only because a map lies in external memory."""
        readers = sum(name in layer.reads for layer in self._graph.layers)
        crossings = 1 + readers - (name in self._graph.inputs) * 2 - (name in self._graph.outputs)
        feature_map = self._graph.maps[name]
        return max(crossings, 0) * feature_map.height * feature_map.row_bytes

    def _gaps(self, run: range, places: Mapping[Lifetime, int]) -> list[Gap]:
        """Free words of each bank while layers run."""
        taken = sorted((base, life.words) for life, base in places.items() if _meet(life, run))
        ends = [0, *(base + words for base, words in taken)]
        starts = [*(base for base, _ in taken), self._config.bank_words]
        return [Gap(end, start) for end, start in zip(ends, starts, strict=True) if end < start]

    def _layer_bands(
        self, index: int, gaps: Sequence[Gap]
    ) -> tuple[dict[tuple[int, str], Band], dict[int, int]] | None:
        """Bands of a layer that runs alone, and the rows of its pieces."""
        work = self._works[index]
        names = [name for name in touched_maps(work.layer) if name in self._external]
        if not names:
            return {}, {}
        found = self._fitter.fit(work, names, gaps)
        if found is None:
            return None
        return {(index, name): band for name, band in found.bands.items()}, {index: found.rows}

    def _run_bands(self, run: range, gaps: Sequence[Gap]) -> tuple[dict[tuple[int, str], Band], dict[int, int]] | None:
        """Rings and bands of layers that run together, with the tallest pieces for which they fit."""
        works = [self._works[index] for index in run]
        for height in PIECE_HEIGHTS:
            slots, rows = self._run_slots(run, height)
            if slots is None:
                continue
            packed = self._fitter.pack(slots, gaps)
            if packed is None:
                continue
            bands = {(index, name): band for (index, name), band in packed.items() if name in self._external}
            for work in works:
                for name in touched_maps(work.layer):
                    if name in self._streamed:
                        bands[work.index, name] = packed[run.start, name]
            return bands, rows
        return None

    def _run_slots(self, run: range, height: int) -> tuple[dict[tuple[int, str], int] | None, dict[int, int]]:
        """Groups of rows that layers which run together need, and the rows of their pieces, of at most `height` rows.

        None when a ring would be too long.
        """
        works = [self._works[index] for index in run]
        touched = [name for work in works for name in touched_maps(work.layer)]
        streamed = tuple(dict.fromkeys(name for name in touched if name in self._streamed))
        external = tuple(dict.fromkeys(name for name in touched if name in self._external))
        key = run, height, streamed, external
        if key not in self._slots_of_runs:
            rows = {work.index: _aligned(min(work.max_rows, height), work.height) for work in works}
            order = piece_order(works, {work.index: pieces(work.height, rows[work.index]) for work in works})
            slots: dict[tuple[int, str], int] | None = {
                (run.start, name): min(count, self._fitter.all_slots(name))
                for name, count in ring_slots(order, streamed).items()
            }
            if max(slots.values()) > MAX_RING:
                slots = None
            else:
                for work in works:
                    for name in touched_maps(work.layer):
                        if name in external:
                            slots[work.index, name] = self._fitter.needed(work, name, rows[work.index], twice=True)
            self._slots_of_runs[key] = slots, rows
        return self._slots_of_runs[key]

    def _why_not(self, work: Work) -> str:
        names = touched_maps(work.layer)
        words = sum(self._fitter.needed(work, name, 1) * self._fitter.pitch(name) for name in names)
        needed = words * BANKS * self._config.rows / 1024
        return (
            f"one row of its output needs {needed:.1f} KiB of scratchpad for rows of "
            f"{', '.join(described(self._graph.maps[name]) for name in names)}, but configuration {self._config.name} "
            f"has {self._config.scratchpad_kib} KiB; choose one with a larger scratchpad_kib"
        )


def _meet(life: Lifetime, run: range) -> bool:
    return life.first <= run[-1] and run[0] <= life.last


def _aligned(rows: int, height: int) -> int:
    """The most rows per piece that keep pieces aligned to groups of BANKS rows."""
    if rows >= height:
        return height
    return rows // BANKS * BANKS or (2 if rows >= 2 else 1)
