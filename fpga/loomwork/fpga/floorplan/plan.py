# SPDX-License-Identifier: Apache-2.0
"""Analytic placement of a whole netlist, of which only the places of multipliers and block RAMs are kept.

The wires pull all cells together; then logic is spread to where there is room for it, the others go to sites; in the
next round each cell is pulled to that place as well, harder each time (Kim, Lee, Markov, "SimPL: an effective placement
algorithm", IEEE Transactions on CAD 31, 2012). At the end logic settles around the sites, as it will in nextpnr, and
the sites are chosen again by the wires to it.
"""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from loomwork.fpga.boards.fabric import Fabric, Site
from loomwork.fpga.floorplan.graph import Graph, Indices, Numbers
from loomwork.fpga.floorplan.sites import Sites
from loomwork.fpga.floorplan.spreading import Spreading

_ENOUGH = 0.9
"""Share of the cells that an earlier floorplan must have."""
ROUNDS = 100
BEGINNINGS = 8
"""Floorplans of a board's design, each from other first places: their wires differ by up to 20 %."""
_FIRST_PULL, _MORE_PULL = 0.05, 0.004
"""Strength of the pull to the last places, in the first round and more in each one: a net's is 1."""
_LEAST_PULL = 1e-6
"""So that a cell without wires stays somewhere."""
_SITE_PULL = 4
"""How much harder cells are pulled to their sites."""
_FINAL_ROUNDS = 4
"""In which sites are chosen by the wires to what is around them."""
_FREE_ROUNDS, _SETTLING_ROUNDS = 4, 30
"""In which logic settles around sites that stay, first without being spread."""
_MORE_SETTLING_PULL = 0.02
_POLISHES, _POLISHING_ROUNDS = 2, 10
"""How often sites are chosen by the wires to logic that has settled, and how long it settles again."""
_FIXED_PULL, _FIXED_TOLERANCE = 30.0, 1e-6
"""What keeps cells at their sites, as nearly as matters, and how exactly the others are solved for beside that."""
_BORDER = 5
"""Tiles at the edge of the device in which nothing begins."""
_SMOOTHINGS, _SMOOTHING_PULL, _SMOOTHING_TOLERANCE = 4, 3e-4, 1e-7
"""How often the first places are drawn together, against which pull to where they are, and how exactly."""


