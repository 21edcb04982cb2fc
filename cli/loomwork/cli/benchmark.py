"""What `loomwork bench` measures for one network on one configuration."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from loomwork.arch.config import Config
from loomwork.arch.program import HostStep, Program
from loomwork.compiler import driver
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import Array, run_program
from loomwork.sim.host import HostRunner
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
    path: Path, config: Config, *, images: int, latency: int, report: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Compile and run one network; a row of the benchmark. A network that is refused gives a row with the reason."""
    row: dict[str, Any] = {"network": path.stem, "config": config.name}
    model = path.read_bytes()
    try:
        program = driver.compile_model(model, config, name=path.stem)
    except CompileError as error:
        return {**row, "exact": None, "refused": str(error)}
    inputs = random_inputs(program, images)
    result = run_program(program, inputs, VerilatorBackend(timing=MemoryTiming(latency=latency), report=report))
    expected = reference_outputs(model, program, inputs)
    exact = all(np.array_equal(result.outputs[n].reshape(expected[n].shape), expected[n]) for n in program.outputs)
    totals = program.report["totals"]
    cycles = int(np.median(result.cycles_per_image))
    return {
        **row,
        "exact": exact,
        "images": images,
        "macs": totals["macs"],
        "bound": totals["bound_cycles"],
        "cycles": cycles,
        "utilization": totals["macs"] / (cycles * config.macs_per_cycle),
        "read_bytes": sum(s.counters["read_beats"] for s in result.statistics[0]) * config.bus_bytes,
        "write_bytes": sum(s.counters["write_beats"] for s in result.statistics[0]) * config.bus_bytes,
        "host_operators": [name for step in program.steps if isinstance(step, HostStep) for name, _ in step.operators],
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The benchmark for the terminal."""
    result = Table("network", "config", "MACs", "bound", "cycles", "utilization", "bytes in", "on the host", "exact")
    for row in rows:
        if "refused" in row:
            result.add_row(row["network"], row["config"], *[""] * 5, row["refused"], "refused")
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
