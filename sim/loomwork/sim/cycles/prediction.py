# SPDX-License-Identifier: Apache-2.0
"""Puts the units together and asks them when they do what."""

from collections.abc import Sequence
from dataclasses import replace as replaced

from loomwork.arch.config import Config
from loomwork.arch.isa import Unit
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.rtl.dispatch import ENGINES
from loomwork.rtl.fetch import PREFETCH_BEATS
from loomwork.sim.backend import RunError
from loomwork.sim.cycles.commands import Step, by_unit, read_commands
from loomwork.sim.cycles.convolution import Shape, shape_of
from loomwork.sim.cycles.drain import Drain
from loomwork.sim.cycles.estimate import estimate
from loomwork.sim.cycles.execute import Execute
from loomwork.sim.cycles.lanes import Dispatcher, Lane
from loomwork.sim.cycles.outcome import Prediction, outcome, require_end
from loomwork.sim.cycles.reads import CHECK_CYCLES, ReadBus, Reader
from loomwork.sim.cycles.timeline import Clock
from loomwork.sim.cycles.transfers import Load, Store, Stream
from loomwork.sim.cycles.walk import Walk
from loomwork.sim.cycles.words import words_of
from loomwork.sim.memory import MemoryTiming


EXACT_PASSES = 20_000
"""The most passes of the array that are predicted exactly, at some 25 microseconds each."""


def predict(
    step: AcceleratorStep, config: Config, timing: MemoryTiming | None = None, *, exact: bool | None = None
) -> Prediction:
    """Predict one run of a program of legal commands.

    timing: of the external memory, which is taken not to stall. exact: whether by the exact model or by the estimate;
    None leaves that to the work, up to EXACT_PASSES. Raises RunError when the program never ends, IsaError when there
    is no END, or something that is no command before it.
    """
    timing = timing or MemoryTiming()
    commands = read_commands(step.commands)
    shapes = [shape_of(command, config) for command in commands if command.unit is Unit.EXECUTE]
    if exact is None:
        exact = _passes(shapes) <= EXACT_PASSES
    if not exact:
        try:
            return estimate(commands, shapes, config, timing)
        except RunError:
            pass  # that is not for an estimate to say
    return _predict_exactly(step, commands, shapes, config, timing)


def predict_program(
    program: Program, timing: MemoryTiming | None = None, *, exact: bool | None = None
) -> list[Prediction]:
    """Predict every accelerator step of a program, in order; all exactly, or all by the estimate."""
    steps = [step for step in program.steps if isinstance(step, AcceleratorStep)]
    return [predict(step, program.config, timing, exact=exact) for step in steps]


def _passes(shapes: Sequence[Shape]) -> int:
    return sum(shape.blocks * len(shape.segments) for shape in shapes)


def _predict_exactly(
    step: AcceleratorStep, commands: Sequence[Step], shapes: Sequence[Shape], config: Config, timing: MemoryTiming
) -> Prediction:
    clock = Clock()
    lists = by_unit(commands)
    lanes = {unit: Lane(clock, unit, lists[unit], config.queue_depth) for unit in ENGINES}
    for lane in lanes.values():
        lane.connect(lanes)
    bus = ReadBus(clock, timing.latency)
    fetched = Reader(clock, replaced(config, stream_beats=PREFETCH_BEATS), bus, PREFETCH_BEATS)
    loaded = Reader(clock, config, bus, config.stream_beats)
    streamed = Reader(clock, config, bus, config.stream_beats)
    dispatcher = Dispatcher(config, commands, lanes, fetched)
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
    require_end(lanes)
    counters = {
        "array_active": execute.active,
        "execute_wait_weights": execute.waited_weights,
        "execute_wait_accumulator": execute.waited_accumulator,
        "drain_wait_accumulator": drain.waited_accumulator,
        "drain_wait_bank": drain.waited_bank,
        "read_beats": bus.beats,
        "write_beats": store.beats,
    }
    return outcome(lanes, dispatcher, max(bus.idle, store.idle), counters, exact=True)
