"""`loomwork run`: a program on inputs."""

import io
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from loomwork.arch.config import Config
from loomwork.arch.program import Program
from loomwork.arch.program_file import read_program
from loomwork.cli.options import LatencyOption, ProgramArgument
from loomwork.cli.output import UsageError, console, status, write_file, write_json
from loomwork.sim.backend import Array, Backend, Result, check_inputs, run_program
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.trace import chrome_trace
from loomwork.sim.verilator import READ_LATENCY, MemoryTiming, VerilatorBackend


class BackendName(StrEnum):
    """Where a program can run."""

    GOLDEN = "golden"
    VERILATOR = "verilator"


def run(
    program_file: ProgramArgument,
    input_file: Annotated[
        Path,
        typer.Option(
            "--input", "-i", metavar="IN.npy|.npz", help="One array, or several by tensor name; batches loop."
        ),
    ],
    output_file: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.npy|.npz", help="One array, or several by tensor name.")
    ],
    backend: Annotated[
        BackendName, typer.Option(help="golden: NumPy model of the commands. verilator: the RTL, cycle by cycle.")
    ] = BackendName.GOLDEN,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="STATS.json", help="Write cycles and counters per image.")
    ] = None,
    trace_file: Annotated[
        Path | None, typer.Option("--trace", metavar="TRACE.json", help="Write the first image's timeline (Perfetto).")
    ] = None,
    latency: LatencyOption = READ_LATENCY,
) -> None:
    """Run a program on one input or a batch.

    Inputs have the type and shape that `loomwork info` lists; any number of images may stand in the first dimension.

    Example: `loomwork run net.lwb --input x.npy --output y.npy --backend verilator --json stats.json`
    """
    if trace_file is not None and backend is not BackendName.VERILATOR:
        raise UsageError("--trace needs --backend verilator: only the RTL has a clock")
    program = read_program(program_file)
    inputs = load_arrays(input_file, program)
    check_inputs(program, inputs)
    if output_file.suffix == ".npy" and len(program.outputs) > 1:
        raise UsageError(f"the program has outputs {', '.join(program.outputs)}: --output must be a .npz file")
    with Progress(console=status, transient=True) as progress:
        task = progress.add_task(f"running on {backend.value}", total=None)
        result = run_program(
            program,
            inputs,
            _backend(backend, latency, trace_file is not None),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    save_arrays(output_file, result.outputs)
    if json_file is not None:
        write_json(json_file, statistics(result, program.config))
    if trace_file is not None:
        write_json(trace_file, chrome_trace(program, result.statistics[0]))
    console.print(f"wrote {output_file}: " + ", ".join(f"{n} {list(v.shape)}" for n, v in result.outputs.items()))
    if cycles := result.cycles_per_image:
        console.print(f"{int(np.median(cycles)):,} cycles per image (median of {len(cycles)})")


def _backend(name: BackendName, latency: int, trace: bool) -> Backend:
    if name is BackendName.GOLDEN:
        return GoldenBackend()
    return VerilatorBackend(timing=MemoryTiming(latency=latency), trace=trace, report=status.print)


def load_arrays(path: Path, program: Program) -> dict[str, Array]:
    """Read `.npy` (one input) or `.npz` (by tensor name). Raises UsageError with what was expected."""
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(f"{path} must be a .npy or .npz file")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path} is not a NumPy file: {error}") from None
    if isinstance(loaded, np.ndarray):
        if len(program.inputs) != 1:
            raise UsageError(f"the program has inputs {', '.join(program.inputs)}: give them by name in a .npz file")
        return {program.inputs[0]: loaded}
    try:
        return {name: loaded[name] for name in loaded.files}
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def save_arrays(path: Path, arrays: Any) -> None:
    """Write `.npy` (one output) or `.npz` (by tensor name), whole or not at all."""
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(buffer, **arrays)
    elif path.suffix == ".npy":
        np.save(buffer, next(iter(arrays.values())))
    else:
        raise UsageError(f"{path} must be a .npy or .npz file")
    write_file(path, buffer.getvalue())


def statistics(result: Result, config: Config) -> dict[str, Any]:
    """What `--json` writes: the configuration, and for each image the counters of each accelerator step."""
    return {
        "config": config.to_dict(),
        "images": len(result.statistics),
        "cycles_per_image": result.cycles_per_image,
        "steps": [[dict(step.counters) for step in image] for image in result.statistics],
    }
