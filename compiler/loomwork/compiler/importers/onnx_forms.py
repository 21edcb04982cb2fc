# SPDX-License-Identifier: Apache-2.0
"""How an operator sees its tensors: as images, as rows of numbers, or as numbers one by one.

ONNX keeps channels in front of pixels, the accelerator behind them. Where each number of a tensor lies is an index: of
the tensor's shape, each entry a byte offset. An operator can take a tensor whose index is what its form asks for.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from loomwork.compiler.importers.onnx_codes import Index, natural
from loomwork.compiler.importers.onnx_units import Unit
from loomwork.compiler.limits import MAX_HEIGHT, MAX_KERNEL_HEIGHT, MAX_ROW_BYTES

Shape = tuple[int, int, int]
"""Height, width and channels of a feature map."""


class MisfitError(Exception):
    """An operator that the accelerator cannot execute as it is; says why."""


class LayoutError(MisfitError):
    """An operator whose tensors do not lie in memory as it sees them; numbers in other places would help."""


class Freedom(Enum):
    """Which other divisions of the same bytes into rows and pixels would do as well."""

    FIXED = auto()
    CHANNELS = auto()
    """Any with as many channels."""
    KERNEL = auto()
    """Any that a kernel can cover."""
    ALL = auto()


@dataclass(frozen=True)
class Want:
    """The feature map that an operator reads."""

    shape: Shape
    freedom: Freedom = Freedom.FIXED

    def accepts(self, shape: Shape) -> bool:
        """Whether a map of this shape, of the same bytes, would do."""
        match self.freedom:
            case Freedom.FIXED:
                return shape == self.shape
            case Freedom.CHANNELS:
                return shape[2] == self.shape[2]
            case Freedom.KERNEL:
                return shape[0] <= MAX_KERNEL_HEIGHT
            case Freedom.ALL:
                return True


class Form(ABC):
    """One way to see tensors.

    needs: what tensors must be like, for the reference page. alike: whether all maps that are read must have the same
    shape.
    """

    needs: str
    alike = False

    @abstractmethod
    def default(self, shape: tuple[int, ...]) -> Index:
        """Index of a tensor that comes from outside, as this form likes it best."""

    @abstractmethod
    def wants(self, unit: Unit, places: tuple[Index, ...]) -> tuple[Want, ...]:
        """The maps that the unit reads. places: index of each source. Raises MisfitError."""

    @abstractmethod
    def result(self, unit: Unit, places: tuple[Index, ...]) -> Index:
        """Index of the operator's own result."""

    @abstractmethod
    def made(self, unit: Unit, places: tuple[Index, ...], read: tuple[Shape, ...]) -> Shape:
        """Shape of the map that the unit writes, when it reads maps of these shapes."""


def channels_last(shape: tuple[int, ...]) -> Index:
    """Index of a tensor `[1, channels, ...]` whose channels lie side by side."""
    if len(shape) < 3:
        return natural(shape)
    last = natural((shape[0], *shape[2:], shape[1]))
    return np.moveaxis(last, -1, 1)


def image_shape(shape: tuple[int, ...]) -> Shape:
    """Height, width and channels of `[1, channels, height, width]`, `[1, channels, length]` or `[1, channels]`."""
    height, width = (1, 1, *shape[2:])[-2:]
    return height, width, shape[1]


