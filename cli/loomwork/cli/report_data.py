# SPDX-License-Identifier: Apache-2.0
"""What `loomwork report` shows, gathered: the compiler's report, joined with what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from loomwork.arch.command import decode_program
from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, Unit
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.cli.output import UsageError
from loomwork.compiler.report import short_name
from loomwork.sim.backend import StepStatistics
from loomwork.sim.breakdown import UnitTime, breakdown, command_beats
from loomwork.sim.timeline import accelerator_steps, layer_cycles


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a run cost.

    cycles: of each image, `start` to `done`, over all steps. steps: of one image, one entry per accelerator step; with
    events where the run was traced. origin: where the numbers come from, for the reader.
    """

    cycles: Sequence[int]
    steps: Sequence[StepStatistics]
    origin: str

    @property
    def traced(self) -> bool:
        """Whether there is a timeline."""
        return any(step.events for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A line of the table. number: from 1, in the order of execution. What is not known is None.

    label: its name, shortened. read_bytes, written_bytes: over the bus, by its commands. facts: its entry in the
    compiler's report.
    """

    number: int
    name: str
    label: str
    operator: str
    on_host: bool
    reason: str
    macs: int
    bound: int | None
    array: int | None
    predicted: int | None
    measured: int | None
    read_bytes: int
    written_bytes: int
    facts: Mapping[str, Any]

    @property
    def cycles(self) -> int | None:
        """Measured, or else predicted."""
        return self.predicted if self.measured is None else self.measured

    @property
    def kind(self) -> str:
        """The operator without what is fused to it."""
        return self.operator.split(" ", maxsplit=1)[0]

    def rate(self, cycles: int | None) -> float | None:
        """Multiply-accumulates per cycle, if it takes that many."""
        return self.macs / cycles if cycles and self.macs else None

    def intensity(self) -> float | None:
        """Multiply-accumulates per byte, of the direction of the bus that has more to do."""
        busiest = max(self.read_bytes, self.written_bytes)
        return self.macs / busiest if busiest and self.macs else None


@dataclass(frozen=True, kw_only=True)
class Region:
    """A feature map in the scratchpad.

    label: its name, shortened. shape: height x width x channels. first, last: numbers of the layers between which it
    lives. base, words: where, in words of each bank.
    """

    label: str
    shape: str
    first: int
    last: int
    base: int
    words: int


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that the page and the figures are made from.

    totals: as in the compiler's report. units: where the cycles of each unit went, empty without a measurement.
    """

    program: Program
    model: str
    layers: Sequence[Layer]
    regions: Sequence[Region]
    totals: Mapping[str, Any]
    measurement: Measurement | None
    units: Sequence[UnitTime]

    @property
    def config(self) -> Config:
        """The program's configuration."""
        return self.program.config

    @property
    def predicted(self) -> int | None:
        """Cycles of all layers by the cycle model; None when one is not known."""
        known = [layer.predicted for layer in self.layers if not layer.on_host]
        total = self.totals.get("predicted_cycles")
        return _sum(known) if total is None else total

    @property
    def measured(self) -> int | None:
        """Median cycles of an image."""
        return median_low(self.measurement.cycles) if self.measurement and self.measurement.cycles else None

    @property
    def cycles(self) -> int | None:
        """Measured, or else predicted."""
        return self.predicted if self.measured is None else self.measured

    def utilization(self, macs: int, cycles: int | None) -> float | None:
        """The share of the multipliers that do the network's work; above 1 where dead channels are left out."""
        return macs / (cycles * self.config.macs_per_cycle) if cycles and macs else None


def gather(program: Program, measurement: Measurement | None, *, name: str) -> ReportData:
    """Join a program's report with a measurement.

    name: of the program file. Fields that only some versions of the compiler write may be missing. Raises UsageError
    when the program carries no report.
    """
    report = program.report
    if not report.get("layers"):
        raise UsageError(f"{name} carries no report of its layers: compile the network again with `loomwork compile`")
    measured = layer_cycles(program, measurement.steps) if measurement and measurement.traced else {}
    counted = measurement is not None and all(step.counters for step in measurement.steps)
    return ReportData(
        program=program,
        model=printable(str(report.get("model", name))),
        layers=[_layer(program, index, entry, measured.get(index)) for index, entry in enumerate(report["layers"])],
        regions=_regions(report),
        totals=report.get("totals", {}),
        measurement=measurement,
        units=breakdown(program, measurement.steps) if measurement is not None and counted else (),
    )


def _layer(program: Program, index: int, entry: Mapping[str, Any], measured: int | None) -> Layer:
    read, written = _traffic(program, entry)
    name = printable(str(entry.get("name", f"layer {index + 1}")))
    return Layer(
        number=index + 1,
        name=name,
        label=short_name(name),
        operator=printable(str(entry.get("operator", ""))),
        on_host=entry.get("where") == "host",
        reason=printable(str(entry.get("reason", ""))),
        macs=int(entry.get("macs", 0)),
        bound=entry.get("bound_cycles"),
        array=entry.get("array_cycles"),
        predicted=entry.get("predicted_cycles"),
        measured=measured,
        read_bytes=read,
        written_bytes=written,
        facts=entry,
    )


def _traffic(program: Program, entry: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes that the commands of a layer read and write over the bus."""
    number = entry.get("step")
    step = next((step for index, step in accelerator_steps(program) if index == number), None)
    own = entry.get("commands", ())
    if step is None or not own:
        return 0, 0
    read = written = 0
    for position in own:
        (command,) = decode_program(step.commands[position * COMMAND_BYTES : (position + 1) * COMMAND_BYTES])
        moved = command_beats(program.config, command) * program.config.bus_bytes
        if command.insn.unit is Unit.STORE:
            written += moved
        else:
            read += moved
    return read, written


def _regions(report: Mapping[str, Any]) -> list[Region]:
    """The feature maps of all steps, with layers numbered as in the table; in the order in which they come to life."""
    numbers: dict[int, list[int]] = {}
    for index, entry in enumerate(report["layers"]):
        numbers.setdefault(entry.get("step", 0), []).append(index + 1)
    regions: list[Region] = []
    for entry in report.get("memory", ()):
        own = numbers.get(entry.get("step", 0), [])
        try:
            first, last = own[entry["first_layer"]], own[entry["last_layer"]]
            base, words = int(entry["base"]), int(entry["words"])
        except (IndexError, KeyError, TypeError):
            continue  # a map that does not lie in the scratchpad
        shape = "x".join(str(entry[key]) for key in ("height", "width", "channels") if key in entry)
        label = short_name(printable(str(entry.get("map", ""))))
        regions.append(Region(label=label, shape=shape, first=first, last=last, base=base, words=words))
    return sorted(regions, key=lambda region: (region.first, region.base))


def engine_bytes(program: Program) -> int:
    """Bytes of commands and constants in external memory."""
    steps = [step for step in program.steps if isinstance(step, AcceleratorStep)]
    return sum(len(step.commands) + len(step.constants) for step in steps)


def printable(text: str) -> str:
    """A name as it can be shown: what is neither printable nor a blank becomes a replacement character."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
