# SPDX-License-Identifier: Apache-2.0
"""Which tensors share a range, and what it is."""

from loomwork.compiler.quantization.sharing import share_ranges
from tests.compiler.quantization.graphs import model, node

X = [1, 4, 6, 6]


def test_what_is_joined_gets_the_union_of_what_goes_in():
    network = model(
        [
            node("Relu", "x", "a"),
            node("Sigmoid", "x", "b"),
            node("Concat", "a b", "c", axis=1),
            node("Transpose", "c", "d", perm=[0, 2, 3, 1]),
            node("Tanh", "d", "y"),
        ],
        {"x": X},
        {"y": [1, 6, 6, 8]},
    )
    own = {"x": (-9.0, 9.0), "a": (0.0, 5.0), "b": (-2.0, 1.0), "c": (-8.0, 8.0), "d": (-7.0, 9.0), "y": (-1.0, 1.0)}
    joined = (-2.0, 5.0)
    expected = {"x": (-9.0, 9.0), "a": joined, "b": joined, "c": joined, "d": joined, "y": (-1.0, 1.0)}
    assert share_ranges(network, own) == expected


def test_a_pool_repeats_values_of_its_input():
    network = model([node("MaxPool", "x", "y", kernel_shape=[2, 2])], {"x": X}, {"y": [1, 4, 5, 5]})
    assert share_ranges(network, {"x": (-3.0, 4.0), "y": (-4.0, 6.0)}) == {"x": (-3.0, 4.0), "y": (-3.0, 4.0)}


def test_tensors_without_a_range_are_passed_over():
    network = model([node("Reshape", "x shape", "y")], {"x": X, "shape": [2]}, {"y": [1, 144]})
    assert share_ranges(network, {"y": (0.0, 1.0)}) == {"y": (0.0, 1.0)}
