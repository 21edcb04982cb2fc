# SPDX-License-Identifier: Apache-2.0
"""`loomwork regress`: the cocotb regression of the core."""

from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.cli.options import ConfigOption
from loomwork.cli.output import print_table, status


def regress(
    config: ConfigOption = "tiny",
    expression: Annotated[str | None, typer.Option("-k", metavar="EXPR", help="Only tests whose name matches.")] = None,
    waves: Annotated[bool, typer.Option("--waves", help="Keep waveforms even of tests that passed.")] = False,
) -> None:
    """Run the cocotb test benches of the core on Verilator, with random bus latency and back-pressure.

    Prints a summary; the waveform of a failed test is kept. Exit code 1 when a test fails.

    Example: `loomwork regress --config small -k error --waves`
    """
    from loomwork.sim.testbench.runner import run_regression

    shape = load_config(config)
    with status.status(f"cocotb regression of {shape.name}"):
        summary = run_regression(shape, expression=expression, waves=waves)
    print_table(summary.table())
    if not summary.passed:
        raise typer.Exit(1)
