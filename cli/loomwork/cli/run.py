# SPDX-License-Identifier: Apache-2.0
"""`loomwork run`: a program on inputs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from loomwork.arch.program_file import program_fingerprint, read_program
from loomwork.cli.arrays import check_suffix, load_arrays, save_arrays
from loomwork.cli.options import LatencyOption, ProgramArgument
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_json
from loomwork.sim.memory import READ_LATENCY, MemoryTiming


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
        Path | None,
        typer.Option(
            "--json", metavar="STATS.json", help="Write cycles and counters per image (golden: no clock, null)."
        ),
    ] = None,
    trace_file: Annotated[
        Path | None, typer.Option("--trace", metavar="TRACE.json", help="Write the first image's timeline (Perfetto).")
    ] = None,
    counters: Annotated[
        bool, typer.Option("--counters", help="Print where the first image's cycles went, unit by unit.")
    ] = False,
    latency: LatencyOption = READ_LATENCY,
) -> None:
    """Run a program on one input or a batch.

    Inputs have the type and shape that `loomwork info` lists; any number of images may stand in the first dimension.

    Example: `loomwork run net.lwb --input x.npy --output y.npy --backend verilator --json stats.json`
    """
    import numpy as np

    from loomwork.cli.counters import breakdown_table
    from loomwork.sim.backend import RunError, check_inputs, run_program
    from loomwork.sim.breakdown import breakdown
    from loomwork.sim.trace import chrome_trace

    tracing = trace_file is not None
    if tracing and backend is not BackendName.VERILATOR:
        raise UsageError("--trace needs --backend verilator: only the RTL has a clock")
    if counters and backend is not BackendName.VERILATOR:
        raise UsageError("--counters needs --backend verilator: only the RTL has a clock")
    check_suffix(output_file)
    check_destination(output_file, json_file, trace_file, inputs=[program_file, input_file])
    program = read_program(program_file)
    inputs = load_arrays(input_file, program.inputs)
    check_inputs(program, inputs)
    if output_file.suffix == ".npy" and len(program.outputs) > 1:
        raise UsageError(
            f"the program has outputs {', '.join(program.outputs)}: --output must be a .npz file, not {output_file}"
        )
    if backend is BackendName.GOLDEN:
        from loomwork.sim.golden import GoldenBackend

        engine = GoldenBackend()
    else:
        from loomwork.sim.verilator import VerilatorBackend

        engine = VerilatorBackend(timing=MemoryTiming(latency=latency), trace=tracing, report=status.print)
    with Progress(console=status, transient=True, disable=not status.is_terminal) as progress:
        task = progress.add_task(f"running on {backend.value}", total=None)
        try:
            result = run_program(
                program,
                inputs,
                engine,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        except RunError as error:
            step = "" if error.step is None else f"step {error.step}: "
            raise UsageError(f"{program_file}: {step}{error}") from error
    save_arrays(output_file, result.outputs)
    if json_file is not None:
        made_by = {"backend": backend.value, "program": program_fingerprint(program)}
        write_json(json_file, {**made_by, **result.to_dict(program.config)})
    if trace_file is not None:
        write_json(trace_file, chrome_trace(program, result.statistics[0]))
    console.print(f"wrote {output_file}: " + ", ".join(f"{n} {list(v.shape)}" for n, v in result.outputs.items()))
    if counters:
        print_table(breakdown_table(breakdown(program, result.statistics[0])))
    if cycles := result.cycles_per_image:
        console.print(f"{int(np.median(cycles)):,} cycles per image (median of {len(cycles)})")
