# SPDX-License-Identifier: Apache-2.0
"""The plots of `loomwork report`: roofline, cycles per layer, scratchpad, timeline."""

from collections.abc import Iterable
from functools import partial
from math import ceil, log

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from loomwork.arch.config import BANKS
from loomwork.arch.isa import COMMAND_BYTES
from loomwork.cli.figures import PALETTE, Draw, Ink, plain_axes, thousands
from loomwork.cli.report_data import Layer, ReportData
from loomwork.sim.backend import StepStatistics
from loomwork.sim.timeline import accelerator_steps, layers_by_command
from loomwork.sim.trace import UNITS

FIGURES = ("layers", "roofline", "timeline", "memory")
"""Names of all figures, in the order of the page."""
WIDTH = 9.0
"""Inches of every figure."""
NAMED_LAYERS = 36
"""Up to so many layers, an axis has room for their names."""
TIMELINE_DETAIL = 1 / 1500
"""Gaps shorter than this share of the timeline are not seen and not drawn."""

_Point = tuple[Layer, float, float]
"""A layer in the roofline: MAC per byte, MAC per cycle."""


def draw_figures(data: ReportData) -> dict[str, Draw]:
    """Those of FIGURES that the data suffices for."""
    found: dict[str, Draw] = {}
    if any(layer.cycles or layer.array for layer in data.layers):
        found["layers"] = partial(layer_figure, data)
    if any(layer.intensity() and _rate(layer) for layer in data.layers):
        found["roofline"] = partial(roofline_figure, data)
    if data.measurement is not None and data.measurement.traced:
        found["timeline"] = partial(timeline_figure, data)
    if data.regions:
        found["memory"] = partial(memory_figure, data)
    return found


