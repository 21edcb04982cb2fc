# SPDX-License-Identifier: Apache-2.0
"""Where feature maps lie: in the scratchpad, and in the external windows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from loomwork.arch.config import BANKS, Config, ConfigError
from loomwork.arch.program import Placement
from loomwork.compiler.graph import CompileError, FeatureMap, Graph, Layer
from loomwork.compiler.limits import largest
from loomwork.compiler.names import readable
from loomwork.compiler.task import Region

MAX_ROWS = largest("CONVOLVE", "height")
MAX_ROW_BYTES = largest("CONVOLVE", "row_bytes")
MAX_PITCH = largest("LOAD", "words")
"""Largest height, row and distance between rows of one bank that commands can name."""

PLACEMENT_ALIGNMENT = 64
"""Tensors in external windows begin at multiples of this: a multiple of every bus width."""


@dataclass(frozen=True)
class Lifetime:
    """A feature map occupies its words while layers `first .. last` run."""

    map: str
    first: int
    last: int
    words: int


@dataclass(frozen=True)
class Allocation:
    """Scratchpad addresses of a graph's feature maps. base: first word in each bank, by name of the map."""

    config: Config
    maps: dict[str, FeatureMap]
    base: dict[str, int]

    def pitch(self, name: str) -> int:
        """Words from image row y to y + 4."""
        return row_words(self.maps[name], self.config)

    def region(self, name: str, row: int, rows: int, first_byte: int = 0, end_byte: int | None = None) -> Region:
        """The words that hold bytes `first_byte .. end_byte - 1` (the whole row when absent) of some rows of a map."""
        end = self.maps[name].row_bytes if end_byte is None else end_byte
        word = first_byte // self.config.rows
        return Region(
            map=name,
            base=self.base[name],
            pitch=self.pitch(name),
            row=row,
            rows=rows,
            word=word,
            words=ceil(end / self.config.rows) - word,
        )


def row_words(feature_map: FeatureMap, config: Config) -> int:
    """Scratchpad words of one image row."""
    return ceil(feature_map.row_bytes / config.rows)


def map_words(feature_map: FeatureMap, config: Config) -> int:
    """Words that a feature map takes in every bank."""
    return ceil(feature_map.height / BANKS) * row_words(feature_map, config)


def operand_maps(layer: Layer) -> tuple[str, ...]:
    """Names of the maps that a layer reads."""
    operand = getattr(layer, "operand", None)
    return (layer.input,) if operand is None else (layer.input, operand)


def lifetimes(graph: Graph, config: Config) -> list[Lifetime]:
    """When each map is in use. An input comes just before its first reader, an output is stored as it is made."""
    uses: dict[str, list[int]] = {name: [] for name in (*graph.inputs, *graph.outputs)}
    for index, layer in enumerate(graph.layers):
        for name in (*operand_maps(layer), layer.output):
            uses.setdefault(name, []).append(index)
    return [
        Lifetime(name, min(layers, default=0), max(layers, default=0), map_words(graph.maps[name], config))
        for name, layers in uses.items()
    ]


def allocate(graph: Graph, config: Config) -> Allocation:
    """Give every feature map an address, so that maps in use at the same time do not overlap.

    Greedy first fit, in several orders; the first order that fits is taken.
    Raises CompileError when a map is larger than commands can name, or when the maps do not fit.
    """
    for name in dict.fromkeys(name for layer in graph.layers for name in (*operand_maps(layer), layer.output)):
        _check_map(graph.maps[name], config)
    lives = lifetimes(graph, config)
    orders: tuple[Callable[[Lifetime], tuple[int, ...]], ...] = (
        lambda life: (-life.words, life.first),
        lambda life: (life.first, -life.words),
        lambda life: (life.first - life.last, -life.words),
        lambda life: (-life.last, -life.words),
    )
    for order in orders:
        base = _first_fit(sorted(lives, key=order), config.bank_words)
        if base is not None:
            return Allocation(config, graph.maps, base)
    raise CompileError(_why_not(graph, config, lives))


def _first_fit(lives: Iterable[Lifetime], capacity: int) -> dict[str, int] | None:
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
    return {life.map: base for base, life in placed}


def _check_map(feature_map: FeatureMap, config: Config) -> None:
    for value, limit, what in (
        (feature_map.height, MAX_ROWS, "rows"),
        (feature_map.row_bytes, min(MAX_ROW_BYTES, MAX_PITCH * config.rows), "bytes per row"),
    ):
        if value > limit:
            raise CompileError(
                f"feature map {_named(feature_map)} has {value} {what}, the command set has room for {limit}"
            )


def _why_not(graph: Graph, config: Config, lives: Sequence[Lifetime]) -> str:
    """Name the layer at which most is in use."""

    def words(index: int) -> int:
        return sum(life.words for life in lives if life.first <= index <= life.last)

    worst = max(range(len(graph.layers)), key=words)
    layer = graph.layers[worst]
    what = ", ".join(_named(graph.maps[life.map]) for life in lives if life.first <= worst <= life.last)
    needed = words(worst) * BANKS * config.rows / 1024
    if words(worst) <= config.bank_words:
        return (
            f"the model does not fit: around layer {readable(layer.name)} {what} take {needed:.1f} of the "
            f"{config.scratchpad_kib} KiB of scratchpad of configuration {config.name}, but not in one piece; "
            "choose one with a larger scratchpad_kib"
        )
    return (
        f"the model does not fit: layer {readable(layer.name)} ({layer.operator}) needs {needed:.1f} KiB of scratchpad "
        f"for {what}, but configuration {config.name} has {config.scratchpad_kib} KiB; {_advice(config, ceil(needed))}"
    )


def _named(feature_map: FeatureMap) -> str:
    return f"{readable(feature_map.name)} ({feature_map.height}x{feature_map.width}x{feature_map.channels})"


def _advice(config: Config, kib: int) -> str:
    try:
        replace(config, scratchpad_kib=kib)
    except ConfigError:
        return "as no configuration can have so much, the network has to work on smaller images"
    return f"choose one with a larger scratchpad_kib (at least {kib})"


def scratchpad_bytes(graph: Graph, config: Config, layer: int) -> int:
    """Bytes of scratchpad in use while a layer runs."""
    words = sum(life.words for life in lifetimes(graph, config) if life.first <= layer <= life.last)
    return words * BANKS * config.rows


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
