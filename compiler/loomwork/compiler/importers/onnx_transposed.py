# SPDX-License-Identifier: Apache-2.0
"""ConvTranspose as a convolution that computes a block of pixels at once, and a rearrangement of the blocks.

With stride s, the pixels of the result fall into s x s classes by their position modulo s. Each class is an ordinary
convolution of the input with every s-th weight (Shi et al., "Is the deconvolution layer the same as a convolutional
layer?", 2016). All classes together are one convolution with s x s times the output channels.
"""

from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

from loomwork.compiler.graph import FeatureMap, Move, Rearrange
from loomwork.compiler.importers.onnx_arithmetic import taken_over
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_sight import Built, Pair, Sight, Window, window
from loomwork.compiler.importers.onnx_units import Unit
from loomwork.compiler.importers.onnx_weighted import channel_scales, weighted, weights


def transposed_convolution(unit: Unit, sight: Sight) -> Built:
    """ConvTranspose, with one or two spatial dimensions, without dilation."""
    found = weights(unit, 1)
    moves = window(unit, found.stored.shape[2:])
    if moves.dilation != (1, 1):
        raise MisfitError("it is dilated")
    groups = int(unit.node.attributes.get("group", 1))
    kernel = _whole(found.stored, groups)
    source, result = sight.inputs[0], sight.output
    pad = _pad(unit, moves, (source.height, source.width), (result.height, result.width))
    taps = tuple(ceil(size / step) for size, step in zip(moves.size, moves.stride, strict=True))
    first = tuple(before // step for before, step in zip(pad, moves.stride, strict=True))
    sizes = tuple(
        (size - 1 + before) // step - start + 1
        for size, before, step, start in zip((result.height, result.width), pad, moves.stride, first, strict=True)
    )
    before = tuple(count - 1 - start for count, start in zip(taps, first, strict=True))
    if min(before) < 0:
        raise MisfitError("it cuts off more than its kernel adds")
    classes = moves.stride[0] * moves.stride[1]
    blocks = FeatureMap(
        name=f"{result.name}/blocks",
        height=sizes[0],
        width=sizes[1],
        channels=classes * result.channels,
        zero_point=result.zero_point,
    )
    scales = channel_scales(found, 1) if groups == 1 else _group_scales(found.scale, found.axis, groups)
    convolution = weighted(
        unit,
        Sight(inputs=sight.inputs, places=sight.places, output=blocks, result=sight.result),
        _classes(kernel, moves.stride, (taps[0], taps[1])),
        scales=scales,
        pad=(before[0], before[1]),
        repeat=classes,
    )
    rearrange = Rearrange(
        name=f"{unit.name}/blocks",
        operator=unit.node.op,
        input=blocks.name,
        output=result.name,
        moves=tuple(_moves(result, pad, moves.stride, (first[0], first[1]))),
        requantize=(taken_over(),),
    )
    return Built(layers=(convolution, rearrange), maps=(blocks,))


def _whole(stored: NDArray[np.int64], groups: int) -> NDArray[np.int8]:
    """`[in, out of a group, (height,) width]` as `[height, width, in, out]`, with zeros between the groups."""
    depth, outs, *size = stored.shape
    height, width = [1, *size][-2:]
    kernel = np.zeros((height, width, depth, groups * outs), np.int8)
    per_group = depth // groups
    for group in range(groups):
        ins = slice(group * per_group, (group + 1) * per_group)
        part = stored[ins].reshape(per_group, outs, height, width).transpose(2, 3, 0, 1)
        kernel[:, :, ins, group * outs : (group + 1) * outs] = part
    return kernel


def _group_scales(scale: NDArray[np.float32], axis: int, groups: int) -> NDArray[np.float32]:
    if scale.size > 1 and axis != 1:
        raise MisfitError("its weights have a scale for each of another dimension than the output channels")
    return np.tile(scale, groups) if scale.size > 1 else scale


def _pad(unit: Unit, moves: Window, given: Pair, made: Pair) -> Pair:
    """What is cut off before the first pixel; auto_pad and output_shape share the whole out by their own rule."""
    attributes = unit.node.attributes
    mode = attributes.get("auto_pad", "NOTSET")
    if mode not in ("SAME_UPPER", "SAME_LOWER") and not attributes.get("output_shape"):
        return moves.pad
    extra = [0, 0, *(attributes.get("output_padding") or ())][-2:]
    whole = [(i - 1) * s + k + e for i, s, k, e in zip(given, moves.stride, moves.size, extra, strict=True)]
    totals = [max(0, size - o) for size, o in zip(whole, made, strict=True)]
    y, x = (total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in totals)
    return y, x


def _classes(kernel: NDArray[np.int8], stride: Pair, taps: Pair) -> NDArray[np.int8]:
    """The kernel of all classes, `[taps, taps, in, class (y, x) x out]`; later weights meet earlier pixels."""
    height, width, depth, outs = kernel.shape
    whole = np.zeros((*taps, depth, stride[0] * stride[1], outs), np.int8)
    for (y, x), (j, i) in product(np.ndindex(*stride), np.ndindex(*taps)):
        row, column = y + stride[0] * j, x + stride[1] * i
        if row < height and column < width:
            whole[taps[0] - 1 - j, taps[1] - 1 - i, :, y * stride[1] + x] = kernel[row, column]
    return whole.reshape(*taps, depth, -1)


def _moves(result: FeatureMap, pad: Pair, stride: Pair, first: Pair) -> list[Move]:
    """One for each class: from the channels of a block to every s-th pixel."""
    moves: list[Move] = []
    for phase in np.ndindex(*stride):
        starts, blocks, counts = [0, 0], [0, 0], [0, 0]
        for axis, size in enumerate((result.height, result.width)):
            starts[axis] = (phase[axis] - pad[axis]) % stride[axis]
            blocks[axis] = (starts[axis] + pad[axis]) // stride[axis] - first[axis]
            counts[axis] = len(range(starts[axis], size, stride[axis]))
        if min(counts) < 1:
            continue
        moves.append(
            Move(
                source=0,
                origin=(blocks[0], blocks[1]),
                step=(1, 1),
                channel=(phase[0] * stride[1] + phase[1]) * result.channels,
                target=(starts[0], starts[1]),
                target_step=stride,
                target_channel=0,
                height=counts[0],
                width=counts[1],
                channels=result.channels,
            )
        )
    return moves