class ImageForm(Form):
    """Tensors `[1, channels, height, width]`, or with one spatial dimension only."""

    needs = "one image at a time, `[1, channels, height, width]` or `[1, channels, length]`, not transposed"

    def default(self, shape: tuple[int, ...]) -> Index:
        """See `Form`."""
        return channels_last(shape)

    def wants(self, unit: Unit, places: tuple[Index, ...]) -> tuple[Want, ...]:
        """See `Form`."""
        del unit
        return tuple(self._want(place) for place in places)

    def result(self, unit: Unit, places: tuple[Index, ...]) -> Index:
        """See `Form`."""
        del places
        return channels_last(unit.result_shape)

    def made(self, unit: Unit, places: tuple[Index, ...], read: tuple[Shape, ...]) -> Shape:
        """See `Form`."""
        del read, places
        return image_shape(unit.result_shape)

    def _want(self, place: Index) -> Want:
        if not 2 <= place.ndim <= 4:
            raise MisfitError(f"it reads a tensor of {place.ndim} dimensions, an image has up to 4")
        if place.shape[0] != 1:
            raise MisfitError(f"its input {_times(place.shape)} is a batch; the accelerator needs a batch of 1")
        if not np.array_equal(place, channels_last(place.shape)):
            raise LayoutError("its input is reshaped or transposed, so that it does not lie in memory as an image")
        return Want(fitting(image_shape(place.shape)))


