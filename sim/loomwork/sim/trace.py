# SPDX-License-Identifier: Apache-2.0
"""The timeline of a run as Chrome trace JSON, which Perfetto and chrome://tracing open.

Format: "Trace Event Format", complete events (`"ph": "X"`); one cycle is shown as one microsecond.
"""

from collections.abc import Sequence
from typing import Any

from loomwork.arch.command import Command, decode_program
from loomwork.arch.isa import COMMAND_BYTES
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.sim.backend import StepStatistics


def chrome_trace(program: Program, statistics: Sequence[StepStatistics]) -> dict[str, Any]:
    """One image's timeline: a process per accelerator step (its number in the program), a track per unit, a slice
    per command.

    statistics: of one image, one entry per accelerator step, from a backend that traces. Slices are named by the
    layer when the program's report knows it, and carry the command's operands.
    """
    steps = [(number, step) for number, step in enumerate(program.steps) if isinstance(step, AcceleratorStep)]
    events: list[dict[str, Any]] = []
    for (process, step), run in zip(steps, statistics, strict=True):
        commands = decode_program(step.commands)
        layers = _layers(program, process)
        tracks = {unit: index for index, unit in enumerate(dict.fromkeys(event.unit for event in run.events))}
        events.append(_name("process_name", process, 0, f"step {process} (accelerator)"))
        events.extend(_name("thread_name", process, track, unit) for unit, track in tracks.items())
        for event in run.events:
            index = event.offset // COMMAND_BYTES
            events.append(
                {
                    "ph": "X",
                    "pid": process,
                    "tid": tracks[event.unit],
                    "ts": event.start,
                    "dur": event.end - event.start,
                    "name": _title(commands[index], layers.get(index)),
                    "args": {"command": event.offset, **commands[index].operands},
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _title(command: Command, layer: str | None) -> str:
    return f"{command.mnemonic} {layer}" if layer else command.mnemonic


def _layers(program: Program, number: int) -> dict[int, str]:
    """Layer names by command index, as far as the compiler's report gives them."""
    return {
        index: layer["name"]
        for layer in program.report.get("layers", ())
        if layer.get("step") == number
        for index in layer.get("commands", ())
    }


def _name(kind: str, process: int, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": track, "name": kind, "args": {"name": name}}