def layer_figure(data: ReportData, ink: Ink) -> Figure:
    """Cycles per layer: measured, or else predicted, with what the array needs and what no design can beat."""
    layers = [layer for layer in data.layers if not layer.on_host]
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = plain_axes(figure, ink)
    axes.grid(False, axis="x")
    positions = [layer.number for layer in layers]
    if any(layer.cycles for layer in layers):
        title = "measured" if any(layer.measured for layer in layers) else "predicted"
        axes.bar(positions, [layer.cycles or 0 for layer in layers], width=0.82, color=PALETTE[0], label=title)
    array = [layer.array or 0 for layer in layers]
    axes.bar(positions, array, width=0.46, color=PALETTE[1], label="array occupied, if nothing stalls")
    if any(layer.measured for layer in layers) and any(layer.predicted for layer in layers):
        predicted = [layer.predicted or 0 for layer in layers]
        axes.plot(positions, predicted, "o", mfc="none", mec=ink.strong, ms=4, mew=0.8, label="predicted")
    bound = [layer.bound or 0 for layer in layers]
    edges = [position - 0.44 for position in positions], [position + 0.44 for position in positions]
    axes.hlines(bound, *edges, color=ink.strong, linewidth=1.4, label="bound of multipliers and bus")
    axes.set_ylabel("cycles")
    axes.yaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_xlim(min(positions) - 0.7, max(positions) + 0.7)
    if len(layers) <= NAMED_LAYERS:
        names = [f"{layer.number}: {layer.label}" for layer in layers]
        axes.set_xticks(positions, names, rotation=50, ha="right", rotation_mode="anchor", fontsize=7)
    else:
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=20))
    axes.legend(frameon=False, labelcolor=ink.strong, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    return figure


def roofline_figure(data: ReportData, ink: Ink) -> Figure:
    """MAC per byte against MAC per cycle, under the two roofs of the configuration."""
    config = data.config
    points = [(layer, x, y) for layer in data.layers if (x := layer.intensity()) and (y := _rate(layer))]
    figure = Figure(figsize=(WIDTH, 4.2))
    axes = plain_axes(figure, ink)
    ridge = config.macs_per_cycle / config.bus_bytes
    left = min([ridge, *(x for _, x, _ in points)]) / 2
    right = max([ridge, *(x for _, x, _ in points)]) * 2
    lowest = min([config.macs_per_cycle / 16, *(y for _, _, y in points)]) / 2
    highest = config.macs_per_cycle * 2.6
    roof = [left * config.bus_bytes, config.macs_per_cycle, config.macs_per_cycle]
    axes.plot([left, ridge, right], roof, color=ink.strong, lw=1.4, zorder=1)
    axes.text(
        *(0.995, 0.985, f"roof: {config.macs_per_cycle} MAC/cycle ({config.rows} x {config.cols})"),
        transform=axes.transAxes,
        ha="right",
        va="top",
        color=ink.strong,
    )
    axes.axvline(ridge, color=ink.strong, lw=0.7, ls=(0, (3, 3)))
    axes.annotate(
        f"bus: {config.bus_bytes} bytes/cycle  \N{RIGHTWARDS ARROW}  balanced at {ridge:.3g} MAC/byte",
        (ridge, lowest),
        xytext=(5, 6),
        textcoords="offset points",
        color=ink.strong,
    )
    most = max(_weight(layer) for layer, _, _ in points)
    kinds = list(dict.fromkeys(layer.kind for layer, _, _ in points))
    for index, kind in enumerate(kinds):
        own = [(x, y, 30 + 350 * _weight(layer) / most) for layer, x, y in points if layer.kind == kind]
        xs, ys, sizes = zip(*own, strict=True)
        colour = PALETTE[index % len(PALETTE)]
        axes.scatter(xs, ys, s=sizes, color=colour, alpha=0.72, linewidths=0.5, edgecolors=ink.strong)
    for layer, x, y in _apart(points, log(right / left), log(highest / lowest)):
        axes.annotate(str(layer.number), (x, y), ha="center", va="center", fontsize=6.5, color=ink.strong)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(lowest, highest)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(thousands))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_xlabel("MAC per byte over the bus")
    axes.set_ylabel(f"MAC per cycle ({_rate_source(data)})")
    # Handles of their own: those of the points would be as large as the first point of each kind.
    dots = [Line2D([], [], marker="o", ls="", color=PALETTE[index % len(PALETTE)]) for index in range(len(kinds))]
    axes.legend(dots, kinds, frameon=False, labelcolor=ink.strong, loc="upper left", fontsize=8)
    return figure


def memory_figure(data: ReportData, ink: Ink) -> Figure:
    """Which feature map lies where in the scratchpad, from layer to layer."""
    peak = max(region.base + region.words for region in data.regions)
    capacity = data.config.bank_words
    top = capacity if peak > capacity / 3 else peak * 1.15
    numbers = [layer.number for layer in data.layers if not layer.on_host]
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = plain_axes(figure, ink)
    axes.grid(False, axis="x")
    axes.set_xlim(min(numbers) - 0.5, max(numbers) + 0.5)
    axes.set_ylim(0, top * 1.04)
    for index, region in enumerate(data.regions):
        wide = region.last - region.first + 1
        colour = PALETTE[index % len(PALETTE)]
        place = (region.first - 0.5, region.base)
        axes.add_patch(Rectangle(place, wide, region.words, fc=colour, ec=ink.strong, alpha=0.75, lw=0.5))
        room = int(wide / (numbers[-1] - numbers[0] + 1) * 138)
        lines = [text for text in (region.label, region.shape) if len(text) <= room]
        if lines and region.words > 0.05 * top:
            shown = lines if region.words > 0.11 * top else lines[:1]
            centre = region.first - 0.5 + wide / 2, region.base + region.words / 2
            axes.text(*centre, "\n".join(shown), ha="center", va="center", fontsize=6.5, color=ink.strong)
    if top == capacity:
        axes.axhline(capacity, color=ink.strong, lw=1.2)
    axes.set_ylabel(f"words of each bank, of {capacity:,}")
    axes.yaxis.set_major_formatter(FuncFormatter(thousands))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=24))
    axes.set_xlabel("layer")
    right = axes.twinx()
    right.set_ylim(0, top * 1.04 * BANKS * data.config.rows / 1024)
    right.set_ylabel("KiB", color=ink.strong)
    right.tick_params(colors=ink.strong, length=3, width=0.6, labelsize=8)
    for line in right.spines.values():
        line.set_visible(False)
    return figure


