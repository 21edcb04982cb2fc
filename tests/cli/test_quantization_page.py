# SPDX-License-Identifier: Apache-2.0
"""docs/quantization.md: its text is the generator's, its figures are measured."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from loomwork.cli import quantization_page
from loomwork.cli.quantization_networks import Inputs, Network, faces, patches
from tests.compiler.quantization.graphs import conv_relu_conv, samples
from tests.models import data_path

PAGE = Path(__file__).parents[2] / "docs" / "quantization.md"


def test_the_page_begins_with_the_generators_text():
    assert PAGE.read_text(encoding="utf-8").startswith(quantization_page._page([]))


def test_every_network_is_on_the_page():
    titles = re.findall(r"^### (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == [network.title for network in quantization_page.NETWORKS]


def test_a_network_gets_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    onnx.save_model(conv_relu_conv(), tmp_path / "small.onnx")
    inputs = Inputs(calibration={"x": samples(6, 3, 6, 6)}, unseen={"x": samples(4, 3, 6, 6, seed=9)})
    monkeypatch.setattr(
        quantization_page, "NETWORKS", (Network(title="small", file="small.onnx", inputs=lambda _: inputs),)
    )
    monkeypatch.setattr("sys.argv", ["quantization_page", str(tmp_path), str(tmp_path), str(tmp_path / "page.md")])
    quantization_page.main()
    text = (tmp_path / "page.md").read_text()
    assert "### small\n\n`small.onnx`, 6 samples for calibration.\n" in text
    assert len(re.findall(r"^\| (?:minmax|percentile|entropy|mse) \| [\d.]+ \| [\d.]+ \|$", text, re.MULTILINE)) == 4
    ((calibration, unseen),) = re.findall(r"^\| y \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert float(calibration) > 25
    assert float(unseen) > 20
    assert "| n0 | Conv + Relu |" in text


@pytest.mark.parametrize(("inputs", "shape"), [(faces, (24, 3, 240, 320)), (patches, (192, 3, 4, 4))])
def test_calibration_and_unseen_parts_of_photographs_differ(inputs, shape: tuple[int, ...]):
    found = inputs(data_path("photos/cat.bmp").parents[1])
    seen, unseen = found.calibration["input"], found.unseen["input"]
    assert seen.shape == unseen.shape == shape
    assert seen.dtype == np.float32
    assert not np.array_equal(seen, unseen)
    assert -1 <= seen.min() < seen.max() <= 1.01
