# SPDX-License-Identifier: Apache-2.0
"""The timeline of a run as Chrome trace JSON, which Perfetto and chrome://tracing open.

Format: "Trace Event Format" (Google, 2016): complete events (`"ph": "X"`), counters (`"C"`) and metadata (`"M"`); one
cycle is shown as one microsecond. Complete events of one thread must nest, and commands of one unit overlap as they
like: a unit has as many tracks as it ever has commands at once. Perfetto finds threads by `tid` alone and treats a
thread whose `tid` is its `pid`, and process 0, specially: each `tid` is used once in a file, and numbers begin at 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loomwork.arch.command import Command, decode_program
from loomwork.arch.isa import COMMAND_BYTES, Unit
from loomwork.arch.program import Program
from loomwork.arch.program_file import program_fingerprint
from loomwork.sim.backend import Event, StepStatistics
from loomwork.sim.timeline import COMPUTE, Span, accelerator_steps, lanes, layer_spans, layers_by_command

UNITS = tuple(unit.name for unit in (Unit.LOAD, Unit.STREAM, Unit.EXECUTE, Unit.DRAIN, Unit.STORE))
"""Tracks from the top, in the order in which data passes the units."""
GROUPS = {
    "layers: compute": COMPUTE,
    "layers: transfer": (Unit.LOAD.name, Unit.STREAM.name, Unit.STORE.name),
}
"""Tracks with one slice per layer, and the units whose commands they cover."""
TRACKS_PER_PROCESS = 1000

Json = dict[str, Any]


def chrome_trace(program: Program, statistics: Sequence[StepStatistics]) -> Json:
    """One image's timeline: a process per accelerator step (1 + its number in the program); in it, tracks with a slice
    per layer, tracks of each unit with a slice per command, and counters of array and scratchpad.

    statistics: of one image, one entry per accelerator step, from a backend that traces. Slices are named by the
    layer when the program's report knows it; a command's carries its operands. "otherData" holds the program's
    fingerprint and, per step, the counters.
    """
    events: list[Json] = []
    for (number, step), run in zip(accelerator_steps(program), statistics, strict=True):
        process = number + 1
        layers = layers_by_command(program, number)
        events.append(_metadata("process_name", process, None, name=f"step {number} (accelerator)"))
        events.append(_metadata("process_sort_index", process, None, sort_index=process))
        tracks = _Tracks(process)
        for title, units in GROUPS.items():
            spans = layer_spans(run.events, layers, units)
            events += tracks.add(title, [_layer_slice(program, span) for span in spans])
        commands = decode_program(step.commands)
        names = {index: str(program.report["layers"][layer]["name"]) for index, layer in layers.items()}
        for unit in dict.fromkeys((*UNITS, *(event.unit for event in run.events))):
            own = [event for event in run.events if event.unit == unit]
            events += tracks.add(unit, [_command_slice(event, commands, names) for event in own])
        events += _utilization(program, process, run.events, layers)
        events += _occupied(program, number, run.events, layers)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "program": program_fingerprint(program),
            "configuration": program.config.name,
            "counters": [dict(run.counters) for run in statistics],
        },
    }


class _Tracks:
    """Hands out the tracks of one process from the top down."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._count = 0

    def add(self, title: str, slices: Iterable[Json]) -> list[Json]:
        """Put slices on tracks called `title`, as many as it takes for none to overlap; none for no slice."""
        ordered = sorted(slices, key=lambda piece: (piece["ts"], piece["ts"] + piece["dur"]))
        chosen = lanes([(piece["ts"], piece["ts"] + piece["dur"]) for piece in ordered])
        first = self._process * TRACKS_PER_PROCESS + self._count + 1
        events: list[Json] = []
        for lane in range(max(chosen, default=-1) + 1):
            self._count += 1
            name = title if lane == 0 else f"{title} +{lane}"
            events.append(_metadata("thread_name", self._process, first + lane, name=name))
            events.append(_metadata("thread_sort_index", self._process, first + lane, sort_index=self._count))
        for piece, lane in zip(ordered, chosen, strict=True):
            events.append({**piece, "pid": self._process, "tid": first + lane})
        return events


def _command_slice(event: Event, commands: Sequence[Command], names: Mapping[int, str]) -> Json:
    index = event.offset // COMMAND_BYTES
    command, layer = commands[index], names.get(index)
    return {
        "ph": "X",
        "cat": "command",
        "ts": event.start,
        "dur": event.end - event.start,
        "name": command.mnemonic if layer is None else f"{command.mnemonic} {layer}",
        "args": {"command": event.offset, **command.operands},
    }


def _layer_slice(program: Program, span: Span) -> Json:
    layer = program.report["layers"][span.layer]
    facts = {key: layer[key] for key in ("operator", "macs", "tiles", "streamed_bytes", "bound_cycles") if key in layer}
    return {
        "ph": "X",
        "cat": "layer",
        "ts": span.start,
        "dur": span.end - span.start,
        "name": str(layer["name"]),
        "args": {"layer": span.layer, **facts},
    }


def _utilization(program: Program, process: int, events: Sequence[Event], layers: Mapping[int, int]) -> list[Json]:
    """The share of the multipliers that each layer uses while EXECUTE works on it."""
    counters: list[Json] = []
    reached = 0
    for span in layer_spans(events, layers, (Unit.EXECUTE.name,)):
        # A layer's first command may be taken while the last one of the layer before still runs.
        start = max(span.start, reached)
        if start > reached:
            counters.append(_counter("array utilization", process, reached, percent=0))
        macs = program.report["layers"][span.layer].get("macs", 0)
        used = macs / (max(span.end - start, 1) * program.config.macs_per_cycle)
        counters.append(_counter("array utilization", process, start, percent=round(100 * used, 1)))
        reached = max(span.end, reached)
    if counters:
        counters.append(_counter("array utilization", process, reached, percent=0))
    return counters


def _occupied(program: Program, step: int, events: Sequence[Event], layers: Mapping[int, int]) -> list[Json]:
    """Words of each scratchpad bank that hold a feature map, as layers come and go."""
    numbers = [index for index, layer in enumerate(program.report.get("layers", ())) if layer.get("step") == step]
    spans = {span.layer: span for span in layer_spans(events, layers, COMPUTE)}
    changes: dict[int, int] = {}
    for entry in program.report.get("memory", ()):
        if entry.get("step") != step:
            continue
        try:
            first, last = spans[numbers[entry["first_layer"]]], spans[numbers[entry["last_layer"]]]
        except (IndexError, KeyError):
            continue  # a layer without a command, or that was not traced
        for cycle, words in ((first.start, entry["words"]), (last.end, -entry["words"])):
            changes[cycle] = changes.get(cycle, 0) + words
    counters: list[Json] = []
    words = 0
    for cycle, change in sorted(changes.items()):
        words += change
        counters.append(_counter("scratchpad", step + 1, cycle, words=words))
    return counters


def _counter(name: str, process: int, cycle: int, **values: float) -> Json:
    return {"ph": "C", "pid": process, "ts": cycle, "name": name, "args": values}


def _metadata(kind: str, process: int, track: int | None, **values: str | int) -> Json:
    where = {"pid": process} if track is None else {"pid": process, "tid": track}
    return {"ph": "M", **where, "name": kind, "args": values}
