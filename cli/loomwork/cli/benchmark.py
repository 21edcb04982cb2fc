# SPDX-License-Identifier: Apache-2.0
"""What `loomwork bench` measures for one network on one configuration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np

from loomwork.arch.config import PRESETS, Config
from loomwork.arch.program import AcceleratorStep, HostStep, Program
from loomwork.cli.benchmark_causes import largest, lost_cycles
from loomwork.cli.benchmark_networks import Network, find_target
from loomwork.cli.output import status
from loomwork.compiler import driver
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import Array, Result, RunError, run_program
from loomwork.sim.host import HostError, HostRunner
from loomwork.sim.library import build_library
from loomwork.sim.memory import READ_LATENCY, MemoryTiming
from loomwork.sim.verilator import VerilatorBackend

SEED = 2024
LONG_MACS = 100_000_000
"""A network with more is measured with one image: its cycles do not depend on the image, and it takes minutes."""

Row = dict[str, Any]


def random_inputs(program: Program, images: int) -> dict[str, Array]:
    """Uniformly random inputs over the whole range of their type, the same every time."""
    generator = np.random.default_rng(SEED)
    tensors = {tensor.name: tensor for tensor in program.tensors}
    inputs: dict[str, Array] = {}
    for name in program.inputs:
        tensor = tensors[name]
        shape = (images, *tensor.image_shape)
        if tensor.dtype == "float32":
            inputs[name] = generator.uniform(-1, 1, shape).astype(np.float32)
        else:
            limits = np.iinfo(tensor.dtype)
            inputs[name] = generator.integers(limits.min, limits.max, shape, endpoint=True).astype(tensor.dtype)
    return inputs


def reference_outputs(model: bytes, program: Program, inputs: dict[str, Array]) -> dict[str, Array]:
    """What tflite-micro computes for the whole network, `[images, ...]` by output name."""
    whole = HostStep(model=model, inputs=program.inputs, outputs=program.outputs, operators=(("whole network", ""),))
    return dict(HostRunner(whole).run(inputs))


def measure_all(networks: Sequence[Network], configs: Sequence[Config], *, images: int, latency: int) -> list[Row]:
    """Measure every network on every configuration, and say how it goes on standard error.

    A network with channels that no output depends on is measured once more with these kept.
    """
    rows: list[Row] = []
    for config in configs:
        todo = list(networks)
        while todo:
            network = todo.pop(0)
            row = _watched(network, config, images=images, latency=latency)
            rows.append(row)
            if not network.keep_dead and row.get("macs") != row.get("executed_macs"):
                todo.insert(0, replace(network, keep_dead=True))
    return rows


def _watched(network: Network, config: Config, *, images: int, latency: int) -> Row:
    title = f"{network.title} on {config.name}"
    with status.status(title) as line:

        def progress(text: str) -> None:
            line.update(f"{title}: {text}")

        row = measure(network, config, images=images, latency=latency, report=status.print, progress=progress)
    if "cycles" in row:
        status.print(f"{title}: {row['cycles']:,} cycles, {row['cycles_per_second']:,} simulated per second")
    return row


def measure(
    network: Network,
    config: Config,
    *,
    images: int,
    latency: int,
    report: Callable[[str], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Row:
    """Compile and run one network; a row of the benchmark (docs/benchmarks.md says what its figures mean).

    A network that is refused gives a row with `refused`, the reason, and one that could not be run to its end, or not
    by tflite-micro, a row with `failed`. report: told before long work. progress: told how far it is.
    """
    row: Row = {"name": network.title, "config": config.name}
    model = network.load()
    try:
        program = driver.compile_model(model, config, name=network.name, eliminate_dead=not network.keep_dead)
    except CompileError as error:
        return {**row, "exact": None, "refused": str(error).removeprefix(f"{network.name}: ")}
    figures = _bounds(program)
    inputs = random_inputs(program, 1 if figures["macs"] > LONG_MACS else images)
    build_library(config, report=report)
    began = perf_counter()

    def tell(cycles: int) -> None:
        if progress is not None:
            progress(f"{cycles:,} cycles, of {figures['bound']:,} at least")

    backend = VerilatorBackend(timing=MemoryTiming(latency=latency), progress=tell)
    try:
        result = run_program(program, inputs, backend)
        seconds = perf_counter() - began
        expected = reference_outputs(model, program, inputs)
    except (RunError, HostError) as error:
        return {**row, "exact": False, "failed": str(error)}
    exact = all(np.array_equal(result.outputs[n].reshape(expected[n].shape), expected[n]) for n in program.outputs)
    figures |= _measured(figures, config, result)
    all_executed = figures["macs"] == figures["executed_macs"]
    comparable = config == PRESETS["base"] and latency == READ_LATENCY
    target = find_target(network.name, all_executed=all_executed) if comparable else None
    return {
        **row,
        "exact": exact,
        "images": len(result.statistics),
        **figures,
        "required": target.required if target else None,
        "aim": target.aim if target else None,
        "cycles_per_second": round(sum(result.cycles_per_image) / seconds),
        "host_operators": [name for step in program.steps if isinstance(step, HostStep) for name, _ in step.operators],
    }


def _bounds(program: Program) -> Row:
    """What the network needs of any accelerator of this size."""
    config, totals = program.config, program.report["totals"]
    executed = totals.get("executed_macs", totals["macs"])
    array_bound = ceil(executed / config.macs_per_cycle)
    steps = [step for step in program.steps if isinstance(step, AcceleratorStep)]
    tensors = sum(place.rows * place.row_bytes for step in steps for place in (*step.inputs, *step.outputs))
    return {
        "macs": totals["macs"],
        "executed_macs": executed,
        "array_bound": array_bound,
        "bound": max(array_bound, ceil(totals["weight_bytes"] / config.bus_bytes)),
        "compulsory_bytes": totals["weight_bytes"] + totals["parameter_bytes"] + tensors,
    }


def _measured(figures: Row, config: Config, result: Result) -> Row:
    """Cycles and bytes of the first image, which every image takes."""
    counters = _sum([step.counters for step in result.statistics[0]])
    cycles = counters["cycles"]
    lost = lost_cycles(counters, array_bound=figures["array_bound"], bound=figures["bound"])
    return {
        "cycles": cycles,
        "utilization": figures["executed_macs"] / (cycles * config.macs_per_cycle),
        "read_bytes": counters["read_beats"] * config.bus_bytes,
        "write_bytes": counters["write_beats"] * config.bus_bytes,
        "causes": largest(lost),
        "counters": counters,
    }


def _sum(steps: list[Mapping[str, int]]) -> dict[str, int]:
    """Counters of several steps together."""
    return {name: sum(step[name] for step in steps) for name in steps[0]}
