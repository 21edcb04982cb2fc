# SPDX-License-Identifier: Apache-2.0
"""`loomwork disasm`: a program's commands as text."""

from loomwork.arch.program_file import read_program
from loomwork.cli.options import ProgramArgument
from loomwork.cli.output import console


def disasm(program_file: ProgramArgument) -> None:
    """Print the commands of a program, one per line, with operands by name and the tickets they wait for.

    Example: `loomwork disasm net.lwb | less`
    """
    from loomwork.compiler.disasm import disassemble

    console.out(disassemble(read_program(program_file)), highlight=False, end="")
