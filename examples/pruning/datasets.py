# SPDX-License-Identifier: Apache-2.0
"""The images of the experiment, as the networks take them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from loomwork.compiler.pruning.training_data import Batches

BATCH = 64
BORDER = 4
SEED = 2024


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images to train with, and others to test with."""

    train: Batches
    test: Batches


def load(file: Path, *, held_out: int, most: int, augmented: bool) -> Dataset:
    """Read `x_train`, `y_train`, `x_test`, `y_test`: uint8 images `[n, h, w]` or `[n, h, w, channels]` and classes.

    Pixels become float32 of -1 to 1, `[n, channels, h, w]`. augmented: training images are shifted and mirrored.

    An excerpt of a data set that is sorted by class has classes in its test part that its training part lacks. So both
    are put together and divided anew, always the same way: of each class `held_out` images to test with, which makes
    the accuracy a mean over classes, and of the others at most `most` to train with.
    """
    with np.load(file) as arrays:
        images = scaled(np.concatenate([arrays["x_train"], arrays["x_test"]]))
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
    noise = np.random.default_rng(SEED)
    of_class = [noise.permutation(np.flatnonzero(labels == number)) for number in np.unique(labels)]
    test = np.concatenate([places[:held_out] for places in of_class])
    train = np.concatenate([places[held_out : held_out + most] for places in of_class])
    return Dataset(
        train=Batches(images[train], labels[train], size=BATCH, augment=shift_and_mirror if augmented else None),
        test=Batches(images[test], labels[test], size=250, shuffled=False),
    )


def scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """From grey levels to numbers around 0."""
    images = images[..., None] if images.ndim == 3 else images
    return (images.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)


def shift_and_mirror(images: torch.Tensor) -> torch.Tensor:
    """Move a batch by up to four pixels, mirror half of its images; randomly, from PyTorch's generator."""
    height, width = images.shape[2:]
    mirrored = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images.flip(3))
    padded = pad(mirrored, [BORDER] * 4)
    y, x = (int(offset) for offset in torch.randint(0, 2 * BORDER + 1, (2,)))
    return padded[:, :, y : y + height, x : x + width]
