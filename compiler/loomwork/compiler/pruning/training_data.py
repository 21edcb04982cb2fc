# SPDX-License-Identifier: Apache-2.0
"""Examples to train with: arrays that are checked once, and handed out in batches."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loomwork.compiler.graph import CompileError
from loomwork.compiler.torch_extra import require_torch

if TYPE_CHECKING:
    import torch


class Batches:
    """Pairs of inputs and class numbers, shuffled anew each time they are gone through.

    x: float `[n, ...]`, as `forward` takes them; y: class numbers, `[n]` of an integer type. shape: of one example, and
    classes: how many there are; both checked if they are given. size: examples of a batch; the last one may be smaller,
    but one example alone is left out, for batch normalization cannot be trained with it. shuffled: in an order from
    PyTorch's generator, which `fine_tune` seeds. augment: what is done to the inputs of each batch.

    Raises CompileError when PyTorch is missing, or the arrays are empty, of the wrong shape or type, hold values that
    are not finite, or classes that do not exist.
    """

    def __init__(
        self,
        x: NDArray[np.generic],
        y: NDArray[np.generic],
        *,
        shape: tuple[int, ...] | None = None,
        classes: int | None = None,
        size: int = 64,
        shuffled: bool = True,
        augment: "Callable[[torch.Tensor], torch.Tensor] | None" = None,
    ) -> None:
        require_torch()
        import torch

        _check(x, y, shape, classes)
        self.x = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        self.y = torch.from_numpy(np.ascontiguousarray(y, dtype=np.int64))
        self.size, self.shuffled, self.augment = size, shuffled, augment

    def __iter__(self) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        import torch

        n = len(self.y)
        order = torch.randperm(n) if self.shuffled else torch.arange(n)
        for chosen in order.split(self.size):
            if self.shuffled and len(chosen) == 1 and n > 1:
                continue
            x = self.x[chosen]
            yield x if self.augment is None else self.augment(x), self.y[chosen]


def _check(x: NDArray[np.generic], y: NDArray[np.generic], shape: tuple[int, ...] | None, classes: int | None) -> None:
    if not x.ndim:
        raise CompileError("x is a single number; its first axis has to count examples")
    if not x.size:
        raise CompileError(f"the training data are empty: x has shape {list(x.shape)}; give at least one example")
    if x.dtype.kind != "f":
        raise CompileError(f"x has to hold floating-point numbers, scaled as the network takes them, not {x.dtype}")
    if y.dtype.kind not in "iu":
        raise CompileError(f"y has to hold class numbers of an integer type, not {y.dtype}")
    if y.shape != x.shape[:1]:
        raise CompileError(
            f"y has shape {list(y.shape)}, but x has shape {list(x.shape)}: give one class number for each example, "
            f"shape {list(x.shape[:1])}"
        )
    if shape is not None and x.shape[1:] != shape:
        raise CompileError(
            f"x has examples of shape {list(x.shape[1:])}, but the network takes {list(shape)}: "
            "the first axis of x counts examples, the others are those of forward"
        )
    if not np.isfinite(x.astype(np.float64)).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(x.astype(np.float64)))[0])
        raise CompileError(
            f"x holds values that are not finite, the first at {list(where)} ({x[where]}): leave such examples out"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or (classes is not None and high >= classes):
        bad = low if low < 0 else high
        range_ = "0 or more" if classes is None else f"0 to {classes - 1}, for the network has {classes} outputs"
        raise CompileError(f"y holds class {bad}; classes are {range_}")
