# SPDX-License-Identifier: Apache-2.0
"""Which layer the engine works on, and for how long."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from loomwork.sim.backend import Event, StepStatistics
from loomwork.sim.timeline import lanes, layer_cycles, layers_by_command
from tests.programs import two_input_program

REPORT = {
    "layers": [
        {"name": "a", "step": 0, "commands": [0]},
        {"name": "on the host", "step": 7},
        {"name": "b", "step": 0, "commands": [1]},
        {"name": "c", "step": 1, "commands": [0, 1]},
    ]
}
PROGRAM = replace(two_input_program(), report=REPORT)
FIRST = StepStatistics(
    counters={"cycles": 100},
    events=[
        Event(unit="LOAD", offset=0, start=1, end=95),
        Event(unit="EXECUTE", offset=0, start=10, end=30),
        Event(unit="DRAIN", offset=0, start=12, end=40),
        Event(unit="EXECUTE", offset=32, start=28, end=70),
        Event(unit="DRAIN", offset=32, start=41, end=90),
        Event(unit="DRAIN", offset=64, start=91, end=92),
    ],
)
SECOND = StepStatistics(counters={"cycles": 50}, events=[Event(unit="DRAIN", offset=32, start=5, end=45)])


def test_commands_belong_to_layers_of_their_step():
    assert layers_by_command(PROGRAM, 0) == {0: 0, 1: 2}
    assert layers_by_command(PROGRAM, 1) == {0: 3, 1: 3}
    assert layers_by_command(replace(PROGRAM, report={}), 0) == {}


def test_a_layer_takes_the_time_between_the_ends_of_two_layers():
    # a: until its DRAIN ends at 40. b: from there to the end of the step. c: all of the second step.
    assert layer_cycles(PROGRAM, [FIRST, SECOND]) == {0: 40, 2: 60, 3: 50}


def test_a_layer_that_ends_before_the_one_before_takes_no_time():
    events = [
        Event(unit="DRAIN", offset=0, start=0, end=60),
        Event(unit="EXECUTE", offset=32, start=0, end=55),
    ]
    run = StepStatistics(counters={"cycles": 60}, events=events)
    assert layer_cycles(PROGRAM, [run, SECOND]) == {0: 60, 2: 0, 3: 50}


def test_without_a_trace_nothing_is_known_of_layers():
    assert layer_cycles(PROGRAM, [replace(FIRST, events=[]), SECOND]) == {3: 50}
    assert layer_cycles(PROGRAM, [StepStatistics(), StepStatistics()]) == {}


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), min_size=1, max_size=25))
def test_lanes_are_as_many_as_intervals_at_once_and_no_two_overlap(pairs: list[tuple[int, int]]):
    intervals = sorted((start, start + length) for start, length in pairs)
    chosen = lanes(intervals)
    by_lane: dict[int, list[tuple[int, int]]] = {}
    for lane, interval in zip(chosen, intervals, strict=True):
        assert all(end <= interval[0] for _, end in by_lane.get(lane, []))
        by_lane.setdefault(lane, []).append(interval)
    assert len(by_lane) == max(sum(start <= cycle < end for start, end in intervals) for cycle in range(60))
    assert sorted(by_lane) == list(range(len(by_lane)))
