# SPDX-License-Identifier: Apache-2.0
"""Which multiplier or block RAM gets which site."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from loomwork.fpga.boards.fabric import DSP, Fabric, FloorplanError, Site
from loomwork.fpga.floorplan.graph import Graph, Indices, Numbers


class Sites:
    """The cells that need a site, and where they are.

    cells: their numbers in the graph. chosen: the site of each. Raises FloorplanError when there are more of a kind
    than sites.
    """

    def __init__(self, fabric: Fabric, graph: Graph) -> None:
        self._fabric = fabric
        self._graph = graph
        kinds = [fabric.kind(cell_type) for cell_type in graph.types]
        self._of_kind: dict[str, Indices] = {
            kind: np.array([number for number, needed in enumerate(kinds) if needed == kind], dtype=np.int64)
            for kind in fabric.sites
        }
        for kind, cells in self._of_kind.items():
            if len(cells) > len(fabric.sites[kind]):
                raise FloorplanError(f"the design has {len(cells)} {kind} for {len(fabric.sites[kind])} sites")
        self.cells: Indices = np.concatenate(list(self._of_kind.values()))
        self._nets = {int(cell): graph.nets_of(int(cell)) for cell in self.cells}
        self.chosen: dict[int, Site] = {}

    def known(self, floorplan: Mapping[str, str]) -> dict[int, Site]:
        """The sites that cells have in a floorplan, the name of a site by that of its cell; no two have the same."""
        found: dict[Site, int] = {}
        for kind, cells in self._of_kind.items():
            sites = {site.bel: site for site in self._fabric.sites[kind]}
            for cell in cells:
                if site := sites.get(floorplan.get(self._graph.names[cell], "")):
                    found[site] = int(cell)
        return {cell: site for site, cell in found.items()}

    def nearest(self, x: Numbers, y: Numbers) -> None:
        """Give each cell a site, so that they are as near as possible to places, in total."""
        for kind, cells in self._of_kind.items():
            sites = self._fabric.sites[kind]
            self._assign(cells, sites, [_distances(sites, float(x[cell]), float(y[cell])) for cell in cells])

    def improve(self, x: Numbers, y: Numbers) -> None:
        """Give each cell a site, so that the wires to what is at places are as short as possible, in total."""
        x, y = x.copy(), y.copy()
        for kind, cells in self._of_kind.items():
            self.put(x, y)
            sites = self._fabric.sites[kind]
            self._assign(cells, sites, [self._wires(int(cell), sites, x, y) for cell in cells])

    def put(self, x: Numbers, y: Numbers) -> None:
        """Set the places of the cells to those of their sites."""
        for cell, site in self.chosen.items():
            x[cell], y[cell] = site.x, site.y

    def _assign(self, cells: Indices, sites: Sequence[Site], costs: list[Numbers]) -> None:
        if costs:
            rows, columns = linear_sum_assignment(np.array(costs))
            self.chosen |= {int(cells[row]): sites[column] for row, column in zip(rows, columns, strict=True)}

    def _wires(self, cell: int, sites: Sequence[Site], x: Numbers, y: Numbers) -> Numbers:
        """How far each site is from the bounding boxes of what the cell is connected to, in total."""
        cost = np.zeros(len(sites))
        nets = self._nets[cell]
        for places, at in ((x, [site.x for site in sites]), (y, [site.y for site in sites])):
            lowest, highest = (np.array([bound(places[net]) for net in nets]) for bound in (np.min, np.max))
            distinct, which = np.unique(np.array(at, dtype=np.float64), return_inverse=True)
            outside = np.maximum(lowest - distinct[:, None], 0) + np.maximum(distinct[:, None] - highest, 0)
            cost += outside.sum(axis=1)[which]
        return cost

    def share_enables(self, netlist: Mapping[str, Any]) -> None:
        """Exchange multipliers until no block has more clock enables than it can, each time at the least distance.

        Raises FloorplanError when that cannot be reached so.
        """
        names = self._graph.names
        enables = {int(cell): _enables(netlist[names[cell]]) for cell in self._of_kind[DSP]}
        at: dict[Site, int | None] = dict.fromkeys(self._fabric.sites[DSP])
        at |= {self.chosen[cell]: cell for cell in enables}
        blocks: dict[str, list[Site]] = defaultdict(list)
        for site in at:
            blocks[site.block].append(site)

        def excess(block: str) -> int:
            cells = [cell for site in blocks[block] if (cell := at[site]) is not None]
            return max(0, len(frozenset[int]().union(*(enables[cell] for cell in cells))) - self._fabric.enables)

        def exchanged(one: Site, other: Site) -> tuple[int, int]:
            """What an exchange would leave in excess, and how far the two would be from where they are."""
            at[one], at[other] = at[other], at[one]
            left = excess(one.block) + excess(other.block)
            at[one], at[other] = at[other], at[one]
            return left, abs(one.x - other.x) + abs(one.y - other.y)

        while crowded := next((block for block in blocks if excess(block)), None):
            pairs = [(one, other) for one in blocks[crowded] for other in at if other.block != crowded]
            best: tuple[int, Site, Site] | None = None
            for one, other in pairs:
                left, distance = exchanged(one, other)
                if left < excess(crowded) + excess(other.block) and (best is None or distance < best[0]):
                    best = distance, one, other
            if best is None:
                raise FloorplanError("the multipliers have too many clock enables for their blocks")
            _, one, other = best
            at[one], at[other] = at[other], at[one]
        self.chosen |= {cell: site for site, cell in at.items() if cell is not None}


def _distances(sites: Sequence[Site], x: float, y: float) -> Numbers:
    return np.array([abs(site.x - x) + abs(site.y - y) for site in sites])


def _enables(cell: Mapping[str, Any]) -> frozenset[int]:
    """The nets at a multiplier's clock enables, without constants."""
    pins = cell["connections"].items()
    return frozenset(bit for pin, bits in pins if pin.startswith("CE") for bit in bits if isinstance(bit, int))
