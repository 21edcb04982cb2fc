# SPDX-License-Identifier: Apache-2.0
"""Puts the units together and asks them when they do what."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced

from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, TICKET_UNITS, Unit
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.rtl.dispatch import ENGINES
from loomwork.rtl.fetch import PREFETCH_BEATS
from loomwork.sim.backend import Event, RunError
from loomwork.sim.cycles.commands import by_unit, read_commands
from loomwork.sim.cycles.convolution import shape_of
from loomwork.sim.cycles.drain import Drain
from loomwork.sim.cycles.execute import Execute
from loomwork.sim.cycles.lanes import Dispatcher, Lane
from loomwork.sim.cycles.reads import CHECK_CYCLES, ReadBus, Reader
from loomwork.sim.cycles.timeline import Clock
from loomwork.sim.cycles.transfers import Load, Store, Stream
from loomwork.sim.cycles.walk import Walk
from loomwork.sim.cycles.words import words_of
from loomwork.sim.memory import MemoryTiming


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What an accelerator step will cost.

    counters: the performance counters of the core, by name (arch/registers.py), as far as they are predicted.
    events: begin and end of every command, as the trace of a backend shows them.
    """

    counters: Mapping[str, int]
    events: Sequence[Event]

    @property
    def cycles(self) -> int:
        """Cycles from `start` to `done`."""
        return self.counters["cycles"]


def predict(step: AcceleratorStep, config: Config, timing: MemoryTiming | None = None) -> Prediction:
    """Predict one run of a program of legal commands.

    timing: of the external memory, which is taken not to stall. Raises RunError when the program never ends, IsaError
    when there is no END, or something that is no command before it.
    """
    timing = timing or MemoryTiming()
    clock = Clock()
    commands = read_commands(step.commands)
    lists = by_unit(commands)
    lanes = {unit: Lane(clock, unit, lists[unit], config.queue_depth) for unit in ENGINES}
    for lane in lanes.values():
        lane.connect(lanes)
    bus = ReadBus(clock, timing.latency)
    fetched = Reader(clock, replaced(config, stream_beats=PREFETCH_BEATS), bus, PREFETCH_BEATS)
    loaded = Reader(clock, config, bus, config.stream_beats)
    streamed = Reader(clock, config, bus, config.stream_beats)
    dispatcher = Dispatcher(config, commands, lanes, fetched)
    shapes = [shape_of(command, config) for command in lists[Unit.EXECUTE]]
    stream = Stream(config, lanes[Unit.STREAM], streamed)
    words = words_of(config, streamed, [command.operands["words"] for command in lists[Unit.STREAM]])
    walk = Walk(config, lists[Unit.EXECUTE], shapes)
    execute = Execute(clock, config, lanes[Unit.EXECUTE], shapes, words, walk)
    drain = Drain(clock, config, lanes[Unit.DRAIN], execute, walk)
    load = Load(clock, config, lanes[Unit.LOAD], loaded, drain.writes)
    store = Store(clock, config, lanes[Unit.STORE], timing.latency, (walk.reads, drain.reads))
    fetched.offer(CHECK_CYCLES, 0, len(step.commands))
    for process in (
        *(dispatcher.run(), load.run(), load.finish(), stream.run(), stream.finish()),
        *(execute.take_commands(), execute.run(), drain.run(), store.run()),
        *(lane.shift() for lane in lanes.values()),
    ):
        clock.start(process)
    clock.run()
    for lane in lanes.values():
        if len(lane.done.times) < len(lane.commands):
            command = lane.commands[len(lane.done.times)]
            raise RunError(f"the program never ends: command {command.index} ({command.mnemonic}) is never finished")
    finished = max((lane.done.times[-1] + 1 for lane in lanes.values() if lane.commands), default=0)
    cycles = max(dispatcher.end, finished, bus.idle, store.idle) + 1
    return Prediction(
        counters={
            "cycles": cycles,
            **{f"{unit.name.lower()}_busy": lane.usage()[0] for unit, lane in lanes.items()},
            **{f"{unit.name.lower()}_wait_ticket": lanes[unit].usage()[1] for unit in TICKET_UNITS},
            "array_active": execute.active,
            "execute_wait_weights": execute.waited_weights,
            "execute_wait_accumulator": execute.waited_accumulator,
            "drain_wait_accumulator": drain.waited_accumulator,
            "drain_wait_bank": drain.waited_bank,
            "fetch_wait_queue": dispatcher.waited,
            "read_beats": bus.beats,
            "write_beats": store.beats,
        },
        events=_events(lanes.values()),
    )


def predict_program(program: Program, timing: MemoryTiming | None = None) -> list[Prediction]:
    """Predict every accelerator step of a program, in order."""
    return [predict(step, program.config, timing) for step in program.steps if isinstance(step, AcceleratorStep)]


def _events(lanes: Iterable[Lane]) -> list[Event]:
    return sorted(
        (
            Event(unit=lane.unit.name, offset=command.index * COMMAND_BYTES, start=start, end=done)
            for lane in lanes
            for command, start, done in zip(lane.commands, lane.started.times, lane.done.times, strict=True)
        ),
        key=lambda event: (event.start, event.offset),
    )
