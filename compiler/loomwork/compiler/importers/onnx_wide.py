# SPDX-License-Identifier: Apache-2.0
"""Weights that do not fit int8 once their zero point is taken off: -255 .. 255 instead of -128 .. 127.

Such a weight is the sum of two that fit. So the channels that the weights multiply come twice, and each weight is
shared out between the two: sum(x * w) = sum(x * a) + sum(x * b) with w = a + b.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.compiler.graph import FeatureMap, Layer, Move, Rearrange
from loomwork.compiler.importers.onnx_arithmetic import taken_over
from loomwork.compiler.importers.onnx_forms import MisfitError, fitting
from loomwork.compiler.importers.onnx_sight import Sight
from loomwork.compiler.importers.onnx_units import Unit


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A kernel that fits, and what its convolution reads instead. layers, maps: what makes that of the unit's input."""

    sight: Sight
    kernel: NDArray[np.int8]
    layers: tuple[Layer, ...] = ()
    maps: tuple[FeatureMap, ...] = ()


def fits(kernel: NDArray[np.int64]) -> bool:
    """Whether weights are int8."""
    return not kernel.size or (int(kernel.min()) >= INT8_MIN and int(kernel.max()) <= INT8_MAX)


def shared_out(unit: Unit, sight: Sight, kernel: NDArray[np.int64]) -> Shared:
    """A kernel `[height, width, in, out]` of any channels, in two parts along `in` if it does not fit.

    Raises MisfitError for a weight that two parts do not reach, which only 255 is.
    """
    if fits(kernel):
        return Shared(sight=sight, kernel=np.ascontiguousarray(kernel.astype(np.int8)))
    first = np.clip(kernel, INT8_MIN, INT8_MAX)
    rest = kernel - first
    if not fits(rest):
        raise MisfitError(
            f"its weights without their zero point are {kernel.min()} to {kernel.max()}; the accelerator needs "
            f"{2 * INT8_MIN} to {2 * INT8_MAX}"
        )
    source = sight.inputs[0]
    fitting((source.height, source.width, 2 * source.channels))
    twice = replace(source, name=f"{sight.output.name}/twice", channels=2 * source.channels, part=None)
    layer = Rearrange(
        name=f"{unit.name}/twice",
        operator=unit.node.op,
        input=source.name,
        output=twice.name,
        moves=tuple(_copy(source, start) for start in (0, source.channels)),
        requantize=(taken_over(),),
    )
    return Shared(
        sight=replace(sight, inputs=(twice, *sight.inputs[1:])),
        kernel=np.ascontiguousarray(np.concatenate([first, rest], axis=2).astype(np.int8)),
        layers=(layer,),
        maps=(twice,),
    )


def _copy(source: FeatureMap, start: int) -> Move:
    return Move(
        source=0,
        origin=(0, 0),
        step=(1, 1),
        channel=0,
        target=(0, 0),
        target_step=(1, 1),
        target_channel=start,
        height=source.height,
        width=source.width,
        channels=source.channels,
    )
