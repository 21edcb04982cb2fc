# SPDX-License-Identifier: Apache-2.0
"""Predicted cycles of every layer of a compiled network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from loomwork.arch.isa import COMMAND_BYTES, Unit
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.sim.cycles.prediction import Prediction, predict_program
from loomwork.sim.memory import MemoryTiming

_ENDS = (Unit.EXECUTE.name, Unit.DRAIN.name)
"""Units whose last command is the end of a layer."""


def with_predicted_cycles(program: Program, timing: MemoryTiming | None = None) -> Program:
    """The program with `predicted_cycles` in its report: of every accelerator layer, and in `totals`.

    `predicted_exactly` in `totals` says whether they are exact, or an estimate (docs/cycle-model.md).
    The cycles of a layer go from the end of the layers before it to the end of its own last EXECUTE or DRAIN command,
    those of a step's last layer to `done`: they add up to the total. A program without a report stays as it is.
    Raises what `predict` raises.
    """
    if "layers" not in program.report:
        return program
    numbers = [number for number, step in enumerate(program.steps) if isinstance(step, AcceleratorStep)]
    layers = [dict(layer) for layer in program.report["layers"]]
    total = 0
    predictions = predict_program(program, timing)
    for number, prediction in zip(numbers, predictions, strict=True):
        own = [layer for layer in layers if layer["where"] == "accelerator" and layer["step"] == number]
        for layer, cycles in zip(own, layer_cycles([layer["commands"] for layer in own], prediction), strict=True):
            layer["predicted_cycles"] = cycles
        total += prediction.cycles
    exactly = all(prediction.exact for prediction in predictions)
    totals: Mapping[str, Any] = {
        **program.report["totals"],
        "predicted_cycles": total,
        "predicted_exactly": exactly,
    }
    return replace(program, report={**program.report, "layers": layers, "totals": totals})


def layer_cycles(layers: Sequence[Sequence[int]], prediction: Prediction) -> list[int]:
    """Cycles of the layers of one step, each given by the numbers of its commands, in order; at least one layer."""
    ends = {event.offset // COMMAND_BYTES: event.end for event in prediction.events if event.unit in _ENDS}
    cycles: list[int] = []
    before = 0
    for place, commands in enumerate(layers, start=1):
        end = max([before, *(ends[number] for number in commands if number in ends)])
        if place == len(layers):
            end = prediction.cycles
        cycles.append(end - before)
        before = end
    return cycles
