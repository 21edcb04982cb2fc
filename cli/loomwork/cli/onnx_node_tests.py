# SPDX-License-Identifier: Apache-2.0
"""ONNX's own tests of its operators (onnx.backend.test), run on Loomwork as a backend.

onnx makes a test's model, inputs and expected outputs when the module of its operator is loaded.
"""

import importlib
import pkgutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import Runner

from loomwork.arch.config import Config
from loomwork.cli.onnx_backend import ACCELERATOR, BackendError, Operator, computes_on_host, prepare

OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSwish"),
    *("HardSigmoid", "Tanh", "Gelu", "Add", "Mul", "Sub", "MaxPool", "AveragePool", "GlobalMaxPool"),
    *("GlobalAveragePool", "Concat", "Split", "Slice", "Pad", "Resize", "DepthToSpace", "Flatten", "Reshape"),
    *("Transpose", "Squeeze", "Unsqueeze", "BatchNormalization", "ReduceMean", "Softmax", "QLinearConv"),
    *("QLinearMatMul", "QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger"),
)
"""Operators of networks for images, in floating point and quantized."""


_EXPANDED = "_expanded"


class Verdict(StrEnum):
    """What became of a test. The operator ran on the accelerator, exactly or one step off, or on the host."""

    ACCELERATOR = "accelerator"
    ONE_STEP = "one step off"
    HOST = "host"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test. detail: why on the host, the sentence of a refusal, or what differs."""

    operator: str
    test: str
    verdict: Verdict
    detail: str = ""


def load_tests(operators: Iterable[str]) -> dict[str, list[TestCase]]:
    """The tests of each operator; one whose operator is a function also comes written out ("expanded").

    Raises KeyError for an operator of which onnx has no tests.
    """
    modules = {name.replace("_", "").lower(): name for _, name, _ in pkgutil.iter_modules(node_cases.__path__)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some tests divide by zero on purpose
        for operator in operators:
            importlib.import_module(f"{node_cases.__name__}.{modules[operator.lower()]}")
    found: dict[str, list[TestCase]] = {operator: [] for operator in operators}
    # Modules stay loaded, so that there may be tests of other operators as well.
    cases: list[TestCase] = vars(node_cases)["_NodeTestCases"]  # its function loads all modules, which takes long
    written = {case.name: case for case in cases}
    for case in sorted(cases, key=lambda case: case.name):
        base = written.get(case.name.partition(_EXPANDED)[0], case)
        assert base.model is not None
        operator = base.model.graph.node[0].op_type
        if operator in found:
            found[operator].append(case)
    return found


def is_expanded(case: TestCase) -> bool:
    """Whether the test is of an operator that is written out as others."""
    return _EXPANDED in case.name


def run_test(operator: str, case: TestCase, config: Config) -> Outcome:
    """Run a test as it is and compare as onnx does."""

    def outcome(verdict: Verdict, detail: str = "") -> Outcome:
        return Outcome(operator=operator, test=case.name, verdict=verdict, detail=detail)

    assert case.model is not None
    assert case.data_sets is not None
    try:
        rep = prepare(case.model, config=config)
        found = [(rep.run([_array(value) for value in inputs]), expected) for inputs, expected in case.data_sets]
    except (BackendError, onnx.checker.ValidationError) as error:
        return outcome(Verdict.REFUSED, str(error))
    reason = host_reason(rep.operators)
    try:
        for results, expected in found:
            Runner.assert_similar_outputs([_array(value) for value in expected], results, case.rtol, case.atol)
    except AssertionError as error:
        where = "accelerator" if reason is None else "host"
        return outcome(Verdict.FAILED, f"on the {where}: {' '.join(str(error).split())}")
    return outcome(Verdict.ACCELERATOR) if reason is None else outcome(Verdict.HOST, reason)


def host_reason(operators: Iterable[Operator]) -> str | None:
    """Why the host had to compute something, None when it did not."""
    ran = list(operators)
    first = next((operator for operator in ran if computes_on_host(operator)), None)
    if first is not None:
        return first.reason
    accelerated = any(operator.where == ACCELERATOR for operator in ran)
    return None if accelerated else "nothing is left but conversions"


def count(outcomes: Iterable[Outcome]) -> Mapping[Verdict, int]:
    """How many tests came to each verdict."""
    verdicts = [outcome.verdict for outcome in outcomes]
    return {verdict: verdicts.count(verdict) for verdict in Verdict}


def _array(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if isinstance(value, list) else np.asarray(value)
