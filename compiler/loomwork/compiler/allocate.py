# SPDX-License-Identifier: Apache-2.0
"""Addresses: of what occupies the scratchpad, and of tensors in the windows of external memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from loomwork.arch.config import BANKS, Config
from loomwork.arch.program import Placement
from loomwork.compiler.graph import FeatureMap, Graph, Layer
from loomwork.compiler.limits import largest
from loomwork.compiler.names import readable
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.views import row_words

MAX_ROWS = largest("CONVOLVE", "height")
MAX_ROW_BYTES = largest("CONVOLVE", "row_bytes")
MAX_PITCH = largest("LOAD", "words")
"""Largest height, row and distance between rows of one bank that commands can name."""

PLACEMENT_ALIGNMENT = 64
"""Tensors in external windows begin at multiples of this: a multiple of every bus width."""


@dataclass(frozen=True)
class Lifetime:
    """A feature map, or a band of its rows, occupies `words` of every bank while layers `first .. last` run.

    band: the layer whose band it is, None for a whole map.
    """

    map: str
    first: int
    last: int
    words: int
    band: int | None = None


def map_words(feature_map: FeatureMap, config: Config) -> int:
    """Words that a whole feature map takes in every bank."""
    return ceil(feature_map.height / BANKS) * row_words(feature_map, config)


def touched_maps(layer: Layer) -> tuple[str, ...]:
    """Names of the maps that a layer reads or writes, each once."""
    return tuple(dict.fromkeys((*layer.reads, layer.output)))


def lifetimes(graph: Graph, config: Config) -> list[Lifetime]:
    """When each map is in use. An input comes just before its first reader, an output is stored as it is made."""
    uses: dict[str, list[int]] = {name: [] for name in (*graph.inputs, *graph.outputs)}
    for index, layer in enumerate(graph.layers):
        for name in touched_maps(layer):
            uses.setdefault(name, []).append(index)
    return [
        Lifetime(name, min(layers, default=0), max(layers, default=0), map_words(graph.maps[name], config))
        for name, layers in uses.items()
    ]


def first_fit(lives: Sequence[Lifetime], capacity: int) -> dict[Lifetime, int] | None:
    """A first word for each, so that what is in use at the same time does not overlap; None when none is found.

    Greedy, in several orders; the first order that fits is taken.
    """
    orders: tuple[Callable[[Lifetime], tuple[int, ...]], ...] = (
        lambda life: (-life.words, life.first),
        lambda life: (life.first, -life.words),
        lambda life: (life.first - life.last, -life.words),
        lambda life: (-life.last, -life.words),
    )
    for order in orders:
        base = _first_fit(sorted(lives, key=order), capacity)
        if base is not None:
            return base
    return None


def _first_fit(lives: Iterable[Lifetime], capacity: int) -> dict[Lifetime, int] | None:
    placed: list[tuple[int, Lifetime]] = []
    for life in lives:
        base = 0
        for start, other in sorted(
            (pair for pair in placed if pair[1].first <= life.last and life.first <= pair[1].last),
            key=lambda pair: pair[0],
        ):
            if base + life.words <= start:
                break
            base = max(base, start + other.words)
        if base + life.words > capacity:
            return None
        placed.append((base, life))
    return {life: base for base, life in placed}


def check_map(layer: Layer, feature_map: FeatureMap, config: Config) -> None:
    """Raise UnsupportedLayerError when a map that a layer reads or writes is larger than commands can name."""
    for value, limit, what in (
        (feature_map.height, MAX_ROWS, "rows"),
        (feature_map.row_bytes, min(MAX_ROW_BYTES, MAX_PITCH * config.rows), "bytes per row"),
    ):
        if value > limit:
            raise UnsupportedLayerError(
                layer, f"feature map {described(feature_map)} has {value} {what}, the command set has room for {limit}"
            )


def described(feature_map: FeatureMap) -> str:
    """A map in a message: its name and shape."""
    return f"{readable(feature_map.name)} ({feature_map.height}x{feature_map.width}x{feature_map.channels})"


def place_parts(graph: Graph, wholes: Mapping[str, Placement]) -> list[Placement]:
    """Where the parts of maps lie in external memory. wholes: where those do, by name."""
    placements: list[Placement] = []
    for feature_map in graph.maps.values():
        if feature_map.part:
            whole, channels = wholes[feature_map.whole], graph.maps[feature_map.whole].channels
            offset = feature_map.part.row * whole.row_stride + feature_map.part.column * channels
            placements.append(
                Placement(
                    tensor=feature_map.name,
                    offset=whole.offset + offset + feature_map.part.channel,
                    row_stride=whole.row_stride,
                    rows=feature_map.height,
                    row_bytes=feature_map.row_bytes,
                )
            )
    return placements


def place_external(graph: Graph, names: Sequence[str], config: Config) -> tuple[Placement, ...]:
    """Lay out tensors one after another in a window of external memory."""
    placements: list[Placement] = []
    offset = 0
    for name in names:
        feature_map = graph.maps[name]
        # Whole scratchpad words, which are never narrower than the bus.
        stride = row_words(feature_map, config) * config.rows
        placements.append(
            Placement(
                tensor=name,
                offset=offset,
                row_stride=stride,
                rows=feature_map.height,
                row_bytes=feature_map.row_bytes,
            )
        )
        offset += ceil(feature_map.height * stride / PLACEMENT_ALIGNMENT) * PLACEMENT_ALIGNMENT
    return tuple(placements)
