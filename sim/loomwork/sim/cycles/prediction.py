# SPDX-License-Identifier: Apache-2.0
"""Predicts with the exact model where that is quick enough, else with the estimate."""

from collections.abc import Sequence
from dataclasses import dataclass

from loomwork.arch.config import Config
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.sim.backend import RunError
from loomwork.sim.cycles.commands import Step, read_commands
from loomwork.sim.cycles.convolution import Shape, shapes_of
from loomwork.sim.cycles.estimate import estimate
from loomwork.sim.cycles.exact import predict_exactly
from loomwork.sim.cycles.outcome import Prediction
from loomwork.sim.memory import MemoryTiming

EXACT_PASSES = 20_000
"""The most passes of the array in a program that are predicted exactly: each costs some 25 microseconds."""


def predict(
    step: AcceleratorStep, config: Config, timing: MemoryTiming | None = None, *, exact: bool | None = None
) -> Prediction:
    """Predict one run of a program of legal commands.

    timing: of the external memory, which is taken not to stall. exact: whether by the exact model or by the estimate;
    None: exactly up to EXACT_PASSES. What the estimate takes for a program without end is predicted exactly all the
    same. Raises RunError when the program never ends, IsaError when there is no END, or something that is no command
    before it.
    """
    work = _read(step, config)
    return _predict(work, config, timing, work.passes <= EXACT_PASSES if exact is None else exact)


def predict_program(
    program: Program, timing: MemoryTiming | None = None, *, exact: bool | None = None
) -> list[Prediction]:
    """Predict every accelerator step of a program, in order; EXACT_PASSES holds for all together."""
    works = [_read(step, program.config) for step in program.steps if isinstance(step, AcceleratorStep)]
    if exact is None:
        exact = sum(work.passes for work in works) <= EXACT_PASSES
    return [_predict(work, program.config, timing, exact) for work in works]


@dataclass(frozen=True, slots=True)
class _Work:
    """The commands of a step, their bytes, and the shapes of those of EXECUTE (see `shapes_of`)."""

    commands: Sequence[Step]
    size: int
    shapes: Sequence[Shape | None]

    @property
    def passes(self) -> int:
        return sum(shape.blocks * len(shape.segments) for shape in self.shapes if shape)


def _read(step: AcceleratorStep, config: Config) -> _Work:
    commands = read_commands(step.commands)
    return _Work(commands, len(step.commands), shapes_of(commands, config))


def _predict(work: _Work, config: Config, timing: MemoryTiming | None, exact: bool) -> Prediction:
    timing = timing or MemoryTiming()
    if not exact:
        try:
            return estimate(work.commands, work.size, work.shapes, config, timing)
        except RunError:
            pass  # it takes some programs for endless that are not
    return predict_exactly(work.commands, work.size, work.shapes, config, timing)
