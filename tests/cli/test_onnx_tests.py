# SPDX-License-Identifier: Apache-2.0
"""`loomwork onnx-tests`: counts that are right, a page that is current, quantized tests that can fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from loomwork.arch.config import PRESETS
from loomwork.cli import onnx_quantized_tests as quantized
from loomwork.cli import onnx_tests_page as page
from loomwork.cli.onnx_node_tests import OPERATORS, Verdict, count, load_tests, run_test
from loomwork.cli.onnx_quantized_tests import close, quantize_test, run_quantized
from tests.models import CHECKOUT

PAGE = CHECKOUT / "docs" / "onnx-node-tests.md"
PLAIN = ("Relu", "Gemm", "QLinearMatMul", "ConvInteger")
QUANTIZED = ("Gemm", "Relu", "Concat", "Pad", "Sigmoid")
"""Quick ones, of which some run on the accelerator, some on the host, and one is refused."""


@pytest.fixture(scope="module")
def results() -> page.Results:
    return page.run_tests(PLAIN, QUANTIZED, PRESETS["base"], lambda _: None)


def section(heading: str) -> list[str]:
    """Lines of a section of the committed page."""
    text = PAGE.read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()


def test_the_page_is_what_the_command_writes(results: page.Results):
    """Of some operators; all take more than a minute."""
    stale = "out of date; run loomwork onnx-tests --markdown docs/onnx-node-tests.md"
    written = page.markdown(results, "base")
    committed = PAGE.read_text(encoding="utf-8")
    introduction, rest = written.split("\n| operator", 1)[0], written.split("\n## The tests, quantized\n", 1)[1]
    assert committed.startswith(introduction), stale
    assert rest.split("The reference is")[0] in committed, stale
    for heading, outcomes, verdicts in (
        ("The tests as they are", results.plain, page.PLAIN),
        ("The tests, quantized", results.quantized, tuple(Verdict)),
    ):
        lines = section(heading)
        for row in page.rows(outcomes, verdicts)[:-1]:
            assert f"| {' | '.join(row)} |" in lines, stale
        for line in (*page.reasons(outcomes), *page.complaints(outcomes)):
            assert line in lines, stale


def test_the_page_has_every_operator():
    for heading, operators in (("The tests as they are", OPERATORS), ("The tests, quantized", quantized.OPERATORS)):
        listed = [line.split("|")[1].strip() for line in section(heading) if line.startswith("| ")]
        assert listed == ["operator", "---", *operators, "all"]


def test_counts(results: page.Results):
    gemm = count(results.quantized["Gemm"])
    assert sum(gemm.values()) == len(load_tests(["Gemm"])["Gemm"])
    assert gemm[Verdict.ACCELERATOR] >= 6
    assert gemm[Verdict.FAILED] == gemm[Verdict.REFUSED] == 0
    assert {outcome.verdict for outcome in results.plain["Relu"]} == {Verdict.HOST}
    (refused,) = [outcome for outcome in results.plain["ConvInteger"] if outcome.verdict is Verdict.REFUSED]
    assert refused.detail.startswith("ONNX Runtime: ")


def test_a_wrong_result_fails(monkeypatch: pytest.MonkeyPatch):
    (case,) = [case for case in load_tests(["Relu"])["Relu"] if case.name == "test_relu"]
    assert case.data_sets is not None
    ((inputs, (expected,)),) = case.data_sets
    wrong = replace(case, data_sets=[(inputs, [expected + 1])])
    failed = run_test("Relu", wrong, PRESETS["base"])
    assert failed.verdict is Verdict.FAILED
    assert failed.detail.startswith("on the host: Not equal to tolerance")
    reference = quantized._reference
    monkeypatch.setattr(quantized, "_reference", lambda model: [result ^ 1 for result in reference(model)])
    outcome = run_quantized("Relu", case, PRESETS["base"])
    assert outcome is not None
    assert outcome.verdict is Verdict.FAILED
    assert "60 of 60 differ, by up to 1" in outcome.detail


def test_quantized_models_have_weights_as_constants():
    (case,) = [case for case in load_tests(["Gemm"])["Gemm"] if case.name == "test_gemm_default_vector_bias"]
    made = quantize_test(case)
    assert not isinstance(made, str)
    onnx.checker.check_model(made.model, full_check=True)
    assert [value.name for value in made.model.graph.input] == ["a"]
    assert [node.op_type for node in made.model.graph.node].count("DequantizeLinear") == 3
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.model.graph.initializer}
    assert (stored["b_stored"].dtype, stored["c_stored"].dtype) == (np.int8, np.int32)
    assert np.abs(stored["b_stored"]).max() == 127
    assert np.isclose(stored["c_scale"], stored["a_scale"] * stored["b_scale"])


def test_one_step_off_is_close_more_is_not():
    assert close(10, 1, 1)
    assert not close(10, 2, 1)
    assert not close(10, 1, 2)
    assert close(5000, 5, 1)
    assert not close(5000, 6, 1)


def test_the_command_counts_what_the_filter_leaves(loomwork):
    finished = loomwork("onnx-tests", "--filter", "tanh", "--config", "tiny")
    assert finished.code == 0
    assert [line.split()[1] for line in finished.out.splitlines() if line.startswith("│")] == ["Tanh", "all"] * 2


def test_bad_input_is_named(tmp_path: Path, loomwork):
    page_file = tmp_path / "page.md"
    both = loomwork("onnx-tests", "--filter", "Relu", "--markdown", page_file)
    assert (both.code, both.err.strip()) == (2, "error: --markdown needs all operators, without --filter")
    assert not page_file.exists()
    unknown = loomwork("onnx-tests", "--filter", "Convolve")
    assert unknown.code == 2
    assert "no operator's name contains 'Convolve'" in unknown.err
    assert loomwork("onnx-tests", "--config", "huge").code == 2