class RowsForm(Form):
    """Tensors of which the last dimension is multiplied with a matrix."""

    needs = "rows that lie in memory one behind the other, or a single one, in any order"

    def default(self, shape: tuple[int, ...]) -> Index:
        """See `Form`."""
        return natural(shape)

    def wants(self, unit: Unit, places: tuple[Index, ...]) -> tuple[Want, ...]:
        """See `Form`."""
        (place,) = places
        if not place.ndim or len(unit.shape(1)) != 2:
            raise MisfitError(f"its matrix has {len(unit.shape(1))} dimensions; the accelerator needs 2")
        depth = place.shape[-1]
        if place.size == depth:
            return (Want(fitting((1, 1, depth)), Freedom.KERNEL),)
        if not np.array_equal(place.reshape(-1), np.arange(place.size)):
            raise LayoutError("the rows it multiplies do not lie in memory one behind the other")
        return (Want(fitting((1, place.size // depth, depth)), Freedom.CHANNELS),)

    def result(self, unit: Unit, places: tuple[Index, ...]) -> Index:
        """See `Form`."""
        del places
        return natural(unit.result_shape)

    def made(self, unit: Unit, places: tuple[Index, ...], read: tuple[Shape, ...]) -> Shape:
        """See `Form`."""
        del places
        units = unit.result_shape[-1]
        if math.prod(unit.result_shape) == units:
            return 1, 1, units
        height, width, _ = read[0]
        return height, width, units


class ValuesForm(Form):
    """Tensors that are treated number by number; several must have their numbers in the same places."""

    needs = "tensors of any shape; of several, what is stretched to the others or lies in another order is copied first"
    alike = True

    def default(self, shape: tuple[int, ...]) -> Index:
        """See `Form`."""
        return channels_last(shape)

    def wants(self, unit: Unit, places: tuple[Index, ...]) -> tuple[Want, ...]:
        """See `Form`."""
        first = places[0]
        for place in places:
            if place.shape != unit.result_shape:
                raise MisfitError(
                    f"it stretches a tensor {_times(place.shape)} to {_times(unit.result_shape)}; "
                    f"the accelerator needs tensors of the same shape"
                )
            if not np.array_equal(place, first):
                raise LayoutError("its inputs do not have their numbers in the same places")
        if np.array_equal(first, channels_last(first.shape)) and 2 <= first.ndim <= 4:
            # The images of a batch lie one below the other.
            height, width, channels = image_shape(first.shape)
            shape = (first.shape[0] * height, width, channels)
        else:
            shape = (1, first.size // first.shape[-1], first.shape[-1]) if first.ndim else (1, 1, 1)
        return tuple(Want(fitting(shape), Freedom.ALL) for _ in places)

    def result(self, unit: Unit, places: tuple[Index, ...]) -> Index:
        """See `Form`."""
        del unit
        return places[0]

    def made(self, unit: Unit, places: tuple[Index, ...], read: tuple[Shape, ...]) -> Shape:
        """See `Form`."""
        del unit, places
        return read[0]


class MeanForm(ImageForm):
    """Tensors that are averaged over some dimensions, of which the others are channels."""

    needs = "numbers to average that lie in memory as the pixels of an image"

    def wants(self, unit: Unit, places: tuple[Index, ...]) -> tuple[Want, ...]:
        """See `Form`."""
        (place,) = places
        axes = reduced_axes(unit)
        kept = [axis for axis in range(place.ndim) if axis not in axes]
        pixels = [n for axis, n in enumerate(place.shape) if axis in axes and n > 1]
        channels = math.prod(place.shape[axis] for axis in kept)
        order = place.transpose([*axes, *kept]).reshape(-1)
        if len(pixels) > 2 or not np.array_equal(order, np.arange(place.size)):
            raise LayoutError("the numbers it averages do not lie in memory as the pixels of an image")
        height, width = [1, 1, *pixels][-2:]
        return (Want(fitting((height, width, channels))),)

    def result(self, unit: Unit, places: tuple[Index, ...]) -> Index:
        """See `Form`."""
        del places
        return natural(unit.result_shape)

    def made(self, unit: Unit, places: tuple[Index, ...], read: tuple[Shape, ...]) -> Shape:
        """See `Form`."""
        del unit, places
        return 1, 1, read[0][2]


def reduced_axes(unit: Unit) -> list[int]:
    """The dimensions over which a pooling of the whole image or a ReduceMean goes."""
    shape = unit.shape(0)
    if unit.node.op != "ReduceMean":
        return list(range(2, len(shape)))
    given = unit.constant(1) if unit.has(1) else unit.node.attributes.get("axes")
    if unit.has(1) and given is None:
        raise MisfitError("the dimensions it averages over are computed")
    if given is None or not len(given):
        return [] if unit.node.attributes.get("noop_with_empty_axes") else list(range(len(shape)))
    return sorted({int(axis) % len(shape) for axis in given})


class MovesForm(Form):
    """Tensors whose numbers are only moved: they may lie anywhere."""

    needs = "tensors of any shape"

    def default(self, shape: tuple[int, ...]) -> Index:
        """See `Form`."""
        return channels_last(shape)

    def wants(self, unit: Unit, places: tuple[Index, ...]) -> tuple[Want, ...]:
        """See `Form`."""
        del unit
        return tuple(Want(fitting(map_shape(_once(place))), Freedom.ALL) for place in places)

    def result(self, unit: Unit, places: tuple[Index, ...]) -> Index:
        """See `Form`."""
        # As the first source has it: what reads the result most likely sees it in the same way.
        first, shape = places[0], unit.result_shape
        plain = np.array_equal(first.reshape(-1), np.arange(first.size)) and len(shape) != 4
        return natural(shape) if plain else channels_last(shape)

    def made(self, unit: Unit, places: tuple[Index, ...], read: tuple[Shape, ...]) -> Shape:
        """See `Form`."""
        del read
        return map_shape(self.result(unit, places))


def _once(place: Index) -> Index:
    """A view that reads a tensor again and again, but each number once."""
    for axis, size in enumerate(place.shape):
        first = np.take(place, [0], axis=axis)
        if size > 1 and (place == first).all():
            place = first
    return place


def map_shape(place: Index) -> Shape:
    """The feature map that a tensor most likely is, by where its numbers lie."""
    if 2 <= place.ndim <= 4 and place.shape[0] == 1 and np.array_equal(place, channels_last(place.shape)):
        return image_shape(place.shape)
    return (1, place.size // place.shape[-1], place.shape[-1]) if place.ndim else (1, 1, 1)


IMAGE, ROWS, VALUES, MEAN, MOVES = ImageForm(), RowsForm(), ValuesForm(), MeanForm(), MovesForm()


def fitting(shape: Shape) -> Shape:
    """The shape itself. Raises MisfitError when external memory has no place for such an image."""
    height, width, channels = shape
    if height > MAX_HEIGHT or width * channels > MAX_ROW_BYTES:
        raise MisfitError(
            f"its image has {height} rows of {width * channels} bytes; "
            f"the accelerator has room for {MAX_HEIGHT} of {MAX_ROW_BYTES}"
        )
    return shape


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "of a single number"
