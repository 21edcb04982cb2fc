# SPDX-License-Identifier: Apache-2.0
"""Running a compiled program: one function, several backends, the same bits from each.

program = read_program(Path("net.lwb"))
result = run_program(program, {"input": images}, GoldenBackend())
result.outputs["output"]      # [images, ...]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.arch.program import AcceleratorStep, HostStep, Program, Tensor
from loomwork.sim.host import HostRunner
from loomwork.sim.memory import Bytes, pack_inputs, unpack_outputs, window_bytes

Array = NDArray[np.generic]


class RunError(ValueError):
    """A program that cannot be run, or inputs that do not fit it; one sentence for the user.

    step: index of the program's step that could not be run to its end, None when it was none of them.
    """

    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """One command on the timeline: unit name, byte offset of the command, first and last cycle since `start`."""

    unit: str
    offset: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class StepStatistics:
    """What one accelerator run (one image, one step) cost.

    counters: by name (arch.registers.COUNTERS), empty for backends without a clock. events: when a trace was asked for.
    """

    counters: Mapping[str, int] = field(default_factory=dict[str, int])
    events: Sequence[Event] = ()

    @property
    def cycles(self) -> int | None:
        """Cycles from `start` to `done`, None without a clock."""
        return self.counters.get("cycles")


@dataclass(frozen=True, kw_only=True)
class Result:
    """outputs: arrays `[images, ...]` by name. statistics: per image, per accelerator step."""

    outputs: Mapping[str, Array]
    statistics: Sequence[Sequence[StepStatistics]]

    @property
    def cycles_per_image(self) -> list[int]:
        """Accelerator cycles of each image, empty for backends without a clock."""
        return [
            sum(step.counters["cycles"] for step in image)
            for image in self.statistics
            if all(step.cycles is not None for step in image)
        ]

    def to_dict(self, config: Config) -> dict[str, Any]:
        """The statistics as plain values (JSON): the configuration, and per image the counters of each step.

        cycles_per_image and steps are None for a backend without a clock.
        """
        clocked = bool(self.cycles_per_image)
        return {
            "config": config.to_dict(),
            "images": len(self.statistics),
            "cycles_per_image": self.cycles_per_image if clocked else None,
            "steps": [[dict(step.counters) for step in image] for image in self.statistics] if clocked else None,
        }


class Backend(Protocol):
    """Executes accelerator steps."""

    def run_step(
        self, config: Config, step: AcceleratorStep, inputs: Bytes, output_bytes: int
    ) -> tuple[Bytes, list[StepStatistics]]:
        """Run one step for each image.

        inputs: `[images, bytes]`, contents of the INPUTS window. output_bytes: size of the OUTPUTS window.
        Returns the OUTPUTS window `[images, output_bytes]` and the statistics of each image.
        """
        ...


def run_program(
    program: Program,
    inputs: Mapping[str, Array],
    backend: Backend,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Run a program on inputs of one image or a batch.

    inputs: by tensor name; each of the tensor's shape, or with any number of images as first dimension.
    progress: called with (images done, images). Raises RunError for inputs that do not fit, and when
    the engine cannot execute a step.
    """
    tensors = {tensor.name: tensor for tensor in program.tensors}
    batch = check_inputs(program, inputs)
    images = len(next(iter(batch.values())))
    hosts = [HostRunner(step) if isinstance(step, HostStep) else None for step in program.steps]
    collected: dict[str, list[Array]] = {name: [] for name in program.outputs}
    statistics: list[list[StepStatistics]] = []
    # A handful of images at a time: enough for backends that work on many at once, few enough to show progress.
    group = 16
    for first in range(0, images, group):
        values: dict[str, Array] = {name: value[first : first + group] for name, value in batch.items()}
        count = min(group, images - first)
        rows: list[list[StepStatistics]] = [[] for _ in range(count)]
        for index, (step, host) in enumerate(zip(program.steps, hosts, strict=True)):
            if isinstance(step, HostStep):
                assert host is not None
                values.update(host.run(values))
                continue
            window = pack_inputs(step, {p.tensor: values[p.tensor].astype(np.int8, copy=False) for p in step.inputs})
            try:
                result, runs = backend.run_step(program.config, step, window, window_bytes(step.outputs))
            except RunError as error:
                error.step = index
                raise
            values.update(unpack_outputs(step, result))
            for row, run in zip(rows, runs, strict=True):
                row.append(run)
        statistics.extend(rows)
        for name, parts in collected.items():
            parts.append(values[name].reshape(count, *tensors[name].image_shape))
        if progress is not None:
            progress(first + count, images)
    return Result(outputs={name: np.concatenate(parts) for name, parts in collected.items()}, statistics=statistics)


def check_inputs(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Check names, dtypes and shapes; return every input as `[images, ...]` with the same number of images.

    Raises RunError with what was expected and what came.
    """
    tensors = {tensor.name: tensor for tensor in program.tensors}
    missing = [name for name in program.inputs if name not in inputs]
    if missing:
        raise RunError(f"input {', '.join(map(repr, missing))} is missing; the program takes {_listing(program)}")
    unknown = [name for name in inputs if name not in program.inputs]
    if unknown:
        raise RunError(f"the program has no input {', '.join(map(repr, unknown))}; it takes {_listing(program)}")
    batch = {name: _as_batch(tensors[name], np.asarray(inputs[name])) for name in program.inputs}
    counts = {name: len(value) for name, value in batch.items()}
    if len(set(counts.values())) > 1:
        raise RunError(f"the inputs hold different numbers of images: {counts}")
    return batch


def _as_batch(tensor: Tensor, value: Array) -> Array:
    if value.dtype != np.dtype(tensor.dtype):
        raise RunError(f"input {tensor.name!r} must be {tensor.dtype}, not {value.dtype}")
    one = tensor.image_shape
    batch = value[np.newaxis] if value.shape == one else value
    if batch.ndim != len(one) + 1 or batch.shape[1:] != one:
        raise RunError(
            f"input {tensor.name!r} must have shape {_shape((1, *one))} (any number of images in place of the "
            f"first 1), not {_shape(value.shape)}"
        )
    if not len(batch):
        raise RunError(f"input {tensor.name!r} holds no image: its shape is {_shape(value.shape)}")
    # Quantizing NaN or an infinity is undefined in C++, and so in the network that was trained.
    if batch.dtype.kind == "f" and not np.isfinite(batch).all():
        first = np.argwhere(~np.isfinite(batch))[0].tolist()
        raise RunError(f"input {tensor.name!r} must hold finite numbers, not {batch[tuple(first)]} as at index {first}")
    return batch


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "of a scalar"


def _listing(program: Program) -> str:
    tensors = {tensor.name: tensor for tensor in program.tensors}
    return ", ".join(f"{name!r} ({tensors[name].dtype} {list(tensors[name].shape)})" for name in program.inputs)
