# SPDX-License-Identifier: Apache-2.0
"""A netlist as cells and nets in a plane, and what its wires pull the cells to."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]

MAX_PINS = 200
"""Nets with more are left out: clocks, resets and enables of whole units have no place."""
_LUTS = {"LUT4": 1.0, "CCU2C": 2.0, "TRELLIS_DPR16X4": 6.0, "TRELLIS_FF": 0.45}
"""Lookup tables' worth of area by type. About half of the flip-flops take no lookup table's place."""
_CG_STEPS = 150
_NEAR = 1.0
"""Tiles; pins that are nearer do not pull each other harder."""


class Graph:
    """Cells and the nets between them.

    names, types: of the cells. area: of each, in lookup tables; 0 for other kinds of cells.
    """

    def __init__(self, cells: Mapping[str, Any]) -> None:
        self.names = list(cells)
        self.types = [cell["type"] for cell in cells.values()]
        self.area: Numbers = np.array([_LUTS.get(kind, 0.0) for kind in self.types])
        members: dict[int, set[int]] = defaultdict(set)
        for number, cell in enumerate(cells.values()):
            for bits in cell["connections"].values():
                for bit in bits:
                    if isinstance(bit, int):  # not a constant
                        members[bit].add(number)
        nets = [sorted(pins) for pins in members.values() if 2 <= len(pins) <= MAX_PINS]
        # All pins, net by net; where each net begins, and how many it has.
        self.pins: Indices = np.array([pin for pins in nets for pin in pins], dtype=np.int64)
        self.sizes: Indices = np.array([len(pins) for pins in nets], dtype=np.int64)
        self.starts: Indices = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)
        self.net_of_pin: Indices = np.repeat(np.arange(len(nets)), self.sizes)

    def __len__(self) -> int:
        return len(self.names)

    def nets_of(self, cell: int) -> list[Indices]:
        """The other cells of each net that a cell is in."""
        found = self.net_of_pin[self.pins == cell]
        nets = (self.pins[self.starts[net] : self.starts[net] + self.sizes[net]] for net in found)
        return [pins[pins != cell] for pins in nets]

    def wires(self, x: Numbers, y: Numbers) -> float:
        """Half the perimeters of all nets' bounding boxes, in tiles."""
        length = 0.0
        for places in (x[self.pins], y[self.pins]):
            highest, lowest = (bound.reduceat(places, self.starts) for bound in (np.maximum, np.minimum))
            length += float((highest - lowest).sum())
        return length

    def main_part(self) -> NDArray[np.bool_]:
        """The cells of the largest part that is connected."""
        first = self.pins[self.starts][self.net_of_pin]
        size = (len(self), len(self))
        _, part = connected_components(coo_matrix((np.ones(len(first)), (self.pins, first)), size), directed=False)
        return part == np.bincount(part).argmax()

    def solve(self, places: Numbers, anchors: Numbers, strengths: Numbers, tolerance: float = 1e-4) -> Numbers:
        """Where the cells come to rest on one axis, when every wire is a spring.

        Each pin of a net is tied to the net's two outermost ones, a spring weaker the longer it is, so that the energy
        is about the length of the wires: the model "bound to bound" (Spindler, Schlichtmann, Johannes, "Kraftwerk2",
        IEEE Transactions on CAD 27, 2008).

        places: from where to begin. anchors, strengths: where each cell is pulled besides, and how hard.
        """
        order = np.lexsort((places[self.pins], self.net_of_pin))
        pins = self.pins[order]
        lowest, highest = pins[self.starts][self.net_of_pin], pins[self.starts + self.sizes - 1][self.net_of_pin]
        rank = np.arange(len(pins)) - self.starts[self.net_of_pin]
        to_lowest, to_highest = rank > 0, (rank > 0) & (rank < self.sizes[self.net_of_pin] - 1)
        one = np.concatenate([pins[to_lowest], pins[to_highest]])
        other = np.concatenate([lowest[to_lowest], highest[to_highest]])
        weight = 1.0 / (self.sizes[self.net_of_pin] - 1)
        weight = np.concatenate([weight[to_lowest], weight[to_highest]])
        weight = weight / np.maximum(np.abs(places[one] - places[other]), _NEAR)

        count = len(self)
        diagonal = np.bincount(one, weight, count) + np.bincount(other, weight, count) + strengths
        row, column = np.concatenate([one, other]), np.concatenate([other, one])
        springs = coo_matrix((np.concatenate([-weight, -weight]), (row, column)), (count, count)).tocsr()
        system = springs + diags(diagonal)
        solved, _ = cg(
            system, strengths * anchors, x0=places, rtol=tolerance, maxiter=_CG_STEPS, M=diags(1.0 / diagonal)
        )
        return solved
