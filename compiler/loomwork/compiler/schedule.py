# SPDX-License-Identifier: Apache-2.0
"""The order of commands: piece by piece, rows loaded one piece ahead of their use, stored just behind."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loomwork.arch.command import Command
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import Window
from loomwork.arch.program import Placement
from loomwork.compiler.graph import Graph
from loomwork.compiler.storage import Storage
from loomwork.compiler.streaming import piece_order
from loomwork.compiler.task import ExternalRows, Region, Task
from loomwork.compiler.views import View, Views, row_words
from loomwork.compiler.work import Rows, Work

SETTINGS = ("REQUANT", "COMBINE", "TABLE")


@dataclass(frozen=True)
class External:
    """Where a map lies in external memory."""

    window: Window
    placement: Placement


@dataclass
class _Piece:
    """The commands of one piece: those in front, that bring in rows, its own, and those behind, that take rows out."""

    loads: list[Task] = field(default_factory=list[Task])
    tasks: list[Task] = field(default_factory=list[Task])
    stores: list[Task] = field(default_factory=list[Task])


def schedule(
    works: Sequence[Work],
    cuts: Sequence[Sequence[Rows]],
    graph: Graph,
    storage: Storage,
    external: Mapping[str, External],
    config: Config,
) -> list[Task]:
    """Put the commands of all layers into program order, with LOAD, STORE and END.

    cuts: pieces of each layer, in order. external: places of the maps that are loaded or stored.
    """
    rows = _Residence(graph, storage, external, config)
    placed: list[_Piece] = []
    for run in storage.runs:
        layers = [works[index] for index in run]
        placed += [rows.place(work, part) for work, part in piece_order(layers, {index: cuts[index] for index in run})]
    tasks = list(_without_repeated_settings(_in_order(placed, config)))
    return [*tasks, Task(command=Command("END"), layer=len(works) - 1)]


class _Residence:
    """Follows which rows of which map are in the scratchpad, piece after piece."""

    def __init__(self, graph: Graph, storage: Storage, external: Mapping[str, External], config: Config) -> None:
        self._maps = graph.maps
        self._storage = storage
        self._external = external
        self._config = config
        self._inputs = set(graph.inputs)
        self._outputs = set(graph.outputs)
        self._lap: dict[tuple[int, str], Rows] = {}
        self._loaded = dict.fromkeys(graph.inputs, 0)

    def place(self, work: Work, rows: Rows) -> _Piece:
        """Give the rows that a piece touches their places, and build its commands."""
        piece = _Piece()
        views: dict[str, View] = {}
        for name, need in work.needs(rows).items():
            views[name], missing = self._room(work, name, need)
            if missing.first < missing.end:
                piece.loads += self._transfers("LOAD", name, missing, views[name], work.index)
        output = work.layer.output
        views[output], _ = self._room(work, output, rows)
        for name in work.layer.reads:
            if name not in views:  # nothing of it is needed: only padding is read
                views[name] = View(self._maps[name], 0)
        piece.tasks = work.tasks(rows, Views(self._config, views))
        if output in self._external and output not in self._inputs:
            piece.stores += self._transfers("STORE", output, rows, views[output], work.index)
        return piece

    def _room(self, work: Work, name: str, need: Rows) -> tuple[View, Rows]:
        """Where these rows lie for this layer, and which of them are not there yet."""
        feature_map = self._maps[name]
        if name in self._storage.whole:
            view = View(feature_map, self._storage.whole[name])
            start = self._loaded.get(name, need.end)
            if name in self._loaded:
                self._loaded[name] = max(start, need.end)
            return view, Rows(start, need.end)
        key = work.index, name
        band = self._storage.bands[key]
        if name in self._storage.streamed:
            origin = need.first // (BANKS * band.slots) * BANKS * band.slots
            return View(feature_map, band.base, origin, band.slots), Rows(need.end, need.end)
        lap = self._lap.get(key)
        if lap is None or need.end - lap.first > BANKS * band.slots:
            # Begin anew at the first word of the band.
            lap = Rows(need.first // BANKS * BANKS, need.first)
        missing = Rows(max(lap.end, need.first), need.end)
        self._lap[key] = Rows(lap.first, max(lap.end, need.end))
        return View(feature_map, band.base, lap.first), missing

    def _transfers(self, mnemonic: str, name: str, rows: Rows, view: View, layer: int) -> Iterator[Task]:
        """LOAD or STORE of image rows: one command, or one for each column of which only some channels are wanted."""
        place, part = self._external[name], self._maps[name]
        whole = self._maps[part.whole]
        contiguous = part.width == 1 or part.channels == whole.channels
        columns, size = (1, part.row_bytes) if contiguous else (part.width, part.channels)
        views, count = Views(self._config, {name: view}), rows.end - rows.first
        first_row = rows.first + (part.part.row if part.part else 0)
        for column in range(columns):
            region = views.region(name, rows.first, count, column * size, (column + 1) * size)
            offset = rows.first * place.placement.row_stride + column * whole.channels
            command = Command(
                mnemonic,
                {
                    "window": place.window,
                    "offset": place.placement.offset + offset,
                    "row_stride": place.placement.row_stride,
                    "base": view.base + region.word,
                    "pitch": row_words(part, self._config),
                    "row": rows.first - view.origin,
                    "rows": count,
                    "words": region.words,
                },
            )
            touched = {"writes": (region,)} if mnemonic == "LOAD" else {"reads": (region,)}
            outside = ExternalRows(map=whole.name, first=first_row, end=first_row + count)
            yield Task(command=command, layer=layer, external=outside, **touched)


def _in_order(placed: Sequence[_Piece], config: Config) -> Iterator[Task]:
    """Commands of all pieces; rows are loaded one piece early where they neither overwrite what that piece needs nor
    have yet to be stored by it.
    """
    occupied = _Occupied(config)
    # How many STOREs of each row are still to come: a row of which there are parts has several.
    coming = Counter(row for piece in placed for row in _stored_rows(piece))
    early: list[Task] = []
    for piece, following in zip(placed, [*placed[1:], _Piece()], strict=True):
        yield from (load for load in piece.loads if load not in early)
        early = []
        for load in following.loads:
            rows = load.external
            assert rows is not None
            there = not any(coming[rows.map, row] for row in range(rows.first, rows.end))
            if there and not occupied.meets((*piece.tasks, *piece.stores), load):
                early.append(load)
        yield from early
        yield from piece.tasks
        yield from piece.stores
        coming.subtract(_stored_rows(piece))


def _stored_rows(piece: _Piece) -> Iterator[tuple[str, int]]:
    """Map and row of all rows that a piece stores."""
    for store in piece.stores:
        if store.external is not None:
            yield from ((store.external.map, row) for row in range(store.external.first, store.external.end))


class _Occupied:
    """Whether a LOAD writes words that tasks touch."""

    def __init__(self, config: Config) -> None:
        self._bank_words = config.bank_words
        self._words = np.zeros(BANKS * config.bank_words, dtype=np.bool_)

    def meets(self, tasks: Sequence[Task], load: Task) -> bool:
        regions = [region for task in tasks for region in (*task.reads, *task.writes)]
        self._mark(regions, touched=True)
        found = any(self._words[region.addresses(self._bank_words)].any() for region in load.writes)
        self._mark(regions, touched=False)
        return found

    def _mark(self, regions: Sequence[Region], *, touched: bool) -> None:
        for region in regions:
            self._words[region.addresses(self._bank_words)] = touched


def _without_repeated_settings(tasks: Iterator[Task]) -> Iterator[Task]:
    """Leave out a REQUANT, COMBINE or TABLE that sets what is already set: each TABLE has entries of its own."""
    current: dict[tuple[str, int], Command] = {}
    for task in tasks:
        if task.command.mnemonic in SETTINGS:
            setting = task.command.mnemonic, task.command.operands.get("index", 0)
            if current.get(setting) == task.command:
                continue
            current[setting] = task.command
        yield task
