# SPDX-License-Identifier: Apache-2.0
"""What was measured on a program: read back from the files of `loomwork run`, or measured now."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from loomwork.arch.isa import COMMAND_BYTES
from loomwork.arch.program import Program
from loomwork.arch.program_file import program_fingerprint
from loomwork.arch.registers import COUNTERS
from loomwork.cli.output import UsageError
from loomwork.cli.report_data import Measurement
from loomwork.sim.backend import Event, StepStatistics
from loomwork.sim.memory import MemoryTiming
from loomwork.sim.timeline import accelerator_steps


def measure(program: Program, *, latency: int, report: Callable[[str], None] | None = None) -> Measurement:
    """Run one random image on the RTL, with a trace. Raises what `run_program` and `build_library` raise."""
    from loomwork.cli.benchmark import random_inputs
    from loomwork.sim.backend import run_program
    from loomwork.sim.verilator import VerilatorBackend

    backend = VerilatorBackend(timing=MemoryTiming(latency=latency), trace=True, report=report)
    result = run_program(program, random_inputs(program, 1), backend)
    return Measurement(
        cycles=result.cycles_per_image,
        steps=result.statistics[0],
        origin=f"measured on the RTL in Verilator, one random input, {latency} cycles of read latency",
    )


def read_measurement(program: Program, statistics: Path | None, trace: Path | None) -> Measurement | None:
    """What `loomwork run` wrote with --json and with --trace; None when neither is given.

    Counters are those of the statistics' median image, or else of the trace. Raises UsageError when a file is no such
    file, belongs to another program, or was made without a clock; OSError when it cannot be read.
    """
    cycles: list[int] | None = None
    counters: list[dict[str, int]] = []
    events: list[list[Event]] = [[] for _ in accelerator_steps(program)]
    if trace is not None:
        events, counters = _read_trace(program, trace)
    if statistics is not None:
        cycles, counters = _read_statistics(program, statistics)
    if cycles is None and trace is None:
        return None
    if cycles is None:
        cycles = [sum(step["cycles"] for step in counters)]
    images = "one image" if len(cycles) == 1 else f"median of {len(cycles)} images"
    files = " and ".join(path.name for path in (statistics, trace) if path is not None)
    steps = [StepStatistics(counters=own, events=seen) for own, seen in zip(counters, events, strict=True)]
    return Measurement(cycles=cycles, steps=steps, origin=f"measured on the RTL ({files}; {images})")


def _read_statistics(program: Program, path: Path) -> tuple[list[int], list[dict[str, int]]]:
    """Cycles of each image; counters of each step of the image with the median of cycles."""
    root = _read(path)
    what = f"{path} is not a statistics file of `loomwork run --json`"
    if "cycles_per_image" not in root:
        raise UsageError(f"{what}: it has no cycles_per_image")
    _check_program(program, path, root)
    if root["cycles_per_image"] is None:
        raise UsageError(f"{path} holds no cycles: make it with `loomwork run --backend verilator`, which has a clock")
    try:
        cycles = [int(value) for value in root["cycles_per_image"]]
        middle = sorted(range(len(cycles)), key=cycles.__getitem__)[(len(cycles) - 1) // 2]
        return cycles, _counters(program, root["steps"][middle])
    except (IndexError, KeyError, TypeError, ValueError):
        raise UsageError(f"{what}: its cycles or counters are incomplete") from None


def _read_trace(program: Program, path: Path) -> tuple[list[list[Event]], list[dict[str, int]]]:
    """Events and counters of each accelerator step."""
    root = _read(path)
    what = f"{path} is not a trace of `loomwork run --trace`"
    if "traceEvents" not in root:
        raise UsageError(f"{what}: it has no traceEvents")
    other = root.get("otherData")
    _check_program(program, path, cast(Mapping[str, Any], other) if isinstance(other, dict) else {})
    try:
        items = cast(list[dict[str, Any]], root["traceEvents"])
        tracks = {item["tid"]: item["args"]["name"] for item in items if item["name"] == "thread_name"}
        events: dict[int, list[Event]] = {number: [] for number, _ in accelerator_steps(program)}
        limits = {number: len(step.commands) for number, step in accelerator_steps(program)}
        for item in items:
            if item["ph"] == "X" and item["cat"] == "command":
                step, offset, start = item["pid"] - 1, int(item["args"]["command"]), int(item["ts"])
                if offset % COMMAND_BYTES or not 0 <= offset < limits[step]:
                    raise ValueError
                unit = re.sub(r" \+\d+$", "", tracks[item["tid"]])
                events[step].append(Event(unit=unit, offset=offset, start=start, end=start + int(item["dur"])))
        return list(events.values()), _counters(program, root["otherData"]["counters"])
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{what}: its events or counters are incomplete") from None


def _counters(program: Program, steps: list[dict[str, Any]]) -> list[dict[str, int]]:
    """The counters that this version knows. Raises KeyError, TypeError or ValueError when some are missing."""
    if len(steps) != len(accelerator_steps(program)):
        raise ValueError
    return [{name: int(step[name]) for name, _ in COUNTERS} for step in steps]


def _read(path: Path) -> dict[str, Any]:
    try:
        root = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(root, dict):
        raise UsageError(f"{path} must hold a JSON object, as `loomwork run` writes it")
    return cast(dict[str, Any], root)


def _check_program(program: Program, path: Path, values: Mapping[str, Any]) -> None:
    own, found = program_fingerprint(program), values.get("program")
    if found is None:
        raise UsageError(f"{path} does not say on which program it was measured: make it again with `loomwork run`")
    if found != own:
        raise UsageError(f"{path} was measured on another program ({found}, not {own}): run this one")
