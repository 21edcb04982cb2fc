"""Entry point of the `loomwork` command."""

import sys

import typer

from loomwork.arch.config import ConfigError
from loomwork.arch.isa import IsaError
from loomwork.arch.program_file import ProgramError
from loomwork.cli import bench, compile_model, configs, demo, disasm, info, regress, run, verilog
from loomwork.cli.output import UsageError, status
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import RunError
from loomwork.sim.host import HostError
from loomwork.sim.toolchain import ToolchainError

USER_ERRORS = (
    *(CompileError, ConfigError, HostError, IsaError, ProgramError, RunError, ToolchainError, UsageError),
    # A missing or unreadable file, a full disk: the system's own sentence names the path.
    OSError,
)

app = typer.Typer(
    name="loomwork",
    help="Generate an int8 systolic-array accelerator, compile networks for it, run them bit for bit.",
    epilog="Begin with `loomwork demo`, or: `loomwork compile net.tflite -o net.lwb && loomwork info net.lwb`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("compile")(compile_model.compile_model)
app.command("run")(run.run)
app.command("info")(info.info)
app.command("disasm")(disasm.disasm)
app.command("verilog")(verilog.verilog)
app.command("configs")(configs.configs)
app.command("bench")(bench.bench)
app.command("regress")(regress.regress)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence on standard error and exit code 2."""
    try:
        app()
    except USER_ERRORS as error:
        status.print("[bold red]error:[/]", end=" ")
        status.print(str(error), markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
