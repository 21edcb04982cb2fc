# SPDX-License-Identifier: Apache-2.0
"""The exact model: puts the units together and asks them when they do what."""

from collections.abc import Sequence
from dataclasses import replace as replaced

from loomwork.arch.config import Config
from loomwork.arch.isa import Unit
from loomwork.rtl.dispatch import ENGINES
from loomwork.rtl.fetch import PREFETCH_BEATS
from loomwork.sim.cycles.commands import Step, by_unit
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.drain import Drain
from loomwork.sim.cycles.execute import Execute
from loomwork.sim.cycles.lanes import Dispatcher, Lane
from loomwork.sim.cycles.outcome import Prediction, outcome, require_end
from loomwork.sim.cycles.reads import CHECK_CYCLES, ReadBus, Reader
from loomwork.sim.cycles.timeline import Clock
from loomwork.sim.cycles.transfers import Load, Store, Stream
from loomwork.sim.cycles.walk import Walk
from loomwork.sim.cycles.words import words_of
from loomwork.sim.memory import MemoryTiming


def predict_exactly(
    commands: Sequence[Step], size: int, shapes: Sequence[Shape | None], config: Config, timing: MemoryTiming
) -> Prediction:
    """What one run of a program takes.

    size: bytes of the program, which fetch reads to their end. shapes: see `shapes_of`. Raises RunError when
    a command is never finished.
    """
    clock = Clock()
    lists = by_unit(commands)
    lanes = {unit: Lane(clock, unit, lists[unit], config.queue_depth) for unit in ENGINES}
    for lane in lanes.values():
        lane.connect(lanes)
    bus = ReadBus(clock, timing.latency)
    fetched = Reader(clock, replaced(config, stream_beats=PREFETCH_BEATS), bus, PREFETCH_BEATS)
    loaded = Reader(clock, config, bus, config.stream_beats)
    streamed = Reader(clock, config, bus, config.stream_beats)
    dispatcher = Dispatcher(clock, config, commands, lanes, fetched)
    stream = Stream(config, lanes[Unit.STREAM], streamed)
    words = words_of(config, streamed, [command.operands["words"] for command in lists[Unit.STREAM]])
    walk = Walk(config, lists[Unit.EXECUTE], shapes)
    execute = Execute(clock, config, lanes[Unit.EXECUTE], shapes, words, walk)
    drain = Drain(clock, config, lanes[Unit.DRAIN], execute, walk)
    load = Load(clock, config, lanes[Unit.LOAD], loaded, drain.writes)
    store = Store(clock, config, lanes[Unit.STORE], timing.latency, (walk.reads, drain.reads))
    fetched.offer(CHECK_CYCLES, 0, size)
    for process in (
        *(dispatcher.decode(), dispatcher.hand_out(), load.run(), load.finish(), stream.run(), stream.finish()),
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
    return outcome(config, lanes, dispatcher, max(bus.idle, store.idle), counters, exact=True)
