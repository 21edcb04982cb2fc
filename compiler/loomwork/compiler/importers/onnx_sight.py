# SPDX-License-Identifier: Apache-2.0
"""What a unit becomes layers from: the maps it reads and writes, and its window over an image."""

from collections.abc import Callable
from dataclasses import dataclass, field

from loomwork.compiler.graph import FeatureMap, Layer
from loomwork.compiler.importers.onnx_codes import Index
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_units import Unit

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a layer is made from: the maps that are read and the one that is written.

    places: where the numbers of each source lie. result: where those of the operator's own result do.
    """

    inputs: tuple[FeatureMap, ...]
    places: tuple[Index, ...]
    output: FeatureMap
    result: Index


@dataclass(frozen=True, kw_only=True)
class Built:
    """Layers, in order, and the maps between them."""

    layers: tuple[Layer, ...]
    maps: tuple[FeatureMap, ...] = field(default=())


Build = Callable[[Unit, Sight], Built]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window over an image: (y, x) each. pad: before the image."""

    size: Pair
    stride: Pair
    dilation: Pair
    pad: Pair
    after: Pair


def window(unit: Unit, size: tuple[int, ...]) -> Window:
    """The window of a convolution or pooling, with one spatial dimension or two. size: of the kernel."""
    attributes = unit.node.attributes
    count = len(size)
    if count > 2 or count != len(unit.shape(0)) - 2:
        raise MisfitError(f"it goes over {len(unit.shape(0)) - 2} dimensions; the accelerator needs one or two")
    stride = tuple(attributes.get("strides") or [1] * count)
    dilation = tuple(attributes.get("dilations") or [1] * count)
    pads = list(attributes.get("pads") or [0] * 2 * count)
    before, after = pads[:count], pads[count:]
    mode = attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for axis in range(count):
            reach = (unit.result_shape[2 + axis] - 1) * stride[axis] + (size[axis] - 1) * dilation[axis] + 1
            total = max(0, reach - unit.shape(0)[2 + axis])
            small = total // 2
            before[axis], after[axis] = (small, total - small) if mode == "SAME_UPPER" else (total - small, small)
    elif mode == "VALID":
        before, after = [0] * count, [0] * count
    if min(*before, *after) < 0:
        raise MisfitError(f"its padding {pads} is negative")
    return Window(
        size=_pair(size, 1),
        stride=_pair(stride, 1),
        dilation=_pair(dilation, 1),
        pad=_pair(before, 0),
        after=_pair(after, 0),
    )


def _pair(values: tuple[int, ...] | list[int], missing: int) -> Pair:
    y, x = [missing, *(int(value) for value in values)][-2:]
    return y, x
