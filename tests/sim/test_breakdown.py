# SPDX-License-Identifier: Apache-2.0
"""Where the cycles of each unit went."""

import numpy as np
import pytest

from loomwork.arch.command import Command
from loomwork.arch.config import TINY
from loomwork.arch.isa import Window
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.arch.registers import COUNTERS
from loomwork.compiler.driver import compile_model
from loomwork.sim.backend import StepStatistics, run_program
from loomwork.sim.breakdown import IDLE, WAIT, WORK, breakdown, command_beats
from loomwork.sim.memory import MemoryTiming
from loomwork.sim.verilator import VerilatorBackend
from tests.programs import copy_program, network, two_input_program

# The copy program moves 3 rows of 2 words of 4 bytes, in beats of 4 bytes: 6 beats in, 6 out; 3 commands are 24 beats.
COUNTS = dict.fromkeys((name for name, _ in COUNTERS), 0) | {
    "cycles": 200,
    "load_busy": 50,
    "load_wait_ticket": 3,
    "store_busy": 40,
    "store_wait_ticket": 60,
    "execute_busy": 100,
    "array_active": 30,
    "execute_wait_weights": 20,
    "execute_wait_accumulator": 10,
    "execute_wait_ticket": 25,
    "drain_busy": 70,
    "drain_wait_accumulator": 60,
    "drain_wait_bank": 15,
    "drain_wait_ticket": 5,
    "fetch_wait_queue": 11,
    "read_beats": 30,
    "write_beats": 6,
}


def parts(program: Program, *counts: dict[str, int]) -> dict[str, dict[tuple[str, str], int]]:
    units = breakdown(program, [StepStatistics(counters=each) for each in counts])
    return {unit.unit: {(part.kind, part.what): part.cycles for part in unit.parts} for unit in units}


def test_each_cycle_of_a_unit_has_a_cause():
    found = parts(copy_program(), COUNTS)
    assert found["LOAD"] == {
        (WORK, "beat moves"): 6,
        (WAIT, "bus"): 44,
        (WAIT, "ticket"): 3,
        (IDLE, "no command"): 147,
    }
    assert found["STORE"] == {
        (WORK, "beat moves"): 6,
        (WAIT, "bus"): 34,
        (WAIT, "ticket"): 60,
        (IDLE, "no command"): 100,
    }
    assert found["EXECUTE"] == {
        (WORK, "pixel enters the array"): 30,
        (WAIT, "weights"): 20,
        (WAIT, "accumulator half"): 10,
        (WORK, "begin and end of commands"): 40,
        (WAIT, "ticket"): 25,
        (IDLE, "no command"): 75,
    }
    assert found["fetch"] == {(WAIT, "room in a unit's queue"): 11, (IDLE, "fetching, or nothing to do"): 189}
    assert found["bus, reads"] == {
        (WORK, "beats of LOAD"): 6,
        (WORK, "beats of STREAM"): 0,
        (WORK, "beats of commands"): 24,
        (IDLE, "no beat"): 170,
    }
    assert found["bus, writes"] == {(WORK, "beats of STORE"): 6, (IDLE, "no beat"): 194}


def test_causes_that_coincide_are_counted_once():
    # 60 cycles without a block and 15 without a bank, but only 70 in all: 5 of them were both.
    assert parts(copy_program(), COUNTS)["DRAIN"] == {
        (WAIT, "finished sums"): 60,
        (WAIT, "scratchpad bank"): 10,
        (WORK, "requantize, pool, write"): 0,
        (WAIT, "ticket"): 5,
        (IDLE, "no command"): 125,
    }


def test_steps_are_added_up():
    one, two = parts(copy_program(), COUNTS), parts(two_input_program(), COUNTS, COUNTS)
    assert two == {unit: {key: 2 * cycles for key, cycles in own.items()} for unit, own in one.items()}


@pytest.mark.parametrize(
    ("command", "beats"),
    [
        (Command("LOAD", {"window": Window.INPUTS, "rows": 3, "words": 5}), 15),
        (Command("STORE", {"window": Window.OUTPUTS, "rows": 2, "words": 1}), 2),
        (Command("STREAM", {"words": 7}), 7),
        (Command("END"), 0),
    ],
)
def test_commands_tell_what_they_move(command: Command, beats: int):
    assert command_beats(TINY, command) == beats  # rows, columns and beats of tiny all are 4 bytes


@pytest.mark.parametrize("latency", [3, 150])
def test_the_rtl_moves_what_the_commands_say(latency: int):
    program = compile_model(network(), TINY, name="net")
    images = np.zeros((1, 6, 6, 3), np.int8)
    backend = VerilatorBackend(timing=MemoryTiming(latency=latency))
    (statistics,) = run_program(program, {program.inputs[0]: images}, backend).statistics
    (step,) = [step for step in program.steps if isinstance(step, AcceleratorStep)]
    units = breakdown(program, statistics)
    assert len(units) == 8
    for unit in units:
        assert sum(part.cycles for part in unit.parts) == statistics[0].cycles
        assert all(part.cycles >= 0 for part in unit.parts)
    found = parts(program, dict(statistics[0].counters))
    assert found["bus, reads"][WORK, "beats of STREAM"] > 0
    assert found["bus, reads"][WORK, "beats of commands"] == len(step.commands) // TINY.bus_bytes
    counters = statistics[0].counters
    for unit in ("LOAD", "STORE"):
        moved, waited = found[unit][WORK, "beat moves"], found[unit][WAIT, "bus"]
        assert moved + waited == counters[f"{unit.lower()}_busy"]
        assert moved > 0
    assert found["STORE"][WORK, "beat moves"] == counters["write_beats"]
    assert found["LOAD"][WAIT, "bus"] >= latency
