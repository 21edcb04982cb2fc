# SPDX-License-Identifier: Apache-2.0
"""Layers of which not one row finds room are divided: each part computes a strip of columns, or some of the channels.

The maps of such a layer lie in external memory. A part reads and writes parts of them as if they were maps of their
own: rows of a strip lie as far apart as those of the whole image. Strips of the input overlap where windows do; strips
of the output begin at scratchpad words, so that no part stores a byte of another. A mean needs all pixels, but of some
channels only; rows that are too many for a command are divided too. Exact, for every pixel is computed as before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import ceil, gcd

from loomwork.arch.config import Config
from loomwork.compiler.allocate import MAX_PITCH, MAX_ROW_BYTES, MAX_ROWS, touched_maps
from loomwork.compiler.bands import BandFitter, Gap
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Convolution, FeatureMap, Graph, Layer, Mean, Part, PoolLayer, Rearrange
from loomwork.compiler.lower import lower_layer
from loomwork.compiler.tiling import covered
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.work import Work

MORE_PARTS = 3
"""Numbers of parts that are tried beyond the fewest: narrower strips leave room for two pieces at once."""

MAX_PARTS = 1024
"""Into so many parts, a layer is better left to the host."""


def divide(graph: Graph, works: Sequence[Work], config: Config) -> Graph:
    """The graph with parts in place of each layer that does not fit the scratchpad by itself, as far as that helps.

    works: those of its layers. Returns `graph` itself when every layer fits.
    """
    fitter = BandFitter(graph, config)
    maps, layers = dict(graph.maps), list[Layer]()
    for work in works:
        parts = None if _fits(work, graph, config, fitter) else _divided(work, graph, config)
        if parts is None:
            layers.append(work.layer)
            continue
        for part in parts:
            maps.update((feature_map.name, feature_map) for feature_map in part.maps)
            layers.append(part.layer)
    return graph if len(layers) == len(graph.layers) else replace(graph, maps=maps, layers=tuple(layers))


@dataclass(frozen=True)
class _LayerPart:
    """A part of a layer, and the parts of maps it is about."""

    layer: Layer
    maps: tuple[FeatureMap, ...]


@dataclass(frozen=True)
class _Span:
    """Rows, columns or channels `first .. end - 1`."""

    first: int
    end: int


@dataclass(frozen=True)
class _Axis:
    """How an output position of a layer follows from input positions, along one axis.

    The value at v is computed from `extent` positions from `v * stride - pad` on; an output position pools `window`
    values from `position * step` on.
    """

    extent: int = 1
    stride: int = 1
    pad: int = 0
    window: int = 1
    step: int = 1

    def values(self, outputs: _Span) -> _Span:
        """The values behind output positions."""
        first = outputs.first * self.step
        return _Span(first, first + covered(outputs.end - outputs.first, self.window, self.step))

    def inputs(self, outputs: _Span, size: int, alignment: int) -> _Span:
        """The input positions behind output positions, of an axis of `size`; it begins at a multiple of `alignment`."""
        values = self.values(outputs)
        first = values.first * self.stride - self.pad
        end = (values.end - 1) * self.stride - self.pad + self.extent
        first = min(max(first, 0), size - 1)
        return _Span(first // alignment * alignment, min(max(end, first + 1), size))

    def part_pad(self, outputs: _Span, inputs: _Span) -> int:
        """The padding in front of a part of the input; negative where it begins before the first window."""
        return self.pad + inputs.first - self.values(outputs).first * self.stride


def _fits(work: Work, graph: Graph, config: Config, fitter: BandFitter) -> bool:
    names = touched_maps(work.layer)
    for feature_map in (graph.maps[name] for name in names):
        row_bytes = min(MAX_ROW_BYTES, MAX_PITCH * config.rows)
        if feature_map.height > MAX_ROWS or feature_map.row_bytes > row_bytes:
            return False
    return sum(fitter.needed(work, name, 1) * fitter.pitch(name) for name in names) <= config.bank_words


def _divided(work: Work, graph: Graph, config: Config) -> list[_LayerPart] | None:
    """The parts of a layer with which it takes the fewest cycles; None when none fit."""
    if isinstance(work.layer, Rearrange):
        return None
    best: tuple[float, list[_LayerPart]] | None = None
    left = MORE_PARTS
    for grid in _grids(work.layer, graph, config):
        parts = [_part(work.layer, outputs, graph, config) for outputs in grid]
        cycles = _cycles(parts, work.index, graph, config)
        if cycles is not None and (best is None or cycles < best[0]):
            best = cycles, parts
        left -= best is not None
        if left < 0:
            break
    return best[1] if best else None


def _cycles(parts: Sequence[_LayerPart], index: int, graph: Graph, config: Config) -> float | None:
    """Roughly, of all parts; None when one does not fit."""
    cycles = 0.0
    # Most parts are alike; at the borders of the image they are smaller, but may lie less well in groups of rows.
    alike: set[tuple[object, ...]] = set()
    for part in parts:
        shapes = tuple((feature_map.height, feature_map.width, feature_map.channels) for feature_map in part.maps)
        key = (*shapes, _axes(part.layer, part.maps[0]))
        if key not in alike:
            alike.add(key)
            found = _part_cycles(part, index, graph, config)
            if found is None:
                return None
            cycles = max(cycles, found)
    return cycles * len(parts)


def _part_cycles(part: _LayerPart, index: int, graph: Graph, config: Config) -> float | None:
    own = Graph(maps={**graph.maps, **{feature_map.name: feature_map for feature_map in part.maps}})
    fitter = BandFitter(own, config)
    try:
        work = lower_layer(part.layer, index, own, config, None)
    except UnsupportedLayerError:
        return None
    if not _fits(work, own, config, fitter):
        return None
    found = fitter.fit(work, touched_maps(part.layer), [Gap(0, config.bank_words)])
    return found.cycles if found else None


_Outputs = tuple[_Span, _Span, _Span]
"""Rows, columns and channels of an output."""


def _grids(layer: Layer, graph: Graph, config: Config) -> Iterator[list[_Outputs]]:
    """Ways to divide the output of a layer, the fewest parts first; some channels at a time where nothing else does."""
    output, source = graph.maps[layer.output], graph.maps[layer.input]
    bands = max(ceil(output.height / MAX_ROWS), ceil(source.height / MAX_ROWS))
    alignment = _alignment(output, config)
    # Parts of one or two rows need the fewest rows of the input: four neighbours may lie in two groups of four.
    heights = dict.fromkeys((bands, bands + 1, ceil(output.height / 2), output.height))
    grids = product((count for count in heights if count >= bands), _counts(ceil(output.width / alignment)))
    for row_count, column_count in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        if 1 < row_count * column_count <= MAX_PARTS:
            rows, columns = _spans(output.height, row_count, 1), _spans(output.width, column_count, alignment)
            yield [(y, x, _Span(0, output.channels)) for y, x in product(rows, columns)]
    if output.channels % config.rows == 0 and _channel_by_channel(layer, source, output):
        for count in _counts(output.channels // config.rows):
            if 1 < count <= MAX_PARTS:
                channels = _spans(output.channels, count, config.rows)
                yield [(_Span(0, output.height), _Span(0, output.width), part) for part in channels]


def _channel_by_channel(layer: Layer, source: FeatureMap, output: FeatureMap) -> bool:
    """Whether a channel of the output depends on just the same channel of the input, and commands can name some."""
    convolution = layer.convolution if isinstance(layer, FusedConvolution) else layer
    if isinstance(convolution, Convolution):
        return convolution.depthwise and source.channels == output.channels
    return isinstance(layer, Mean | PoolLayer) or output.height == output.width == 1


def _counts(most: int) -> Iterator[int]:
    """Numbers of spans to try: all small ones, of the larger ones some, and the most."""
    count = 1
    while count < most:
        yield count
        count += ceil(count / 8)
    yield most


def _spans(size: int, count: int, alignment: int) -> Iterator[_Span]:
    """At most `count` nearly equal spans that begin at multiples of `alignment`."""
    units = ceil(size / alignment)
    starts = sorted({units * number // count * alignment for number in range(count)})
    yield from (_Span(first, end) for first, end in pairwise([*starts, size]))


def _alignment(feature_map: FeatureMap, config: Config) -> int:
    """Columns from one that begins at a scratchpad word to the next."""
    return config.rows // gcd(config.rows, feature_map.channels)


def _part(layer: Layer, outputs: _Outputs, graph: Graph, config: Config) -> _LayerPart:
    """The part of a layer that computes one part of its output."""
    source, output = graph.maps[layer.input], graph.maps[layer.output]
    axes = _axes(layer, source)
    y, x, channels = outputs
    alike = _channel_by_channel(layer, source, output) or not isinstance(layer, Convolution | FusedConvolution)
    given = (
        axes[0].inputs(y, source.height, 1),
        axes[1].inputs(x, source.width, _alignment(source, config)),
        channels if alike else _Span(0, source.channels),
    )
    pads = tuple(axis.part_pad(*spans) for axis, spans in zip(axes, zip((y, x), given[:2], strict=True), strict=True))
    read, written = _cut(source, given), _cut(output, outputs)
    operand = None
    if isinstance(other := getattr(layer, "operand", None), str):
        operand = _cut(graph.maps[other], (axes[0].values(y), axes[1].values(x), channels))
    changed: dict[str, object] = {"input": read.name, "output": written.name}
    if operand:
        changed["operand"] = operand.name
    match layer:
        case FusedConvolution():
            convolution = _some_channels(layer.convolution, channels)
            changed["convolution"] = replace(convolution, input=read.name, pad=pads)
            if layer.combination and operand:
                changed["combination"] = replace(layer.combination, operand=operand.name)
        case Convolution():
            changed["pad"] = pads
            layer = _some_channels(layer, channels)
        case PoolLayer():
            changed["pad"] = pads
        case _:
            pass
    return _LayerPart(replace(layer, **changed), tuple(m for m in (read, operand, written) if m))


def _some_channels(layer: Convolution, channels: _Span) -> Convolution:
    """Of a convolution, these channels of the output."""
    count, some = layer.kernel.shape[3], slice(channels.first, channels.end)
    if channels == _Span(0, count):
        return layer
    rule = layer.requantize
    shared = {name: getattr(rule, name) for name in ("multiplier", "shift", "bias")}
    own = {name: values[some] if len(values) == count else values for name, values in shared.items()}
    return replace(layer, kernel=layer.kernel[..., some], requantize=replace(rule, **own))


def _cut(whole: FeatureMap, spans: _Outputs) -> FeatureMap:
    """A part of a map."""
    y, x, channels = spans
    return FeatureMap(
        name=f"{whole.name}[{y.first}:{y.end},{x.first}:{x.end},{channels.first}:{channels.end}]",
        height=y.end - y.first,
        width=x.end - x.first,
        channels=channels.end - channels.first,
        zero_point=whole.zero_point,
        part=Part(map=whole.name, row=y.first, column=x.first, channel=channels.first),
    )


def _axes(layer: Layer, source: FeatureMap) -> tuple[_Axis, _Axis]:
    """Height and width of a layer."""
    match layer:
        case FusedConvolution():
            return _convolution_axis(layer, 0), _convolution_axis(layer, 1)
        case Convolution():
            return _convolution_axis(layer, 0), _convolution_axis(layer, 1)
        case PoolLayer():
            height, width = zip(layer.window, layer.stride, layer.pad, strict=True)
            return _Axis(*height), _Axis(*width)
        case Mean():
            return _Axis(extent=source.height), _Axis(extent=source.width)
        case _:
            return _Axis(), _Axis()


def _convolution_axis(layer: Convolution | FusedConvolution, axis: int) -> _Axis:
    fused = layer if isinstance(layer, FusedConvolution) else None
    convolution = fused.convolution if fused else layer
    assert isinstance(convolution, Convolution)
    pool = fused.pool if fused else None
    return _Axis(
        extent=covered(convolution.kernel.shape[axis], 1, convolution.dilation[axis]),
        stride=convolution.stride[axis],
        pad=convolution.pad[axis],
        window=pool.window[axis] if pool else 1,
        step=pool.stride[axis] if pool else 1,
    )
