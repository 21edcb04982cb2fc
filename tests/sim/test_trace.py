# SPDX-License-Identifier: Apache-2.0
"""The timeline as Chrome trace JSON."""

import json
from dataclasses import replace

import pytest

from loomwork.arch.command import decode_program
from loomwork.arch.config import TINY
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.program_file import program_fingerprint
from loomwork.sim.backend import Event, StepStatistics
from loomwork.sim.trace import chrome_trace
from tests.programs import program as make_program
from tests.programs import quantize_copy_program, two_input_program
from tests.tracks import overlapping

RUN = StepStatistics(
    counters={"cycles": 90},
    events=[
        Event(unit="LOAD", offset=0, start=10, end=50),
        Event(unit="STORE", offset=32, start=52, end=80),
    ],
)


def slices(trace, category="command"):
    return [event for event in trace["traceEvents"] if event["ph"] == "X" and event["cat"] == category]


def values(trace, kind):
    """The only value of each metadata event of a kind, by process and track (None: of the whole process)."""
    return {
        (event["pid"], event.get("tid")): next(iter(event["args"].values()))
        for event in trace["traceEvents"]
        if event["ph"] == "M" and event["name"] == kind
    }


def counter(trace, name, key):
    return [
        (event["ts"], event["args"][key])
        for event in trace["traceEvents"]
        if event["ph"] == "C" and event["name"] == name
    ]


def test_every_event_is_a_slice_on_its_units_track():
    trace = chrome_trace(quantize_copy_program(), [RUN])
    assert json.loads(json.dumps(trace)) == trace
    load, store = slices(trace)
    tracks = values(trace, "thread_name")
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
    assert [event["pid"] for event in slices(trace)] == [1, 1, 2, 2]
    assert values(trace, "process_name") == {(1, None): "step 0 (accelerator)", (2, None): "step 1 (accelerator)"}
    assert values(trace, "process_sort_index") == {(1, None): 1, (2, None): 2}
    assert len(values(trace, "thread_name")) == 4


def test_numbers_of_threads_are_unique_and_none_is_a_process():
    trace = chrome_trace(two_input_program(), [RUN, RUN])
    threads = [thread for _, thread in values(trace, "thread_name")]
    assert len(set(threads)) == len(threads) == 4
    assert set(threads).isdisjoint({0, 1, 2})
    assert all(event["pid"] > 0 for event in trace["traceEvents"])


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
    assert values(trace, "process_name") == {(2, None): "step 1 (accelerator)"}
    assert [(event["pid"], event["name"]) for event in slices(trace)] == [(2, "LOAD conv1"), (2, "STORE")]


def test_a_run_that_was_not_traced_gives_an_empty_timeline():
    trace = chrome_trace(quantize_copy_program(), [StepStatistics()])
    assert [event["ph"] for event in trace["traceEvents"]] == ["M", "M"]


def test_statistics_must_cover_every_accelerator_step():
    with pytest.raises(ValueError, match="zip"):
        chrome_trace(two_input_program(), [RUN])


def test_the_program_and_its_counters_are_in_the_file():
    program = quantize_copy_program()
    assert chrome_trace(program, [RUN])["otherData"] == {
        "program": program_fingerprint(program),
        "configuration": "tiny",
        "counters": [{"cycles": 90}],
    }


# A step of three layers, by the numbers of its commands: 0 and 1 overlap in EXECUTE and DRAIN, as the engine does it.
LAYERS = [
    {"name": "first", "step": 0, "commands": [0], "macs": 320, "operator": "CONV_2D", "weight_bytes": 5},
    {"name": "second", "step": 0, "commands": [1], "macs": 640, "operator": "CONV_2D", "weight_bytes": 5},
    {"name": "third", "step": 0, "commands": [2]},
]
MEMORY = [
    {"step": 0, "words": 7, "first_layer": 0, "last_layer": 0},
    {"step": 0, "words": 3, "first_layer": 0, "last_layer": 1},
    {"step": 0, "words": 9, "first_layer": 1, "last_layer": 1},
    {"step": 0, "words": 100, "first_layer": 2, "last_layer": 2},
    {"step": 5, "words": 100, "first_layer": 0, "last_layer": 0},
]
OVERLAPPED = StepStatistics(
    counters={"cycles": 200},
    events=[
        Event(unit="STREAM", offset=0, start=5, end=60),
        Event(unit="STREAM", offset=32, start=6, end=100),
        Event(unit="STREAM", offset=32, start=60, end=110),
        Event(unit="EXECUTE", offset=0, start=20, end=60),
        Event(unit="DRAIN", offset=0, start=30, end=90),
        Event(unit="EXECUTE", offset=32, start=50, end=100),
        Event(unit="DRAIN", offset=32, start=80, end=120),
    ],
)


def three_layers():
    program = two_input_program()
    step = program.steps[0]
    assert isinstance(step, AcceleratorStep)
    single = make_program([step], [program.tensors[0], program.tensors[2]], "a", "c", TINY)
    return replace(single, report={"layers": LAYERS, "memory": MEMORY})


def test_commands_that_overlap_lie_on_tracks_of_their_own():
    trace = chrome_trace(three_layers(), [OVERLAPPED])
    assert overlapping(trace) == []
    names = values(trace, "thread_name")
    stream = [(names[1, event["tid"]], event["ts"]) for event in slices(trace) if event["ts"] in (5, 6, 60)]
    assert stream == [("STREAM", 5), ("STREAM +1", 6), ("STREAM", 60)]


def test_layers_last_from_their_first_to_their_last_command():
    trace = chrome_trace(three_layers(), [OVERLAPPED])
    names = values(trace, "thread_name")
    layers = [(names[1, e["tid"]], e["name"], e["ts"], e["ts"] + e["dur"]) for e in slices(trace, "layer")]
    assert layers == [
        ("layers: compute", "first", 20, 90),
        ("layers: compute +1", "second", 50, 120),
        ("layers: transfer", "first", 5, 60),
        ("layers: transfer +1", "second", 6, 110),
    ]
    assert slices(trace, "layer")[1]["args"] == {"layer": 1, "operator": "CONV_2D", "macs": 640}


def test_tracks_are_sorted_as_data_passes_the_units():
    trace = chrome_trace(three_layers(), [OVERLAPPED])
    order = values(trace, "thread_sort_index")
    names = values(trace, "thread_name")
    assert [names[key] for key in sorted(names, key=lambda key: order[key])] == [
        *("layers: compute", "layers: compute +1", "layers: transfer", "layers: transfer +1"),
        *("STREAM", "STREAM +1", "EXECUTE", "EXECUTE +1", "DRAIN", "DRAIN +1"),
    ]
    assert sorted(names) == sorted(names, key=lambda key: order[key])


def test_utilization_is_counted_while_a_layer_is_on_the_array():
    # 320 MACs in 40 cycles of 16; then 640 in the 40 cycles that the first layer leaves of 50.
    trace = chrome_trace(three_layers(), [OVERLAPPED])
    assert counter(trace, "array utilization", "percent") == [(0, 0), (20, 50.0), (60, 100.0), (100, 0)]


def test_feature_maps_are_counted_while_they_live():
    trace = chrome_trace(three_layers(), [OVERLAPPED])
    assert counter(trace, "scratchpad", "words") == [(20, 10), (50, 19), (90, 12), (120, 0)]
