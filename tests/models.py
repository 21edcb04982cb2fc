# SPDX-License-Identifier: Apache-2.0
"""Networks and data that are not part of the repository, found beside it.

    model_path("mlperf_tiny/ic_resnet8_int8.tflite")
    data_path("kws01_inputs.npz")
    pdk_path("ihp-sg13g2/sg13g2_stdcell_typ_1p20V_25C.lib")

Looked for in the folder that the environment variable LOOMWORK_MODELS, LOOMWORK_DATA or LOOMWORK_PDK names, else in
`../shared/models`, `../shared/data` or `../shared/pdk` beside the checkout. Where a file is not there, the test is
skipped and pytest's summary names the file; in continuous integration (CI is set), or with LOOMWORK_REQUIRE_MODELS=1,
it fails.
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


def pdk_path(name: str) -> Path:
    """Path of a file of a chip's libraries, relative to their folder."""
    return _find(name, "LOOMWORK_PDK", "pdk")


def _find(name: str, variable: str, folder: str) -> Path:
    root = Path(os.environ.get(variable) or CHECKOUT.parent / "shared" / folder)
    path = root / name
    if path.is_file():
        return path
    message = f"{name} is not in {root}; set {variable} to the folder that holds it"
    if os.environ.get("CI") or os.environ.get("LOOMWORK_REQUIRE_MODELS") == "1":
        pytest.fail(message)
    pytest.skip(message)
