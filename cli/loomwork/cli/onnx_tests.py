# SPDX-License-Identifier: Apache-2.0
"""`loomwork onnx-tests`: ONNX's own tests of its operators, as they are and quantized."""

from pathlib import Path
from typing import Annotated

import typer

from loomwork.arch.config import load_config
from loomwork.cli.options import ConfigOption, config_files
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_file


def onnx_tests(
    name: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME", help="Only operators whose name contains this; may be given often."),
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="PAGE.md", help="Write the counts of all operators as a page.")
    ] = None,
    config: ConfigOption = "base",
) -> None:
    """Run the tests of operators that come with the onnx package, on the golden model.

    Counts for each operator how many of its tests run on the accelerator and how many on the host, are refused or fail:
    the tests as they are, mostly in floating point, and quantized to int8 and compared with ONNX Runtime.

    Example: `loomwork onnx-tests --filter Conv --config small`
    """
    from loomwork.cli import onnx_tests_page as page
    from loomwork.cli.onnx_node_tests import OPERATORS, Verdict
    from loomwork.cli.onnx_quantized_tests import OPERATORS as QUANTIZED

    if markdown_file is not None and name:
        raise UsageError("--markdown needs all operators, without --filter")
    check_destination(markdown_file, inputs=config_files(config))
    target = load_config(config)
    parts = [part.lower() for part in name or [""]]
    plain, quantized = (
        [operator for operator in operators if any(part in operator.lower() for part in parts)]
        for operators in (OPERATORS, QUANTIZED)
    )
    if not plain and not quantized:
        raise UsageError(f"no operator's name contains {' or '.join(map(repr, name or []))}: {', '.join(OPERATORS)}")
    with status.status("making the tests") as progress:
        results = page.run_tests(plain, quantized, target, lambda operator: progress.update(f"testing {operator}"))
    print_table(page.table("as they are", results.plain, page.PLAIN))
    print_table(page.table("quantized", results.quantized, tuple(Verdict)))
    for line in (*page.complaints(results.plain), *page.complaints(results.quantized)):
        console.print(line)
    if markdown_file is not None:
        write_file(markdown_file, page.markdown(results, target.name))
        console.print(f"wrote {markdown_file}")
