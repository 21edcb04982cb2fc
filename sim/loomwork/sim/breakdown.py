# SPDX-License-Identifier: Apache-2.0
"""Where the cycles of a run went: what each unit did, from the counters of the core and the commands it was given.

The counters tell when a unit runs a command, waits for a ticket, and what EXECUTE and DRAIN miss in between. How many
beats LOAD, STREAM and STORE move is in their commands; so the cycles in which they run and move nothing are known
without a counter of their own, and what no counter claims is time without a command.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loomwork.arch.command import Command, decode_program
from loomwork.arch.config import Config
from loomwork.arch.isa import Unit
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.sim.backend import StepStatistics
from loomwork.sim.timeline import accelerator_steps

WORK, WAIT, IDLE = "work", "wait", "idle"
"""What a cycle was to a unit."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of a unit's cycles. kind: WORK, WAIT or IDLE. what: in plain words."""

    kind: str
    what: str
    cycles: int


@dataclass(frozen=True, kw_only=True)
class UnitTime:
    """A unit's cycles, cut into parts that add up to the cycles of the run."""

    unit: str
    parts: tuple[Part, ...]


def breakdown(program: Program, statistics: Iterable[StepStatistics]) -> list[UnitTime]:
    """What each unit, the fetch and both channels of the bus did, over all accelerator steps.

    statistics: of one image, one entry per accelerator step, with the counters of `arch.registers.COUNTERS`. DRAIN can
    wait for a block and for a bank in one cycle; such a cycle is counted to the block.
    """
    totals: dict[str, dict[tuple[str, str], int]] = {}
    for (_, step), run in zip(accelerator_steps(program), statistics, strict=True):
        for unit, parts in _step(program.config, step, run.counters).items():
            into = totals.setdefault(unit, {})
            for key, cycles in parts.items():
                into[key] = into.get(key, 0) + cycles
    return [
        UnitTime(unit=unit, parts=tuple(Part(kind=kind, what=what, cycles=n) for (kind, what), n in parts.items()))
        for unit, parts in totals.items()
    ]


def command_beats(config: Config, command: Command) -> int:
    """Beats that a command moves over the bus: reads of LOAD and STREAM, writes of STORE, 0 for others."""
    match command.insn.unit:
        case Unit.STREAM:
            # Rows of the array: `cols` bytes each.
            return -(-command["words"] * config.cols // config.bus_bytes)
        case Unit.LOAD | Unit.STORE:
            return command["rows"] * command["words"] * config.rows // config.bus_bytes
        case _:
            return 0


def _beats(config: Config, step: AcceleratorStep) -> dict[Unit, int]:
    """Beats by unit. What else is read are the commands themselves."""
    beats = dict.fromkeys(Unit, 0)
    for command in decode_program(step.commands):
        beats[command.insn.unit] += command_beats(config, command)
    return beats


def _step(config: Config, step: AcceleratorStep, counts: Mapping[str, int]) -> dict[str, dict[tuple[str, str], int]]:
    cycles = counts["cycles"]
    beats = _beats(config, step)
    return {
        "LOAD": _mover(cycles, counts["load_busy"], counts["load_wait_ticket"], beats[Unit.LOAD], "bus"),
        "STREAM": _mover(cycles, counts["stream_busy"], 0, beats[Unit.STREAM], "room in the weight queue, or bus"),
        "EXECUTE": _parts(
            cycles,
            {
                (WORK, "pixel enters the array"): counts["array_active"],
                (WAIT, "weights"): counts["execute_wait_weights"],
                (WAIT, "accumulator half"): counts["execute_wait_accumulator"],
            },
            (WORK, "begin and end of commands"),
            counts["execute_busy"],
            counts["execute_wait_ticket"],
        ),
        "DRAIN": _parts(
            cycles,
            {
                (WAIT, "finished sums"): counts["drain_wait_accumulator"],
                (WAIT, "scratchpad bank"): counts["drain_wait_bank"],
            },
            (WORK, "requantize, pool, write"),
            counts["drain_busy"],
            counts["drain_wait_ticket"],
        ),
        "STORE": _mover(cycles, counts["store_busy"], counts["store_wait_ticket"], beats[Unit.STORE], "bus"),
        "fetch": {
            (WAIT, "room in a unit's queue"): counts["fetch_wait_queue"],
            (IDLE, "fetching, or nothing to do"): cycles - counts["fetch_wait_queue"],
        },
        "bus, reads": {
            (WORK, "beats of LOAD"): beats[Unit.LOAD],
            (WORK, "beats of STREAM"): beats[Unit.STREAM],
            (WORK, "beats of commands"): counts["read_beats"] - beats[Unit.LOAD] - beats[Unit.STREAM],
            (IDLE, "no beat"): cycles - counts["read_beats"],
        },
        "bus, writes": {
            (WORK, "beats of STORE"): counts["write_beats"],
            (IDLE, "no beat"): cycles - counts["write_beats"],
        },
    }


def _mover(cycles: int, busy: int, ticket: int, beats: int, waits_for: str) -> dict[tuple[str, str], int]:
    """A unit that moves bytes over the bus, one beat per cycle."""
    return {
        (WORK, "beat moves"): min(beats, busy),
        (WAIT, waits_for): max(busy - beats, 0),
        (WAIT, "ticket"): ticket,
        (IDLE, "no command"): cycles - busy - ticket,
    }


def _parts(
    cycles: int, counted: Mapping[tuple[str, str], int], rest: tuple[str, str], busy: int, ticket: int
) -> dict[tuple[str, str], int]:
    """A unit of whose busy cycles some are counted by what happens; where causes coincide, the first one counts."""
    left = busy
    parts: dict[tuple[str, str], int] = {}
    for key, count in counted.items():
        parts[key] = min(count, left)
        left -= parts[key]
    return {**parts, rest: left, (WAIT, "ticket"): ticket, (IDLE, "no command"): cycles - busy - ticket}
