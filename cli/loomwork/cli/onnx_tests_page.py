# SPDX-License-Identifier: Apache-2.0
"""What `loomwork onnx-tests` writes: counts for each operator, as tables on the terminal and as a page."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx
import onnxruntime
from rich.table import Table

from loomwork.arch.config import Config
from loomwork.cli.markdown import grid
from loomwork.cli.onnx_node_tests import Outcome, Verdict, count, is_expanded, load_tests, run_test
from loomwork.cli.onnx_quantized_tests import run_quantized

PLAIN = (Verdict.ACCELERATOR, Verdict.HOST, Verdict.REFUSED, Verdict.FAILED)
"""Verdicts of the tests as they are."""
COMMAND = "loomwork onnx-tests --markdown docs/onnx-node-tests.md"


@dataclass(frozen=True, kw_only=True)
class Results:
    """All outcomes, by operator. plain: of the tests as they are. quantized: of their quantized form, if there is one.

    left_out: tests without a quantized form.
    """

    plain: dict[str, list[Outcome]]
    quantized: dict[str, list[Outcome]]
    left_out: int


def run_tests(
    plain: Sequence[str], quantized: Sequence[str], config: Config, progress: Callable[[str], None]
) -> Results:
    """Run the tests of operators, as they are and quantized. progress: called with each operator."""
    tests = load_tests([*plain, *quantized])
    found: dict[str, list[Outcome]] = {}
    for operator in plain:
        progress(operator)
        found[operator] = [run_test(operator, case, config) for case in tests[operator]]
    again: dict[str, list[Outcome]] = {}
    left_out = 0
    for operator in quantized:
        progress(f"{operator}, quantized")
        own = [case for case in tests[operator] if not is_expanded(case)]
        outcomes = [run_quantized(operator, case, config) for case in own]
        again[operator] = [outcome for outcome in outcomes if outcome is not None]
        left_out += len(own) - len(again[operator])
    return Results(plain=found, quantized=again, left_out=left_out)


def table(title: str, outcomes: dict[str, list[Outcome]], verdicts: Sequence[Verdict]) -> Table:
    """The counts for the terminal."""
    result = Table(title=title, title_justify="left")
    result.add_column("operator")
    for heading in ("tests", *verdicts):
        result.add_column(heading, justify="right")
    for line in rows(outcomes, verdicts):
        result.add_row(*line)
    return result


def rows(outcomes: dict[str, list[Outcome]], verdicts: Sequence[Verdict]) -> list[list[str]]:
    """A line for each operator and one for all; zeros are left out."""
    lines = [_row(operator, found, verdicts) for operator, found in outcomes.items()]
    return [*lines, _row("all", [outcome for found in outcomes.values() for outcome in found], verdicts)]


def _row(name: str, outcomes: Sequence[Outcome], verdicts: Sequence[Verdict]) -> list[str]:
    counts = count(outcomes)
    return [name, str(len(outcomes)), *(str(counts[verdict] or "") for verdict in verdicts)]


def reasons(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Why tests ran on the host, operator by operator, as lines of a list."""
    lines: list[str] = []
    for operator, found in outcomes.items():
        counted = Counter(_nameless(outcome.detail) for outcome in found if outcome.verdict is Verdict.HOST)
        if counted:
            told = "; ".join(f"{reason} ({number})" for reason, number in sorted(counted.items()))
            lines.append(f"- {operator}: {told}")
    return lines


def complaints(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Refused and failed tests, each with its sentence, as lines of a list."""
    return [
        f"- `{outcome.test}` {outcome.verdict}: {outcome.detail[:300]}"
        for found in outcomes.values()
        for outcome in found
        if outcome.verdict in (Verdict.REFUSED, Verdict.FAILED)
    ]


def _nameless(reason: str) -> str:
    """A reason without the names of a test's tensors, so that the same ones can be counted."""
    return re.sub(r" '[^']*'", "", reason.removeprefix("model: "))


def markdown(results: Results, config: str) -> str:
    """The page docs/onnx-node-tests.md."""
    return "\n".join(
        [
            "# ONNX's node tests",
            "",
            f"Written by `{COMMAND}`, with onnx {onnx.__version__} and ONNX Runtime {onnxruntime.__version__},",
            f"configuration `{config}`, the golden model as the engine. The backend is `loomwork.cli.onnx_backend`.",
            "",
            "## The tests as they are",
            "",
            "Inputs and expected outputs are those of the onnx package (`onnx.backend.test`), compared as it does.",
            "Most are in floating point, and so run on the host, by ONNX Runtime. What a test gives as weights, scales",
            "or shapes is compiled in as constants.",
            "",
            "- accelerator: the operator ran on the accelerator; the host at most turned inputs and outputs over.",
            "- host: the result is right, but the host computed something.",
            "- refused: neither of them runs it; failed: the result is not the expected one.",
            "",
            grid(["operator", "tests", *PLAIN], rows(results.plain, PLAIN)),
            "Refused and failed:",
            "",
            *(complaints(results.plain) or ["None."]),
            "",
            "Why on the host:",
            "",
            *(reasons(results.plain) or ["None."]),
            "",
            "## The tests, quantized",
            "",
            "The operator between DequantizeLinear and QuantizeLinear, for every operator of the",
            "[reference page](reference/onnx-operators.md) and Split. Scales follow from the least and largest number",
            "of a test's own data, weights are symmetric and constant. The reference is ONNX Runtime on the same",
            f"model. {results.left_out} tests have no such form: their data are not float32, not finite or empty, or",
            "ONNX Runtime does not run it.",
            "",
            "- accelerator: bit for bit the same.",
            "- one step off: of fewer than 1000 values one differs, of more at most one in a thousand, by one step.",
            "- failed: anything else.",
            "",
            grid(["operator", "tests", *Verdict], rows(results.quantized, tuple(Verdict))),
            "Refused and failed:",
            "",
            *(complaints(results.quantized) or ["None."]),
            "",
            "Why on the host:",
            "",
            *(reasons(results.quantized) or ["None."]),
            "",
        ]
    )
