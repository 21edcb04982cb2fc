# SPDX-License-Identifier: Apache-2.0
"""Calibration data that does not fit is refused by a sentence that says how it should be."""

import numpy as np
import pytest

from loomwork.compiler.quantization import QuantizeError
from loomwork.compiler.quantization.samples import check_samples
from tests.compiler.quantization.graphs import conv_relu_conv, model, node, normal

GOOD = normal(4, 3, 6, 6)


def with_nan() -> np.ndarray:
    bad = GOOD.copy()
    bad[2, 0, 0, :2] = np.nan, np.inf
    return bad


def test_each_sample_is_one_inference():
    samples = check_samples(conv_relu_conv(), {"x": GOOD})
    assert len(samples) == 4
    feeds = list(samples)
    np.testing.assert_array_equal(feeds[3]["x"], GOOD[3:])
    assert feeds[0]["x"].dtype == np.float32


def test_samples_may_have_the_batch_dimension():
    samples = check_samples(conv_relu_conv(), {"x": GOOD[:, None]})
    np.testing.assert_array_equal(list(samples)[1]["x"], GOOD[1:2])


def test_a_network_with_a_batch_takes_several_at_once():
    network = model([node("Relu", "x", "y")], {"x": [2, 3]}, {"y": [2, 3]})
    samples = check_samples(network, {"x": normal(6, 3)})
    assert [feed["x"].shape for feed in samples] == [(2, 3)] * 3
    with pytest.raises(QuantizeError, match="input x has 5 samples, but the network takes 2 at once: give a multiple"):
        check_samples(network, {"x": normal(5, 3)})


def test_wider_floats_become_float32():
    assert next(iter(check_samples(conv_relu_conv(), {"x": GOOD.astype(np.float64)})))["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"image": GOOD}, "calibration data has image, but the inputs are x: name the arrays like them$"),
        ({}, "calibration data has no array for input x: add one of that name$"),
        (
            {"x": normal(4, 6, 6, 3)},
            r"calibration data for input x is \[4, 6, 6, 3\], expected \[samples, 3, 6, 6\]: reshape it$",
        ),
        ({"x": normal(3, 6)}, r"input x is \[3, 6\], expected \[samples, 3, 6, 6\]"),
        (
            {"x": np.zeros((4, 3, 6, 6), np.uint8)},
            r"x is uint8, the network takes float32: convert it as in .* \(array / 255\)\.astype\('float32'\)$",
        ),
        ({"x": np.array(["a"])}, "calibration data for input x is <U1, the network takes float32"),
        ({"x": GOOD[:0]}, r"calibration data for input x is empty, \[0, 3, 6, 6\]: give some samples"),
        (
            {"x": with_nan()},
            "calibration data for input x has 2 values that are NaN or infinite: remove these samples$",
        ),
        ({"x": np.full((1, 3, 6, 6), 1e300)}, "input x has 108 values that are NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_named(data: dict[str, np.ndarray], sentence: str):
    with pytest.raises(QuantizeError, match=sentence):
        check_samples(conv_relu_conv(), data)


def test_inputs_need_as_many_samples_each():
    network = model([node("Add", "a b", "y")], {"a": [1, 3], "b": [1, 3]}, {"y": [1, 3]})
    with pytest.raises(
        QuantizeError, match=r"different numbers of samples \(4 for a, 5 for b\): give as many for each"
    ):
        check_samples(network, {"a": normal(4, 3), "b": normal(5, 3)})
