# SPDX-License-Identifier: Apache-2.0
"""The pruning experiment: its networks, its division of images, and that a run goes on where it was cut short."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from examples.pruning import datasets, train
from examples.pruning.networks import DigitsNet, ResNet8
from loomwork.arch.config import TINY
from loomwork.compiler.pruning.torch_layers import torch_layers


def images_file(path: Path) -> Path:
    """Three classes of 5x5 images, sorted: the last is in the test part only. Its pixels tell which image it is."""
    count, classes = 30, 3
    x = np.arange(count, dtype=np.uint8)[:, None, None].repeat(5, axis=1).repeat(5, axis=2)
    y = np.arange(count) // (count // classes)
    np.savez(path, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    return path


def test_resnet8_is_that_of_the_benchmark():
    layers = torch_layers(ResNet8(), (torch.zeros(1, 3, 32, 32),))
    assert sum(layer.macs for layer in layers) == 12_501_632  # as of MLPerf Tiny's int8 model
    assert len(layers) == 10


def test_the_digits_network_has_ten_scores():
    with torch.no_grad():
        assert DigitsNet()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_images_are_divided_anew_with_every_class_in_both_parts(tmp_path: Path):
    data = datasets.load(images_file(tmp_path / "x.npz"), held_out=4, most=5, augmented=False)
    identity = {part: ((part.x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist() for part in (data.train, data.test)}
    assert data.train.x.shape == (15, 1, 5, 5)
    assert [np.bincount(part.y.numpy()).tolist() for part in (data.train, data.test)] == [[5] * 3, [4] * 3]
    assert len({*identity[data.train], *identity[data.test]}) == 27
    for part, numbers in identity.items():
        assert [number // 10 for number in numbers] == part.y.tolist()


def test_augmentation_moves_images_by_up_to_four_pixels():
    torch.manual_seed(0)
    image = torch.zeros(64, 1, 9, 9)
    image[:, 0, 4, 4] = 1
    moved = [datasets.shift_and_mirror(image) for _ in range(20)]
    assert all(batch.shape == image.shape and bool((batch.sum((1, 2, 3)) == 1).all()) for batch in moved)
    assert len({int(batch[0].argmax()) for batch in moved}) > 5


def test_a_run_goes_on_where_it_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def tiny() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
        )

    experiment = replace(
        train.EXPERIMENTS["digits"], make=tiny, held_out=4, most=5, shape=(1, 1, 5, 5), spared=("0",), epochs=1
    )
    monkeypatch.setitem(train.EXPERIMENTS, "tiny", experiment)
    monkeypatch.setattr(train, "SPARSITIES", (0.5,))
    file, output = images_file(tmp_path / "x.npz"), tmp_path / "out"
    output.mkdir()
    train.run("tiny", file, output, TINY)
    table = json.loads((output / "table.json").read_text())
    assert [(row["network"], row["mode"], row["sparsity"]) for row in table] == [
        ("tiny", "none", 0),
        ("tiny", "channels", 0.5),
        ("tiny", "blocks", 0.5),
    ]
    dense, channels, blocks = table
    assert all((row["classes"], row["test_images"]) == (3, 12) for row in table)
    assert dense["macs"] == blocks["macs"] == 9 * 9 * 8 + 72 * 8 + 8 * 3
    assert channels["macs"] == 9 * 9 * 4 + 36 * 4 + 4 * 3
    # One channel of 3x3 taps in 4 rows, 8 channels twice, 3 outputs of one tile of 4: 6, 36 and 2 tiles.
    assert (dense["zero_tiles"], blocks["tiles"], blocks["zero_tiles"]) == (0, 44, 19)
    for row in table:
        onnx.checker.check_model(onnx.load(output / row["onnx"]))

    (output / "tiny-blocks-50.json").unlink()
    made = []
    monkeypatch.setattr(train, "fine_tune", lambda *_, **__: made.append(1))
    train.run("tiny", file, output, TINY)
    assert made == [1]
    assert [row["mode"] for row in json.loads((output / "table.json").read_text())] == ["none", "channels", "blocks"]
