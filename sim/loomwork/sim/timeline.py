# SPDX-License-Identifier: Apache-2.0
"""Which layer the engine works on, and when: the events of a traced run, joined with the compiler's report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loomwork.arch.isa import COMMAND_BYTES, Unit
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.sim.backend import Event, StepStatistics

COMPUTE = (Unit.EXECUTE.name, Unit.DRAIN.name)
"""Units that compute a layer; the others bring and take its bytes, often long before or after."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The cycles, since `start` of the step, from the first to the last command of a layer.

    layer: index in report["layers"].
    """

    layer: int
    start: int
    end: int


def accelerator_steps(program: Program) -> list[tuple[int, AcceleratorStep]]:
    """The steps that run on the engine, with their numbers in the program; statistics come in this order."""
    return [(number, step) for number, step in enumerate(program.steps) if isinstance(step, AcceleratorStep)]


def layers_by_command(program: Program, step: int) -> dict[int, int]:
    """Index in report["layers"] by the number of a command within `step`, as far as the report tells."""
    return {
        command: index
        for index, layer in enumerate(program.report.get("layers", ()))
        if layer.get("step") == step
        for command in layer.get("commands", ())
    }


def layer_spans(events: Iterable[Event], layers: Mapping[int, int], units: Sequence[str]) -> list[Span]:
    """When `units` work on each layer, by layer; layers for which they do nothing are left out.

    layers: as from `layers_by_command`.
    """
    spans: dict[int, tuple[int, int]] = {}
    for event in events:
        layer = layers.get(event.offset // COMMAND_BYTES)
        if layer is not None and event.unit in units:
            start, end = spans.get(layer, (event.start, event.end))
            spans[layer] = (min(start, event.start), max(end, event.end))
    return [Span(layer=layer, start=start, end=end) for layer, (start, end) in sorted(spans.items())]


def layer_cycles(program: Program, statistics: Sequence[StepStatistics]) -> dict[int, int]:
    """Measured cycles of each layer, by its index in report["layers"]; they add up to the cycles of the steps.

    A layer takes the time from the end of the layer before, or from `start`, to the end of its last EXECUTE or DRAIN
    command; what comes after the last one of a step, up to `done`, is counted to it.
    statistics: of one image, one entry per accelerator step. Empty for steps that were not traced.
    """
    cycles: dict[int, int] = {}
    for (number, _), run in zip(accelerator_steps(program), statistics, strict=True):
        spans = layer_spans(run.events, layers_by_command(program, number), COMPUTE)
        reached = 0
        for span in spans:
            cycles[span.layer] = max(span.end - reached, 0)
            reached = max(reached, span.end)
        if spans and run.cycles is not None:
            cycles[spans[-1].layer] += run.cycles - reached
    return cycles


def lanes(intervals: Sequence[tuple[int, int]]) -> list[int]:
    """A lane for each interval `(start, end)`, so that those in one lane do not overlap: the lowest that is free.

    intervals: ordered by start.
    """
    free_from: list[int] = []
    chosen: list[int] = []
    for start, end in intervals:
        lane = next((lane for lane, free in enumerate(free_from) if free <= start), len(free_from))
        if lane == len(free_from):
            free_from.append(end)
        free_from[lane] = end
        chosen.append(lane)
    return chosen
