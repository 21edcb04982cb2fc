# SPDX-License-Identifier: Apache-2.0
"""`loomwork run`: a program on inputs."""

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from loomwork.arch.program_file import program_fingerprint, read_program
from loomwork.cli.arrays import check_suffix, load_arrays, save_arrays
from loomwork.cli.options import LatencyOption, ProgramArgument
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_json
from loomwork.sim.memory import READ_LATENCY, MemoryTiming

if TYPE_CHECKING:
    from loomwork.arch.config import Config
    from loomwork.fpga.board_backend import BoardBackend


class BackendName(StrEnum):
    """Where a program can run."""

    GOLDEN = "golden"
    VERILATOR = "verilator"
    BOARD = "board"


SIMULATION = "simulation"
"""Instead of a port: a board that is simulated, from its UART's pins on."""


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
        BackendName,
        typer.Option(
            help="golden: NumPy model of the commands. verilator: the RTL, cycle by cycle. board: an FPGA (loomwork "
            "build) on --port."
        ),
    ] = BackendName.GOLDEN,
    port: Annotated[
        str | None,
        typer.Option(
            metavar="DEV",
            help=f"Serial port of the board (/dev/ttyUSB0, COM3, socket://HOST:PORT), or {SIMULATION!r}: its RTL in "
            "Verilator, UART and all.",
        ),
    ] = None,
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

    On a board: `loomwork run net.lwb --input x.npy --output y.npy --backend board --port /dev/ttyUSB0`
    """
    import numpy as np

    from loomwork.cli.counters import breakdown_table
    from loomwork.sim.backend import RunError, check_inputs, run_program
    from loomwork.sim.breakdown import breakdown
    from loomwork.sim.golden import GoldenBackend
    from loomwork.sim.trace import chrome_trace
    from loomwork.sim.verilator import VerilatorBackend

    tracing = trace_file is not None
    if tracing and backend is not BackendName.VERILATOR:
        raise UsageError("--trace needs --backend verilator: only the RTL has a clock")
    if counters and backend is not BackendName.VERILATOR:
        raise UsageError("--counters needs --backend verilator: only the RTL has a clock")
    if (port is not None) != (backend is BackendName.BOARD):
        raise UsageError("--backend board needs --port, and no other backend has one")
    check_suffix(output_file)
    check_destination(output_file, json_file, trace_file, inputs=[program_file, input_file])
    program = read_program(program_file)
    inputs = load_arrays(input_file, program.inputs)
    check_inputs(program, inputs)
    if output_file.suffix == ".npy" and len(program.outputs) > 1:
        raise UsageError(
            f"the program has outputs {', '.join(program.outputs)}: --output must be a .npz file, not {output_file}"
        )
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(console=status, transient=True, disable=not status.is_terminal))
        try:
            if port is not None:
                engine = _board(stack, progress, port, program.config)
            elif backend is BackendName.GOLDEN:
                engine = GoldenBackend()
            else:
                engine = VerilatorBackend(timing=MemoryTiming(latency=latency), trace=tracing, report=status.print)
            task = progress.add_task(f"running on {backend.value}", total=None)
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


def _board(stack: ExitStack, progress: Progress, port: str, config: "Config") -> "BoardBackend":
    """Reach a board, or start a simulated one; `stack` closes the connection.

    The simulated one is the board that the program's configuration is made for, otherwise one with the large core.
    """
    from loomwork.fpga.board_backend import BoardBackend
    from loomwork.fpga.boards.catalog import board_of
    from loomwork.fpga.host_link import TIMEOUT, HostLink
    from loomwork.fpga.simulated_board import MEMORY_KIB, PATIENCE, SimulatedBoard

    timeout = TIMEOUT
    if port == SIMULATION:
        board = board_of(config)
        compact = board is not None and board.compact
        memory_kib = board.memory_kib if board is not None and compact else MEMORY_KIB
        simulated = SimulatedBoard(config, memory_kib=memory_kib, compact=compact, report=status.print)
        port = stack.enter_context(simulated).port
        timeout = PATIENCE
    link = HostLink(port, timeout=timeout)
    stack.callback(link.close)
    task = progress.add_task("sending the program", total=None)
    return BoardBackend(link, progress=lambda done, whole: progress.update(task, completed=done, total=whole))
