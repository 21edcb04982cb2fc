# SPDX-License-Identifier: Apache-2.0
"""Which weights of a convolution share a weight tile of the array: what has to be zero together to be left out."""

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.arch.isa import MASK_PASSES
from loomwork.arch.reduction import passes
from loomwork.compiler.limits import largest
from loomwork.compiler.mapping import contiguous_taps

MAX_PASSES = largest("SKIP", "last") + 1
"""Most passes of a block of which a SKIP can leave out any."""


def weight_tiles(
    kernel_shape: tuple[int, int, int, int],
    config: Config,
    *,
    dilation: tuple[int, int] = (1, 1),
    depthwise: bool = False,
) -> NDArray[np.int64]:
    """The number of the weight tile that each weight of a convolution belongs to.

    kernel_shape: `(height, width, input channels, output channels)`, that of `Convolution.kernel`; of a TFLite
    CONV_2D, whose kernel is `[outputs, height, width, inputs]`, its axes in the order 1, 2, 3, 0; of an ONNX or torch
    kernel `[outputs, inputs, height, width]` in the order 2, 3, 1, 0. dilation: rows and columns, as the layer's.
    depthwise: whether each output channel has one input channel.

    Returns an array of the same shape. Weights with the same number make up one tile: at most `config.rows` neighbours
    of the flattened reduction times at most `config.cols` neighbouring output channels. If all of them are zero (for
    the layer's quantization, in int8), the tile is neither loaded nor computed by an engine with `block_sparsity`;
    it does not matter what other tiles hold. -1: zeros bring nothing there, in a depthwise convolution, behind the
    first MASK_PASSES passes of a block, and where a block has more than MAX_PASSES.

    Tiles are numbered in the order in which the array takes them: tile `b * passes + p` is pass `p` of block `b`, the
    output channels from `b * config.cols` on, with `passes` the same for all blocks. So numbers have no gaps as long
    as no weight has -1. One pass of a block always runs: where a whole block is zero, one of its tiles still costs its
    cycles. Ask with the shape that the layer has on the accelerator: a dead channel that the compiler removes moves
    those behind it.
    """
    height, width, inputs, outputs = kernel_shape
    if depthwise:
        return np.full(kernel_shape, -1, dtype=np.int64)
    length = contiguous_taps(width, dilation[1]) * inputs
    taps = width * inputs // length
    cut = list(passes(config.rows, height, length, dilation[0] if height > 1 else 1))
    count = taps * len(cut)
    of_tap = np.empty((height, length), dtype=np.int64)
    for number, segments in enumerate(cut):
        for segment in segments:
            of_tap[segment.kernel_row, segment.start : segment.start + segment.length] = number
    of_reduction = of_tap[:, np.newaxis] + np.arange(taps)[:, np.newaxis] * len(cut)
    blocks = np.arange(outputs) // config.cols
    tiles = of_reduction.reshape(height, width, inputs, 1) + blocks * count
    return np.where((tiles % count >= MASK_PASSES) | (count > MAX_PASSES), -1, tiles)
