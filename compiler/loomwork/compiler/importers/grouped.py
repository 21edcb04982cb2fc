# SPDX-License-Identifier: Apache-2.0
"""Grouped convolutions as dense ones."""

import numpy as np
from numpy.typing import NDArray


def dense_kernel(weights: NDArray[np.int8], groups: int) -> NDArray[np.int8]:
    """Fill the kernel of a grouped convolution up with zeros, to all input channels.

    weights: `[kernel height, kernel width, input channels of one group, output channels]`.
    """
    height, width, depth, channels = weights.shape
    dense = np.zeros((height, width, groups * depth, channels), np.int8)
    per_group = channels // groups
    for group in range(groups):
        outputs = slice(group * per_group, (group + 1) * per_group)
        dense[:, :, group * depth : (group + 1) * depth, outputs] = weights[:, :, :, outputs]
    return dense
