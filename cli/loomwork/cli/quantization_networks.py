# SPDX-License-Identifier: Apache-2.0
"""Networks and inputs on which docs/quantization.md measures: digits for a classifier, photographs for the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.generic]

_PHOTOS = ("bird.bmp", "cat.bmp", "grace_hopper.bmp")
_CROPS = 8
"""Of each photograph, at random, for calibration; and as many others that the network has not seen."""
_DIGITS = 100


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """calibration, unseen: `[samples, ...]` by input name. test: inputs and labels for accuracy."""

    calibration: Mapping[str, Array]
    unseen: Mapping[str, Array]
    test: tuple[Mapping[str, Array], Array] | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """title: what it is and what it gets. file: below the folder of models. inputs: made from the folder of data."""

    title: str
    file: str
    inputs: Callable[[Path], Inputs]


def digits(data: Path, largest: int) -> Inputs:
    """MNIST digits, from 0 for paper to `largest` for ink."""
    with np.load(data / "mnist.npz") as arrays:
        train, images, labels = arrays["x_train"], arrays["x_test"], arrays["y_test"]

    def scaled(pixels: Array) -> dict[str, Array]:
        return {"Input3": (pixels[:, None].astype(np.float32) * np.float32(largest / 255)).astype(np.float32)}

    return Inputs(calibration=scaled(train[:_DIGITS]), unseen=scaled(images[:_DIGITS]), test=(scaled(images), labels))


def faces(data: Path) -> Inputs:
    """Parts of photographs, 320 x 240 pixels of (value - 127) / 128."""

    def normalized(pixels: Array) -> Array:
        return ((pixels.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2)

    crops = _crops(data, width=320, height=240, share=0.5, count=2 * _CROPS)
    return Inputs(calibration={"input": normalized(crops[0::2])}, unseen={"input": normalized(crops[1::2])})


def patches(data: Path) -> Inputs:
    """Parts of photographs, 4 x 4 pixels of 0 to 1."""

    def normalized(pixels: Array) -> Array:
        return (pixels.astype(np.float32) / 255).transpose(0, 3, 1, 2)

    crops = _crops(data, width=4, height=4, share=0.02, count=16 * _CROPS)
    return Inputs(calibration={"input": normalized(crops[0::2])}, unseen={"input": normalized(crops[1::2])})


def _crops(data: Path, *, width: int, height: int, share: float, count: int) -> Array:
    """`[3 * count, height, width, 3]` uint8. share: the least part of a photograph's width and height."""
    random = np.random.default_rng(0)
    crops: list[Array] = []
    for name in _PHOTOS:
        with Image.open(data / "photos" / name) as photo:
            pixels = photo.convert("RGB")
        for _ in range(count):
            size = random.uniform(share, min(1.0, 2 * share)) * np.array(pixels.size)
            corner = random.uniform(0, 1, 2) * (np.array(pixels.size) - size)
            box = tuple(float(value) for value in (*corner, *(corner + size)))
            crops.append(np.asarray(pixels.resize((width, height), box=(box[0], box[1], box[2], box[3]))))
    return np.stack(crops)


NETWORKS = (
    Network(
        title="mnist_conv, digits from 0 to 255",
        file="onnx/mnist_conv.onnx",
        inputs=lambda data: digits(data, 255),
    ),
    Network(
        title="mnist_conv, digits from 0 to 1",
        file="onnx/mnist_conv.onnx",
        inputs=lambda data: digits(data, 1),
    ),
    Network(
        title="version-slim-320, face detector, parts of photographs",
        file="onnx/version-slim-320_without_postprocessing.onnx",
        inputs=faces,
    ),
    Network(
        title="espcn_subpixel, super-resolution, parts of photographs",
        file="onnx/espcn_subpixel_float.onnx",
        inputs=patches,
    ),
)