def timeline_figure(data: ReportData, ink: Ink) -> Figure:
    """What each unit works on, cycle by cycle, in the colours of the layers; steps one behind the other."""
    measurement = data.measurement
    assert measurement is not None
    present = {event.unit for run in measurement.steps for event in run.events}
    units = [*(unit for unit in UNITS if unit in present), *sorted(present.difference(UNITS))]
    total = max(1, sum(_length(run) for run in measurement.steps))
    figure = Figure(figsize=(WIDTH, 0.8 + 0.42 * len(units)))
    axes = plain_axes(figure, ink)
    axes.grid(False, axis="y")
    begin = 0
    for (number, _), run in zip(accelerator_steps(data.program), measurement.steps, strict=True):
        layers = layers_by_command(data.program, number)
        if begin:
            axes.axvline(begin, color=ink.strong, lw=0.8, ls=(0, (3, 3)))
        for row, unit in enumerate(units):
            own = sorted((event.start, event.end, event.offset) for event in run.events if event.unit == unit)
            pieces = ((start, end, layers.get(offset // COMMAND_BYTES, -1)) for start, end, offset in own)
            for start, end, layer in joined_commands(pieces, ceil(total * TIMELINE_DETAIL)):
                colour = ink.faint if layer < 0 else PALETTE[layer % len(PALETTE)]
                axes.broken_barh([(begin + start, end - start)], (row - 0.38, 0.76), facecolors=colour)
                if unit in ("EXECUTE", "DRAIN") and layer >= 0 and end - start > 0.016 * total:
                    centre = begin + (start + end) / 2
                    axes.text(centre, row, str(layer + 1), ha="center", va="center", fontsize=7, color=ink.strong)
        begin += _length(run)
    axes.set_yticks(range(len(units)), units)
    axes.set_ylim(len(units) - 0.5, -0.5)
    axes.set_xlim(0, total)
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_xlabel("cycle")
    return figure


def _length(run: StepStatistics) -> int:
    return max([run.cycles or 0, *(event.end for event in run.events)])


def joined_commands(pieces: Iterable[tuple[int, int, int]], gap: int) -> list[tuple[int, int, int]]:
    """Join commands of one layer `(start, end, layer)` that follow each other closely.

    Where commands overlap, the older one is at work: the younger begins at its end.
    """
    joined: list[tuple[int, int, int]] = []
    for start, end, layer in pieces:
        if joined:
            before, reached, same = joined[-1]
            start = max(start, reached)
            if same == layer and start - reached <= gap:
                joined[-1] = before, max(end, reached), layer
                continue
        if end > start:
            joined.append((start, end, layer))
    return joined


def _rate(layer: Layer) -> float | None:
    return layer.rate(layer.cycles or layer.array)


def _rate_source(data: ReportData) -> str:
    if any(layer.measured for layer in data.layers):
        return "measured"
    return "predicted" if any(layer.predicted for layer in data.layers) else "if nothing stalls"


def _weight(layer: Layer) -> int:
    return layer.cycles or layer.array or 1


def _apart(points: list[_Point], width: float, height: float) -> list[_Point]:
    """Those points whose numbers can be read: of two that lie close, the one that takes longer.

    width, height: of the axes, as logarithms of the largest value over the smallest.
    """
    chosen: list[_Point] = []
    for point in sorted(points, key=lambda item: (-_weight(item[0]), item[0].number)):
        _, x, y = point
        if all(abs(log(x / a)) > 0.022 * width or abs(log(y / b)) > 0.035 * height for _, a, b in chosen):
            chosen.append(point)
    return chosen
