# SPDX-License-Identifier: Apache-2.0
"""Networks and data that are not part of the repository, found beside it.

    model_path("mlperf_tiny/ic_resnet8_int8.tflite")
    data_path("kws01_inputs.npz")

Looked for in the folder that the environment variable LOOMWORK_MODELS or LOOMWORK_DATA names, else in
`../shared/models` or `../shared/data` beside the checkout. A file that is not there fails the test by name; with
LOOMWORK_ALLOW_MISSING=1 the test is reported as skipped, by name as well.
"""

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def model_path(name: str) -> Path:
    """Path of a network, relative to the folder of models."""
    return _find(name, "LOOMWORK_MODELS", "models")


def data_path(name: str) -> Path:
    """Path of a data file, relative to the folder of data."""
    return _find(name, "LOOMWORK_DATA", "data")


def _find(name: str, variable: str, folder: str) -> Path:
    root = Path(os.environ.get(variable) or CHECKOUT.parent / "shared" / folder)
    path = root / name
    if path.is_file():
        return path
    message = f"{name} is not in {root}; set {variable} to the folder that holds it"
    if os.environ.get("LOOMWORK_ALLOW_MISSING") == "1":
        pytest.skip(message)
    pytest.fail(f"{message}, or LOOMWORK_ALLOW_MISSING=1 to go without")
