# SPDX-License-Identifier: Apache-2.0
"""A layer as work that can be cut into pieces: bands of output rows, each a few commands."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from loomwork.arch.config import Config
from loomwork.compiler.graph import Graph, Layer
from loomwork.compiler.task import Task
from loomwork.compiler.views import Views


class Rows(NamedTuple):
    """Image rows `first .. end - 1`."""

    first: int
    end: int


@dataclass(frozen=True)
class Effort:
    """What a piece costs, in cycles, by unit.

    array: passes in the array, if nothing stalls. stream: the bus, for weights and parameters. drain: steps of the
    drain. tail: of these, the ones that cannot begin before the array has finished.
    """

    array: int
    stream: int
    drain: int
    tail: int


class Work(ABC):
    """One layer on its way to commands.

    layer, index: in the graph. height: output rows. max_rows: most output rows of one piece.
    """

    max_rows: int

    def __init__(self, layer: Layer, index: int, graph: Graph, config: Config) -> None:
        self.layer = layer
        self.index = index
        self.maps = graph.maps
        self.config = config
        self.height = graph.maps[layer.output].height

    @abstractmethod
    def needs(self, rows: Rows) -> dict[str, Rows]:
        """The rows that output rows `rows` are computed from, by map; a map of which none are needed is left out."""

    @abstractmethod
    def effort(self, rows: Rows) -> Effort:
        """What these output rows cost."""

    @abstractmethod
    def tasks(self, rows: Rows, views: Views) -> list[Task]:
        """The commands that compute these output rows, at most `max_rows`."""
