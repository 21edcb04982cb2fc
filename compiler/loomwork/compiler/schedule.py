# SPDX-License-Identifier: Apache-2.0
"""The order of commands: piece by piece, rows loaded one piece ahead of their use, stored just behind."""

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

SETTINGS = ("REQUANT", "COMBINE")


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
                piece.loads.append(self._transfer("LOAD", name, missing, views[name], work.index))
        output = work.layer.output
        views[output], _ = self._room(work, output, rows)
        for name in (work.layer.input, getattr(work.layer, "operand", None)):
            if name is not None and name not in views:  # nothing of it is needed: only padding is read
                views[name] = View(self._maps[name], 0)
        piece.tasks = work.tasks(rows, Views(self._config, views))
        if output in self._external and output not in self._inputs:
            piece.stores.append(self._transfer("STORE", output, rows, views[output], work.index))
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

    def _transfer(self, mnemonic: str, name: str, rows: Rows, view: View, layer: int) -> Task:
        """LOAD or STORE of image rows."""
        place = self._external[name]
        words = row_words(self._maps[name], self._config)
        command = Command(
            mnemonic,
            {
                "window": place.window,
                "offset": place.placement.offset + rows.first * place.placement.row_stride,
                "row_stride": place.placement.row_stride,
                "base": view.base,
                "pitch": words,
                "row": rows.first - view.origin,
                "rows": rows.end - rows.first,
                "words": words,
            },
        )
        regions = (Views(self._config, {name: view}).region(name, rows.first, rows.end - rows.first),)
        touched = {"writes": regions} if mnemonic == "LOAD" else {"reads": regions}
        outside = ExternalRows(map=name, first=rows.first, end=rows.end)
        return Task(command=command, layer=layer, external=outside, **touched)


def _in_order(placed: Sequence[_Piece], config: Config) -> Iterator[Task]:
    """Commands of all pieces; rows are loaded one piece early where they neither overwrite what that piece needs nor
    have yet to be stored by it.
    """
    occupied = _Occupied(config)
    stored: set[tuple[str, int]] = set()
    made = {(task.external.map) for piece in placed for task in piece.stores if task.external}
    early: list[Task] = []
    for piece, following in zip(placed, [*placed[1:], _Piece()], strict=True):
        yield from (load for load in piece.loads if load not in early)
        early = []
        for load in following.loads:
            rows = load.external
            assert rows is not None
            there = rows.map not in made or all((rows.map, row) in stored for row in range(rows.first, rows.end))
            if there and not occupied.meets((*piece.tasks, *piece.stores), load):
                early.append(load)
        yield from early
        yield from piece.tasks
        yield from piece.stores
        for store in piece.stores:
            assert store.external is not None
            stored.update((store.external.map, row) for row in range(store.external.first, store.external.end))


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
    """Leave out a REQUANT or COMBINE that sets what is already set."""
    current: dict[str, Command] = {}
    for task in tasks:
        if task.command.mnemonic in SETTINGS:
            if current.get(task.command.mnemonic) == task.command:
                continue
            current[task.command.mnemonic] = task.command
        yield task