def floorplan(
    cells: Mapping[str, Any], fabric: Fabric, beginnings: int = 1, earlier: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The sites of multipliers and block RAMs.

    cells: of the netlist, as in Yosys's JSON. beginnings: of so many floorplans that with the shortest wires is taken;
    they are made side by side. earlier: a floorplan of nearly the same netlist, which is kept, and completed, unless it
    lacks many of the cells. Result: nextpnr's name of the site by cell. Raises FloorplanError when they are too few.
    """
    graph = Graph(cells)
    sites = Sites(fabric, graph)
    if not len(sites.cells) or not len(graph.pins):
        return {}
    known = sites.known(earlier or {})
    if len(known) >= _ENOUGH * len(sites.cells):
        sites.chosen = _completed(graph, fabric, known)
    else:
        sites.chosen = _shortest(graph, fabric, beginnings)
    sites.share_enables(cells)
    return {graph.names[cell]: site.bel for cell, site in sites.chosen.items()}


def _completed(graph: Graph, fabric: Fabric, known: Mapping[int, Site]) -> dict[int, Site]:
    """The sites of a floorplan that lacks some cells: they go where wires want them, and others make room for them."""
    sites = Sites(fabric, graph)
    sites.chosen = dict(known)
    with threadpool_limits(limits=1, user_api="blas"):
        settling = _Settling(graph, sites, fabric)
        sites.nearest(settling.x, settling.y)
    return sites.chosen


def _shortest(graph: Graph, fabric: Fabric, beginnings: int) -> dict[int, Site]:
    """The sites of the floorplan with the shortest wires."""
    plan, seeds = partial(_plan, graph, fabric), range(1, beginnings + 1)
    if beginnings > 1:
        with ProcessPoolExecutor(min(beginnings, os.cpu_count() or 1)) as pool:
            plans = list(pool.map(plan, seeds))
    else:
        plans = [plan(seed) for seed in seeds]
    _, chosen = min(plans, key=lambda one: one[0])
    return chosen


def _plan(graph: Graph, fabric: Fabric, seed: int) -> tuple[float, dict[int, Site]]:
    """The length of the wires of a floorplan in tiles, and the sites of its cells."""
    # A sum depends on how many threads share it, in its last bit, and that decides about sites.
    with threadpool_limits(limits=1, user_api="blas"):
        return _plan_alone(graph, fabric, seed)


def _plan_alone(graph: Graph, fabric: Fabric, seed: int) -> tuple[float, dict[int, Site]]:
    sites = Sites(fabric, graph)
    logic = np.setdiff1d(np.arange(len(graph)), sites.cells)
    spreading = Spreading(fabric, graph.area)
    x, y = _begin(graph, fabric, seed)
    for number in range(ROUNDS):
        to_x, to_y = spreading.spread(logic, x, y)
        sites.nearest(x, y)
        sites.put(to_x, to_y)
        pull = np.full(len(graph), _FIRST_PULL + _MORE_PULL * number)
        pull[sites.cells] *= _SITE_PULL
        x, y = (
            graph.solve(places, goal, pull / np.maximum(np.abs(goal - places), 1.0))
            for places, goal in ((x, to_x), (y, to_y))
        )
    to_x, to_y = spreading.spread(logic, x, y)
    sites.nearest(x, y)
    for _ in range(_FINAL_ROUNDS):
        sites.improve(to_x, to_y)
    return _settle(graph, sites, fabric), sites.chosen


def _settle(graph: Graph, sites: Sites, fabric: Fabric) -> float:
    """Let the logic settle, choose sites by the wires to it, and so on; the length of the wires then, in tiles."""
    settling = _Settling(graph, sites, fabric)
    settling.spread(_SETTLING_ROUNDS)
    for _ in range(_POLISHES):
        sites.improve(settling.to_x, settling.to_y)
        settling.spread(_POLISHING_ROUNDS)
    return graph.wires(settling.to_x, settling.to_y)


class _Settling:
    """Logic that comes to rest around the sites that are chosen, wherever it was when these were: as in nextpnr.

    x, y: where the wires want it. to_x, to_y: where it is, spread to where there is room.
    """

    def __init__(self, graph: Graph, sites: Sites, fabric: Fabric) -> None:
        self._graph, self._sites, self._spreading = graph, sites, Spreading(fabric, graph.area)
        self._logic: Indices = np.setdiff1d(np.arange(len(graph)), sites.cells)
        self.x, self.y = (np.full(len(graph), size / 2) for size in (fabric.width, fabric.height))
        sites.put(self.x, self.y)
        for _ in range(_FREE_ROUNDS):
            self._solve(self.x, self.y, 0.0)
        self._spread()

    def spread(self, rounds: int) -> None:
        """Go on for some rounds, the last ones of all with the hardest pull."""
        for number in range(_SETTLING_ROUNDS - rounds, _SETTLING_ROUNDS):
            self._solve(self.to_x, self.to_y, _FIRST_PULL + _MORE_SETTLING_PULL * number)
            self._spread()

    def _spread(self) -> None:
        self.to_x, self.to_y = self._spreading.spread(self._logic, self.x, self.y)
        self._sites.put(self.to_x, self.to_y)

    def _solve(self, to_x: Numbers, to_y: Numbers, pull: float) -> None:
        def solved(places: Numbers, goal: Numbers) -> Numbers:
            strengths = (pull + _LEAST_PULL) / np.maximum(np.abs(goal - places), 1.0)
            strengths[list(self._sites.chosen)] = _FIXED_PULL
            return self._graph.solve(places, goal, strengths, _FIXED_TOLERANCE)

        self._sites.put(to_x, to_y)
        self.x, self.y = solved(self.x, to_x), solved(self.y, to_y)
        self._sites.put(self.x, self.y)


def _begin(graph: Graph, fabric: Fabric, seed: int) -> tuple[Numbers, Numbers]:
    """First places: neighbours in the netlist are neighbours, and all of the device is used.

    Wires alone would draw everything to a point. So random places are drawn towards their neighbours and pulled apart
    again a few times, as if on the way to the slow waves of a spectral placement (Hall, "An r-Dimensional Quadratic
    Placement Algorithm", Management Science 17, 1970); of what that gives the order is taken. More rounds of it end at
    waves that are too slow: the wires come out longer in the end.
    """
    random = np.random.default_rng(seed)
    count = len(graph)
    main = graph.main_part()

    def normalized(places: Numbers) -> Numbers:
        places = places - places[main].mean()
        # Two cells have one order, and no second one beside it.
        deviation = places[main].std() or 1.0
        return np.where(main, np.clip(places / deviation, -3, 3), 0)

    x, y = random.normal(size=count), random.normal(size=count)
    pull, scale = np.full(count, _SMOOTHING_PULL), fabric.width / 5
    for _ in range(_SMOOTHINGS):
        x = normalized(x)
        y = normalized(y)
        y = normalized(y - x * (x @ y) / ((x @ x) or 1.0))
        x, y = (graph.solve(scale * places, scale * places, pull, _SMOOTHING_TOLERANCE) for places in (x, y))

    def spread_out(places: Numbers, size: int) -> Numbers:
        ranks = np.empty(count)
        ranks[np.argsort(places, kind="stable")] = np.linspace(_BORDER, size - _BORDER, count)
        return ranks

    return spread_out(x, fabric.width), spread_out(y, fabric.height)


def recipe_of_floorplan() -> str:
    """All that decides a floorplan beside netlist and fabric: the text of this package."""
    return "\n".join(source.read_text(encoding="utf-8") for source in sorted(Path(__file__).parent.glob("*.py")))


def fix_blocks(
    netlist: Path, planned: Path, top: str, fabric: Fabric, earlier: Mapping[str, str] | None = None
) -> None:
    """Write a netlist of Yosys with the floorplan's sites in it, where nextpnr finds them: as the attribute BEL.

    earlier: see `floorplan`.
    """
    design = json.loads(netlist.read_text(encoding="utf-8"))
    cells = design["modules"][top]["cells"]
    for name, bel in floorplan(cells, fabric, BEGINNINGS, earlier).items():
        cells[name]["attributes"]["BEL"] = bel
    planned.write_text(json.dumps(design), encoding="utf-8")
