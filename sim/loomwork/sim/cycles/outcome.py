# SPDX-License-Identifier: Apache-2.0
"""What a model of the units comes to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, TICKET_UNITS, Unit
from loomwork.sim.backend import Event, RunError
from loomwork.sim.cycles.lanes import Dispatcher, Lane


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What an accelerator step will cost.

    exact: by the model that follows the RTL cycle by cycle; else by the estimate, which is near (docs/cycle-model.md).
    counters: the performance counters of the core, by name (arch/registers.py), as far as they are predicted: the
    estimate leaves out `drain_wait_bank`.
    events: begin and end of every command, as the trace of a backend shows them.
    """

    exact: bool
    counters: Mapping[str, int]
    events: Sequence[Event]

    @property
    def cycles(self) -> int:
        """Cycles from `start` to `done`."""
        return self.counters["cycles"]


def require_end(lanes: Mapping[Unit, Lane]) -> None:
    """Raise RunError if a command is never finished."""
    for lane in lanes.values():
        if len(lane.done.times) < len(lane.commands):
            command = lane.commands[len(lane.done.times)]
            raise RunError(f"the program never ends: command {command.index} ({command.mnemonic}) is never finished")


def outcome(
    config: Config,
    lanes: Mapping[Unit, Lane],
    dispatcher: Dispatcher,
    idle: int,
    others: Mapping[str, int],
    *,
    exact: bool,
) -> Prediction:
    """The prediction when all commands are finished.

    idle: cycle from which on nothing is under way on the bus. others: counters that lanes and dispatcher do not have.
    """
    ended = config.deep_pipeline  # a cycle later
    finished = max((lane.done.times[-1] + 1 for lane in lanes.values() if lane.commands), default=0)
    usages = {unit: lane.usage() for unit, lane in lanes.items()}
    counters = {
        "cycles": max(max(dispatcher.end, finished) + ended, idle) + 1,
        **{f"{unit.name.lower()}_busy": busy for unit, (busy, _) in usages.items()},
        **{f"{unit.name.lower()}_wait_ticket": usages[unit][1] for unit in TICKET_UNITS},
        **others,
        "fetch_wait_queue": dispatcher.waited,
    }
    return Prediction(exact=exact, counters=counters, events=_events(lanes.values()))


def _events(lanes: Iterable[Lane]) -> list[Event]:
    return sorted(
        (
            Event(unit=lane.unit.name, offset=command.index * COMMAND_BYTES, start=start, end=done)
            for lane in lanes
            for command, start, done in zip(lane.commands, lane.started.times, lane.done.times, strict=True)
        ),
        key=lambda event: (event.start, event.offset),
    )
