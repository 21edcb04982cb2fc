# SPDX-License-Identifier: Apache-2.0
"""Training data: batches hold every example once, and what is wrong with the arrays is said."""

import numpy as np
import pytest
import torch

from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.training_data import Batches

X = np.arange(20, dtype=np.float64).reshape(10, 2)
Y = np.arange(10) % 3


def rows(batches: Batches) -> list[tuple[float, ...]]:
    return [(*x.tolist(), float(y)) for xs, ys in batches for x, y in zip(xs, ys, strict=True)]


def test_every_example_comes_once_in_another_order_each_time():
    torch.manual_seed(1)
    batches = Batches(X, Y, size=4)
    assert [len(y) for _, y in batches] == [4, 4, 2]
    first, second = rows(batches), rows(batches)
    expected = [(float(2 * i), float(2 * i + 1), float(i % 3)) for i in range(10)]
    assert first != second
    assert sorted(first) == sorted(second) == expected
    assert rows(Batches(X, Y, size=4, shuffled=False)) == expected


def test_no_batch_of_one_example_unless_it_is_the_only_one():
    assert [len(y) for _, y in Batches(X, Y, size=3)] == [3, 3, 3]
    assert [len(y) for _, y in Batches(X, Y, size=3, shuffled=False)] == [3, 3, 3, 1]
    assert [len(y) for _, y in Batches(X[:1], Y[:1])] == [1]


def test_augmentation_changes_inputs_only():
    ((x, y),) = Batches(X, Y, shuffled=False, augment=lambda x: -x)
    np.testing.assert_array_equal(x.numpy(), -X)
    np.testing.assert_array_equal(y.numpy(), Y)


def with_value(value: float) -> np.ndarray:
    x = X.copy()
    x[3, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (X[:0], Y[:0], r"^the training data are empty: x has shape \[0, 2\]; give at least one example"),
        (X[:, :0], Y, r"^the training data are empty: x has shape \[10, 0\]"),
        (np.float32(1), Y, r"^x is a single number; its first axis has to count examples"),
        (X.astype(np.uint8), Y, r"^x has to hold floating-point numbers, scaled as the network takes them, not uint8"),
        (X, Y.astype(np.float32), r"^y has to hold class numbers of an integer type, not float32"),
        (X, Y[:9], r"^y has shape \[9\], but x has shape \[10, 2\]: give one class number for each example"),
        (X, np.eye(10, dtype=int), r"^y has shape \[10, 10\], but x"),
        (X[:, :1], Y, r"^x has examples of shape \[1\], but the network takes \[2\]"),
        (with_value(np.nan), Y, r"^x holds values that are not finite, the first at \[3, 1\] \(nan\)"),
        (with_value(-np.inf), Y, r"^x holds values that are not finite, the first at \[3, 1\] \(-inf\)"),
        (X, Y + 1, r"^y holds class 3; classes are 0 to 2, for the network has 3 outputs"),
        (X, Y - 1, r"^y holds class -1; classes are 0 to 2"),
    ],
)
def test_bad_arrays(x: np.ndarray, y: np.ndarray, text: str):
    with pytest.raises(CompileError, match=text):
        Batches(np.asarray(x), y, shape=(2,), classes=3)
