# SPDX-License-Identifier: Apache-2.0
"""`loomwork run` on the golden model: files in, files out."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.oracle import run_tflite_micro
from tests.programs import SCALE, ZERO_POINT


def test_a_batch_goes_in_and_comes_out(workspace: Path, loomwork):
    finished = loomwork("run", "copy.lwb", "--input", "x.npy", "--output", "y.npy")
    assert finished.code == 0
    assert finished.out == "wrote y.npy: y [6, 3, 5, 1]\n"
    assert np.array_equal(np.load("y.npy"), np.load("x.npy"))


def test_the_golden_model_has_no_clock(workspace: Path, loomwork):
    assert loomwork("run", "copy.lwb", "-i", "x.npy", "-o", "y.npy", "--json", "stats.json").code == 0
    statistics = json.loads(Path("stats.json").read_text())
    assert statistics["backend"] == "golden"
    assert statistics["images"] == 6
    assert statistics["cycles_per_image"] is None
    assert statistics["steps"] is None


def test_one_image_needs_no_batch(workspace: Path, loomwork):
    np.save("one.npy", np.load("x.npy")[2])
    assert loomwork("run", "copy.lwb", "-i", "one.npy", "-o", "y.npy").code == 0
    assert np.array_equal(np.load("y.npy"), np.load("x.npy")[2:3])


def test_several_inputs_and_outputs_go_by_name(workspace: Path, loomwork):
    finished = loomwork("run", "two.lwb", "--input", "two.npz", "--output", "y.npz")
    assert finished.out == "wrote y.npz: c [3, 3, 5, 1], d [3, 3, 5, 1]\n"
    given, got = np.load("two.npz"), np.load("y.npz")
    assert sorted(got.files) == ["c", "d"]
    assert np.array_equal(got["c"], given["a"])
    assert np.array_equal(got["d"], given["b"])
    given.close()
    got.close()


def test_an_archive_does_for_one_input_and_output_too(workspace: Path, loomwork):
    np.savez("x.npz", x=np.load("x.npy"))
    assert loomwork("run", "copy.lwb", "-i", "x.npz", "-o", "y.npz").code == 0
    with np.load("y.npz") as got:
        assert np.array_equal(got["y"], np.load("x.npy"))


def test_host_steps_run_in_the_same_command(workspace: Path, loomwork):
    real = np.linspace(-30, 30, 30, dtype=np.float32).reshape(2, 3, 5, 1)
    np.save("real.npy", real)
    assert loomwork("run", "real.lwb", "-i", "real.npy", "-o", "y.npy").code == 0
    expected = np.clip(np.round(real / np.float32(SCALE)) + ZERO_POINT, -128, 127)
    assert np.array_equal(np.load("y.npy"), expected)


def test_a_compiled_network_computes_what_tflite_micro_does(workspace: Path, loomwork):
    images = np.random.default_rng(5).integers(-128, 128, (7, 6, 6, 3), dtype=np.int8)
    np.save("images.npy", images)
    assert loomwork("compile", "net.tflite", "-o", "net.lwb", "--config", "tiny").code == 0
    assert loomwork("run", "net.lwb", "-i", "images.npy", "-o", "y.npy").code == 0
    model = Path("net.tflite").read_bytes()
    expected = np.concatenate([run_tflite_micro(model, [image[np.newaxis]])[0] for image in images])
    assert np.array_equal(np.load("y.npy"), expected)
    assert len(np.unique(expected, axis=0)) > 1


@pytest.mark.parametrize("name", ["out[bold].npy", ":cat:.npy", "größe.npy"])
def test_names_are_printed_as_they_are(name: str, workspace: Path, loomwork):
    assert f"wrote {name}: " in loomwork("run", "copy.lwb", "-i", "x.npy", "-o", name).out
    assert Path(name).is_file()
