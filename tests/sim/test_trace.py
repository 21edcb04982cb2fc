# SPDX-License-Identifier: Apache-2.0
"""The timeline as Chrome trace JSON."""

import json
from dataclasses import replace

import pytest

from loomwork.arch.command import decode_program
from loomwork.arch.program import AcceleratorStep
from loomwork.sim.backend import Event, StepStatistics
from loomwork.sim.trace import chrome_trace
from tests.programs import quantize_copy_program, two_input_program

RUN = StepStatistics(
    counters={"cycles": 90},
    events=[
        Event(unit="LOAD", offset=0, start=10, end=50),
        Event(unit="STORE", offset=32, start=52, end=80),
    ],
)


def slices(trace):
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def names(trace, kind):
    return {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in trace["traceEvents"]
        if event["ph"] == "M" and event["name"] == kind
    }


def test_every_event_is_a_slice_on_its_units_track():
    trace = chrome_trace(quantize_copy_program(), [RUN])
    assert json.loads(json.dumps(trace)) == trace
    load, store = slices(trace)
    tracks = names(trace, "thread_name")
    assert tracks[load["pid"], load["tid"]] == "LOAD"
    assert tracks[store["pid"], store["tid"]] == "STORE"
    assert (load["name"], load["ts"], load["dur"]) == ("LOAD", 10, 40)
    assert (store["name"], store["ts"], store["dur"]) == ("STORE", 52, 28)


def test_a_slice_carries_its_command():
    program = quantize_copy_program()
    (_, store) = slices(chrome_trace(program, [RUN]))
    step = program.steps[1]
    assert isinstance(step, AcceleratorStep)
    assert store["args"] == {"command": 32, **decode_program(step.commands)[1].operands}


def test_each_accelerator_step_is_a_process():
    trace = chrome_trace(two_input_program(), [RUN, RUN])
    assert [event["pid"] for event in slices(trace)] == [0, 0, 1, 1]
    assert names(trace, "process_name") == {(0, 0): "step 0 (accelerator)", (1, 0): "step 1 (accelerator)"}
    assert len(names(trace, "thread_name")) == 4


def test_slices_are_named_by_the_layer_where_the_report_knows_it():
    program = two_input_program()
    report = {"layers": [{"name": "conv1", "step": 1, "commands": [1]}, {"name": "on the host"}]}
    trace = chrome_trace(replace(program, report=report), [RUN, RUN])
    assert [event["name"] for event in slices(trace)] == [
        *("LOAD", "STORE", "LOAD", "STORE conv1"),
    ]


def test_steps_are_numbered_as_in_the_program():
    program = quantize_copy_program()
    report = {"layers": [{"name": "conv1", "step": 1, "commands": [0]}, {"name": "QUANTIZE", "step": 0}]}
    trace = chrome_trace(replace(program, report=report), [RUN])
    assert names(trace, "process_name") == {(1, 0): "step 1 (accelerator)"}
    assert [(event["pid"], event["name"]) for event in slices(trace)] == [(1, "LOAD conv1"), (1, "STORE")]


def test_a_run_that_was_not_traced_gives_an_empty_timeline():
    assert slices(chrome_trace(quantize_copy_program(), [StepStatistics()])) == []


def test_statistics_must_cover_every_accelerator_step():
    with pytest.raises(ValueError, match="zip"):
        chrome_trace(two_input_program(), [RUN])
