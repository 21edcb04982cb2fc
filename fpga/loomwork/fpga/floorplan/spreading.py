# SPDX-License-Identifier: Apache-2.0
"""Moves logic out of crowded regions: the other half of analytic placement."""

import numpy as np

from loomwork.fpga.boards.fabric import Fabric
from loomwork.fpga.floorplan.graph import Indices, Numbers

DENSITY = 0.85
"""Share of a region's lookup tables that are used, unless the whole device is fuller."""
_FEW_CELLS = 6
_FEW_TILES = 2
"""A region of so many tiles in each direction is cut no more."""


class Spreading:
    """Cuts the device in halves again and again; cells that are too many for a half go to the other one."""

    def __init__(self, fabric: Fabric, area: Numbers) -> None:
        self._fabric = fabric
        self._area = area
        luts = np.full((fabric.width + 1, fabric.height + 1), float(fabric.tile_luts))
        luts[0, :] = luts[:, 0] = 0
        for sites in fabric.sites.values():
            luts[:, [site.y for site in sites]] = 0
        self._luts_below = luts.cumsum(0).cumsum(1)

    def _luts(self, low: tuple[int, int], high: tuple[int, int]) -> float:
        """Lookup tables of a region from one tile to another one."""
        (x0, y0), (x1, y1) = low, high
        total = self._luts_below
        return float(total[x1, y1] - total[x0 - 1, y1] - total[x1, y0 - 1] + total[x0 - 1, y0 - 1])

    def spread(self, cells: Indices, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """New places for some of the cells, as near to the old ones and in the same order."""
        fabric = self._fabric
        places = (np.clip(x, 1, fabric.width - 1), np.clip(y, 1, fabric.height - 1))
        self._cut(cells, places, (1, 1), (fabric.width - 1, fabric.height - 1))
        return places

    def _cut(
        self, cells: Indices, places: tuple[Numbers, Numbers], low: tuple[int, int], high: tuple[int, int]
    ) -> None:
        spans = [end - begin + 1 for begin, end in zip(low, high, strict=True)]
        if max(spans) <= _FEW_TILES or len(cells) < _FEW_CELLS:
            for place, begin, end in zip(places, low, high, strict=True):
                place[cells] = np.clip(place[cells], begin, end)
            return
        axis = int(spans[0] < spans[1])
        middle = (low[axis] + high[axis]) // 2
        first_high, second_low = list(high), list(low)
        first_high[axis], second_low[axis] = middle, middle + 1
        first, second = (low, (first_high[0], first_high[1])), ((second_low[0], second_low[1]), high)

        place = places[axis]
        order = cells[np.argsort(place[cells], kind="stable")]
        area = np.cumsum(self._area[order])
        luts = self._luts(*first), self._luts(*second)
        density = max(DENSITY, area[-1] / (sum(luts) or 1.0))
        count = int(np.searchsorted(place[order], middle + 0.5))
        if count and area[count - 1] > density * luts[0]:
            count = int(np.searchsorted(area, density * luts[0], side="right"))
        elif area[-1] - (area[count - 1] if count else 0) > density * luts[1]:
            count = int(np.searchsorted(area, area[-1] - density * luts[1], side="left"))
        before, behind = order[:count], order[count:]
        place[before] = np.minimum(place[before], middle)
        place[behind] = np.maximum(place[behind], middle + 1)
        for part, region in ((before, first), (behind, second)):
            if len(part):
                self._cut(part, places, *region)
