# SPDX-License-Identifier: Apache-2.0
"""The committed digits network is what its training script writes, and it reads digits."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator, ModelT

from tests.oracle import Oracle

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
MODEL, TEST_SET = DIGITS / "digits_int8.tflite", DIGITS / "digits_test.npz"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """Folder that the training script wrote to, and what it printed."""
    folder = tmp_path_factory.mktemp("digits")
    path = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, DIGITS / "train.py", "--output", folder],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


@pytest.mark.parametrize("file", [MODEL.name, TEST_SET.name])
def test_the_script_reproduces_the_committed_file(trained, file):
    folder, _ = trained
    assert (folder / file).read_bytes() == (DIGITS / file).read_bytes(), f"run examples/digits/train.py, commit {file}"


def test_the_script_reports_pruning_and_accuracy(trained):
    _, printed = trained
    assert "Pruned 1352 of 2704 weights" in printed
    accuracies = [float(line.split()[-1]) for line in printed.splitlines() if "test accuracy" in line]
    assert len(accuracies) == 3
    assert min(accuracies) >= 0.97


def test_accuracy_of_the_committed_model():
    with np.load(TEST_SET) as data:
        images, labels = data["images"], data["labels"]
    assert (images.shape, images.dtype, labels.shape) == ((360, 8, 8, 1), np.int8, (360,))
    (probabilities,) = Oracle(MODEL).run_batch([images[:, None]])
    assert probabilities.shape == (360, 1, 10)
    assert np.mean(probabilities[:, 0].argmax(axis=1) == labels) >= 0.97


def test_operators_and_pruned_weights():
    model: Any = ModelT.InitFromPackedBuf(MODEL.read_bytes())
    names = {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
    graph = model.subgraphs[0]
    operators = [names[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in graph.operators]
    assert operators == ["CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
    constants = [model.buffers[tensor.buffer].data for tensor in graph.tensors if tensor.name.endswith(b"/weights")]
    weights = np.concatenate(constants)
    assert weights.size == 2704
    assert np.mean(weights == 0) == pytest.approx(0.5, abs=0.02)
