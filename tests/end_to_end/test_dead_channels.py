# SPDX-License-Identifier: Apache-2.0
"""The visual-wake-words network, half of which is dead: removing that changes nothing but the work."""

import numpy as np
import pytest
from numpy.typing import NDArray

from loomwork.arch.config import BASE
from loomwork.compiler.driver import compile_model
from loomwork.sim.backend import run_program
from loomwork.sim.golden import GoldenBackend
from tests.models import model_path
from tests.oracle import Oracle

VWW = "mlperf_tiny/vww_mbv1_025_int8.tflite"
IMAGES = 10


def waves(shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Noisy waves of random direction in every colour, `[IMAGES, *shape]`: plain noise gives hardly two results."""
    generator = np.random.default_rng(7)
    _, height, width, colours = shape
    y, x, _ = np.mgrid[:height, :width, :colours]
    images = np.empty((IMAGES, *shape), np.int8)
    for image in images:
        per_row, per_column, phase = generator.uniform(0.02, 0.3, (3, colours))
        noise = generator.integers(-27, 28, (height, width, colours))
        image[0] = np.round(100 * np.sin(per_row * y + per_column * x + 20 * phase)) + noise
    return images


@pytest.mark.parametrize("eliminate_dead", [True, False])
def test_outputs_equal_tflite_micro(eliminate_dead: bool) -> None:
    model = model_path(VWW)
    program = compile_model(model, BASE, eliminate_dead=eliminate_dead)
    oracle = Oracle(model)
    images = waves(oracle.input_shapes[0])
    (expected,) = oracle.run_batch([images])
    assert len(np.unique(expected)) > IMAGES, "the inputs do not exercise the network"
    found = run_program(program, {program.inputs[0]: images[:, 0]}, GoldenBackend()).outputs[program.outputs[0]]
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_half_of_the_multiplications_are_dead() -> None:
    """MACs of MobileNetV1 0.25 on 96 x 96 x 3 by its definition, and how many are dead."""
    totals = compile_model(model_path(VWW), BASE).report["totals"]
    assert totals["macs"] == 7_489_664
    assert totals["executed_macs"] + totals["dead_macs"] == totals["macs"]
    assert totals["dead_macs"] / totals["macs"] == pytest.approx(0.502, abs=0.0005)
    kept = compile_model(model_path(VWW), BASE, eliminate_dead=False).report["totals"]
    assert (kept["macs"], kept["executed_macs"]) == (7_489_664, 7_489_664)
    assert (kept["dead_macs"], kept["dead_channels"]) == (0, 0)
