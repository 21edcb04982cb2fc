# SPDX-License-Identifier: Apache-2.0
"""The estimate for programs of so much work that the exact model takes too long: its work is that of the blocks."""

from collections.abc import Sequence

from loomwork.arch.config import Config
from loomwork.arch.isa import Unit
from loomwork.rtl.dispatch import ENGINES
from loomwork.sim.cycles.commands import Step, by_unit
from loomwork.sim.cycles.convolution import Shape
from loomwork.sim.cycles.estimate_bus import Fetch, Load, Store, Weights
from loomwork.sim.cycles.estimate_units import Array, Drain
from loomwork.sim.cycles.lanes import Dispatcher, Lane
from loomwork.sim.cycles.outcome import Prediction, outcome, require_end
from loomwork.sim.cycles.timeline import Clock
from loomwork.sim.memory import MemoryTiming


def estimate(
    commands: Sequence[Step], size: int, shapes: Sequence[Shape | None], config: Config, timing: MemoryTiming
) -> Prediction:
    """About what one run of a program takes.

    size: bytes of the program, which fetch reads to their end. shapes: see `shapes_of`. Raises RunError when
    a command is never finished, which may be wrong: a STREAM counts as finished only when the array asks for its last
    words, so that streams far ahead of the array stop each other.
    """
    clock = Clock()
    lists = by_unit(commands)
    lanes = {unit: Lane(clock, unit, lists[unit], config.queue_depth) for unit in ENGINES}
    for lane in lanes.values():
        lane.connect(lanes)
    dispatcher = Dispatcher(clock, config, commands, lanes, Fetch(clock, config, timing.latency))
    weights = Weights(config, lanes[Unit.STREAM], timing.latency)
    array = Array(clock, config, lanes[Unit.EXECUTE], shapes, weights)
    drain = Drain(config, lanes[Unit.DRAIN], array)
    load = Load(config, lanes[Unit.LOAD], weights, timing.latency)
    store = Store(config, lanes[Unit.STORE], array, timing.latency)
    for process in (
        *(dispatcher.decode(), dispatcher.hand_out(), load.run(), weights.run(), array.run(), drain.run(), store.run()),
        *(lane.shift() for lane in lanes.values()),
    ):
        clock.start(process)
    clock.run()
    require_end(lanes)
    streamed = sum(-(-step.operands["words"] * config.cols // config.bus_bytes) for step in lists[Unit.STREAM])
    fetched = -(-size // config.bus_bytes)
    counters = {
        "array_active": array.active,
        "execute_wait_weights": array.waited_weights,
        "execute_wait_accumulator": array.waited_accumulator,
        "drain_wait_accumulator": drain.waited_accumulator,
        "read_beats": fetched + streamed + load.beats,
        "write_beats": store.beats,
    }
    return outcome(config, lanes, dispatcher, store.idle, counters, exact=False)
