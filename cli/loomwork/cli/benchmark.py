# SPDX-License-Identifier: Apache-2.0
"""What `loomwork bench` measures for one network on one configuration."""

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.table import Table

from loomwork.arch.config import Config
from loomwork.arch.program import HostStep, Program
from loomwork.compiler import driver
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import Array, run_program
from loomwork.sim.host import HostRunner
from loomwork.sim.library import build_library
from loomwork.sim.memory import MemoryTiming
from loomwork.sim.verilator import VerilatorBackend

SEED = 2024


def find_models(folder: Path) -> list[Path]:
    """All `.tflite` files below a folder, by name."""
    return sorted(folder.rglob("*.tflite"))


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


def measure(
    path: Path,
    config: Config,
    *,
    images: int,
    latency: int,
    eliminate_dead: bool = True,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Compile and run one network; a row of the benchmark. A network that is refused gives a row with the reason.

    macs, utilization: of the network as given; bound: of what is executed, without the dead channels that were removed.
    """
    row: dict[str, Any] = {"network": path.stem, "config": config.name}
    model = path.read_bytes()
    try:
        program = driver.compile_model(model, config, name=path.stem, eliminate_dead=eliminate_dead)
    except CompileError as error:
        return {**row, "exact": None, "refused": str(error).removeprefix(f"{path.stem}: ")}
    inputs = random_inputs(program, images)
    build_library(config, report=report)
    began = perf_counter()
    result = run_program(program, inputs, VerilatorBackend(timing=MemoryTiming(latency=latency)))
    seconds = perf_counter() - began
    expected = reference_outputs(model, program, inputs)
    exact = all(np.array_equal(result.outputs[n].reshape(expected[n].shape), expected[n]) for n in program.outputs)
    totals = program.report["totals"]
    cycles = int(np.median(result.cycles_per_image))
    return {
        **row,
        "exact": exact,
        "images": images,
        "macs": totals["macs"],
        "executed_macs": totals["executed_macs"],
        "dead_macs": totals["dead_macs"],
        "bound": max(
            ceil(totals["executed_macs"] / config.macs_per_cycle), ceil(totals["weight_bytes"] / config.bus_bytes)
        ),
        "cycles": cycles,
        "utilization": totals["macs"] / (cycles * config.macs_per_cycle),
        "read_bytes": sum(s.counters["read_beats"] for s in result.statistics[0]) * config.bus_bytes,
        "write_bytes": sum(s.counters["write_beats"] for s in result.statistics[0]) * config.bus_bytes,
        "cycles_per_second": round(sum(result.cycles_per_image) / seconds),
        "host_operators": [name for step in program.steps if isinstance(step, HostStep) for name, _ in step.operators],
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The benchmark for the terminal."""
    result = Table("network", "config")
    for heading in ("MACs", "bound", "cycles", "utilization", "bytes in"):
        result.add_column(heading, justify="right")
    result.add_column("on the host")
    result.add_column("exact")
    for row in rows:
        if "refused" in row:
            result.add_row(row["network"], row["config"], *[""] * 6, "refused")
            continue
        result.add_row(
            row["network"],
            row["config"],
            f"{row['macs']:,}",
            f"{row['bound']:,}",
            f"{row['cycles']:,}",
            f"{row['utilization']:.1%}",
            f"{row['read_bytes']:,}",
            ", ".join(row["host_operators"]),
            "yes" if row["exact"] else "NO",
        )
    return result


def markdown(rows: Sequence[dict[str, Any]], latency: int) -> str:
    """The benchmark as a page of the documentation: exact figures only, nothing that depends on the machine."""
    introduction = (
        "Cycles from `start` to `done` on the RTL in Verilator, with weights, input and program in external memory "
        f"({latency} cycles of read latency), by `loomwork bench --markdown docs/benchmarks.md`. The bound is "
        "max(executed MACs / MACs per cycle, weight bytes / bus bytes). MACs are the network's, and utilization is of "
        "them: dead channels, which no output depends on, count there without being executed. Exact: every output "
        "equal to tflite-micro's."
    )
    headings = (
        *("network", "configuration", "MACs", "bound", "cycles", "utilization", "bytes read", "bytes written"),
        *("on the host", "exact"),
    )
    lines = ["# Benchmarks", "", introduction, "", f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [
        f"| {row['network']} | {row['config']} | {row['macs']:,} | {row['bound']:,} | {row['cycles']:,} "
        f"| {row['utilization']:.1%} | {row['read_bytes']:,} | {row['write_bytes']:,} "
        f"| {', '.join(row['host_operators'])} | {'yes' if row['exact'] else 'NO'} |"
        for row in rows
        if "refused" not in row
    ]
    refused = {row["network"]: row["refused"] for row in rows if "refused" in row}
    if refused:
        lines += ["", "Refused:", "", *(f"- {network}: {reason}" for network, reason in refused.items())]
    return "\n".join(lines) + "\n"
