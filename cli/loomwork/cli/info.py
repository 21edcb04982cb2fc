# SPDX-License-Identifier: Apache-2.0
"""`loomwork info`: what a program is."""

from rich.table import Table

from loomwork.arch.isa import COMMAND_BYTES
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.arch.program_file import read_program
from loomwork.cli.options import ProgramArgument
from loomwork.cli.output import console, print_table


def info(program_file: ProgramArgument) -> None:
    """Print a program's configuration, inputs, outputs, steps and layers.

    Example: `loomwork info net.lwb`
    """
    from loomwork.compiler import report
    from loomwork.sim.cycles import with_predicted_cycles

    program = with_predicted_cycles(read_program(program_file))
    config = program.config
    console.print(
        f"configuration {config.name}: {config.rows}x{config.cols} array, {config.scratchpad_kib} KiB scratchpad, "
        f"{config.bus_bytes} bytes per bus beat"
    )
    print_table(_tensors(program))
    for index, step in enumerate(program.steps):
        if isinstance(step, AcceleratorStep):
            count = len(step.commands) // COMMAND_BYTES
            console.print(f"step {index}: accelerator, {count} commands, {len(step.constants):,} bytes of constants")
        else:
            console.print(f"step {index}: host, {', '.join(f'{name} ({why})' for name, why in step.operators)}")
    if "layers" in program.report:
        console.print(report.summary(program))


def _tensors(program: Program) -> Table:
    table = Table("", "tensor", "type", "shape", "scale", "zero point")
    for tensor in program.tensors:
        roles = [r for r, names in (("input", program.inputs), ("output", program.outputs)) if tensor.name in names]
        if roles:
            shape = "x".join(map(str, tensor.shape))
            scale = "" if tensor.scale is None else f"{tensor.scale:.6g}"
            zero = "" if tensor.zero_point is None else str(tensor.zero_point)
            table.add_row("/".join(roles), tensor.name, tensor.dtype, shape, scale, zero)
    return table
