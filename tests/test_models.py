# SPDX-License-Identifier: Apache-2.0
"""A network or data file that is not there is reported by name."""

from pathlib import Path

import pytest

from tests.models import data_path, model_path


def test_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "net.tflite").touch()
    monkeypatch.setenv("LOOMWORK_MODELS", str(tmp_path))
    monkeypatch.setenv("LOOMWORK_DATA", str(tmp_path))
    assert model_path("net.tflite") == data_path("net.tflite") == tmp_path / "net.tflite"


@pytest.mark.parametrize("find", [model_path, data_path])
def test_missing_fails_or_skips_by_name(find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOOMWORK_MODELS", str(tmp_path))
    monkeypatch.setenv("LOOMWORK_DATA", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("LOOMWORK_REQUIRE_MODELS", "1")
    with pytest.raises(pytest.fail.Exception, match=r"gone\.tflite is not in"):
        find("gone.tflite")
    monkeypatch.delenv("LOOMWORK_REQUIRE_MODELS")
    with pytest.raises(pytest.skip.Exception, match=r"gone\.tflite is not in"):
        find("gone.tflite")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"gone\.tflite is not in"):
        find("gone.tflite")
