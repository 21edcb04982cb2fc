# SPDX-License-Identifier: Apache-2.0
"""Analytic placement of a whole netlist, of which only the places of multipliers and block RAMs are kept.

The wires pull all cells together; then logic is spread to where there is room for it, the others go to sites; in the
next round each cell is pulled to that place as well, harder each time (Kim, Lee, Markov, "SimPL: an effective placement
algorithm", IEEE Transactions on CAD 31, 2012).
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
from loomwork.fpga.floorplan.graph import Graph, Numbers
from loomwork.fpga.floorplan.sites import Sites
from loomwork.fpga.floorplan.spreading import Spreading

ROUNDS = 100
BEGINNINGS = 20
"""Floorplans of a board's design, each from other first places: their wires differ by up to 20 %."""
_FIRST_PULL, _MORE_PULL = 0.05, 0.004
"""Strength of the pull to the last places, in the first round and more in each one: a net's is 1."""
_SITE_PULL = 4
"""How much harder cells are pulled to their sites."""
_FINAL_ROUNDS = 4
"""In which sites are chosen by the wires to what is around them."""
_BORDER = 5
"""Tiles at the edge of the device in which nothing begins."""
_SMOOTHINGS, _SMOOTHING_PULL, _SMOOTHING_TOLERANCE = 4, 3e-4, 1e-7
"""How often the first places are drawn together, against which pull to where they are, and how exactly."""


def floorplan(cells: Mapping[str, Any], fabric: Fabric, beginnings: int = 1) -> dict[str, str]:
    """The sites of multipliers and block RAMs.

    cells: of the netlist, as in Yosys's JSON. beginnings: of so many floorplans that with the shortest wires is taken;
    they are made side by side. Result: nextpnr's name of the site by cell. Raises FloorplanError when they are too few.
    """
    graph = Graph(cells)
    sites = Sites(fabric, graph)
    if not len(sites.cells) or not len(graph.pins):
        return {}
    plan, seeds = partial(_plan, graph, fabric), range(1, beginnings + 1)
    if beginnings > 1:
        with ProcessPoolExecutor(min(beginnings, os.cpu_count() or 1)) as pool:
            plans = list(pool.map(plan, seeds))
    else:
        plans = [plan(seed) for seed in seeds]
    _, sites.chosen = min(plans, key=lambda one: one[0])
    sites.share_enables(cells)
    return {graph.names[cell]: site.bel for cell, site in sites.chosen.items()}


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
    sites.put(to_x, to_y)
    return graph.wires(to_x, to_y), sites.chosen


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


def fix_blocks(netlist: Path, planned: Path, top: str, fabric: Fabric) -> None:
    """Write a netlist of Yosys with the floorplan's sites in it, where nextpnr finds them: as the attribute BEL."""
    design = json.loads(netlist.read_text(encoding="utf-8"))
    cells = design["modules"][top]["cells"]
    for name, bel in floorplan(cells, fabric, BEGINNINGS).items():
        cells[name]["attributes"]["BEL"] = bel
    planned.write_text(json.dumps(design), encoding="utf-8")
