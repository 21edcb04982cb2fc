# SPDX-License-Identifier: Apache-2.0
"""Entry point of the `loomwork` command."""

import sys

import typer

from loomwork.cli import (
    area,
    asic,
    bench,
    build,
    compile_model,
    configs,
    demo,
    disasm,
    info,
    onnx_tests,
    package,
    prune,
    quantize,
    regress,
    report,
    run,
    verilog,
)
from loomwork.cli.output import UsageError, status

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
app.command("quantize")(quantize.quantize)
app.command("prune")(prune.prune)
app.command("run")(run.run)
app.command("info")(info.info)
app.command("report")(report.report)
app.command("disasm")(disasm.disasm)
app.command("verilog")(verilog.verilog)
app.command("package")(package.package)
app.command("configs")(configs.configs)
app.command("bench", cls=bench.BenchCommand)(bench.bench)
app.command("build")(build.build)
app.command("area")(area.area)
app.command("asic")(asic.asic)
app.command("regress")(regress.regress)
app.command("onnx-tests")(onnx_tests.onnx_tests)
app.command("demo")(demo.demo)


def user_errors() -> tuple[type[Exception], ...]:
    """What a user can mend; anything else is a defect of Loomwork and shows its traceback."""
    # Here, so that commands which need neither compiler nor simulator start without them.
    from loomwork.arch.config import ConfigError
    from loomwork.arch.isa import IsaError
    from loomwork.arch.program_file import ProgramError
    from loomwork.compiler.graph import CompileError
    from loomwork.fpga.boards.clocking import ClockError
    from loomwork.fpga.boards.fabric import FloorplanError
    from loomwork.fpga.capacity import CapacityError
    from loomwork.fpga.package import PackageError
    from loomwork.fpga.tools import ToolError
    from loomwork.fpga.yosys import SynthesisError
    from loomwork.rtl.compact.build import FirmwareError
    from loomwork.sim.backend import RunError
    from loomwork.sim.host import HostError
    from loomwork.sim.toolchain import ToolchainError

    return (
        *(CapacityError, ClockError, CompileError, ConfigError, FirmwareError, FloorplanError, HostError),
        *(IsaError, PackageError, ProgramError, RunError, SynthesisError, ToolError, ToolchainError),
        # OSError: a missing or unreadable file, a full disk.
        *(UsageError, OSError),
    )


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence on standard error and exit code 2."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, user_errors()):
            raise
        status.print("error:", style="bold red", end=" ")
        status.print(_sentence(error))
        sys.exit(2)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    main()
