# SPDX-License-Identifier: Apache-2.0
"""What the command set has room for, read from its table."""

from loomwork.arch.isa import BY_MNEMONIC


def largest(mnemonic: str, operand: str) -> int:
    """Largest legal value of an operand."""
    return next(field.high for field in BY_MNEMONIC[mnemonic].operands if field.name == operand)


MAX_HEIGHT = (1 << 16) - 1
MAX_ROW_BYTES = largest("LOAD", "row_stride") + 1 - 64
"""Of images in external memory, where rows begin at multiples of at most 64 bytes; layers are divided (divide.py)."""
MAX_STRIDE = largest("CONVOLVE", "y_step")
MAX_STEP_BYTES = largest("CONVOLVE", "x_step")
MAX_KERNEL_HEIGHT = largest("CONVOLVE", "kernel_rows")
MAX_TAPS = largest("CONVOLVE", "tap_count")
MAX_DILATION = largest("CONVOLVE", "row_step")
MAX_POOL_WINDOW = largest("DRAIN", "pool_height")
MAX_PIXEL_BYTES = largest("DRAIN", "in_step")
MAX_POOL_STRIDE = largest("DRAIN", "pool_y_step")
MAX_DENSE_BYTES = 1 << 24
"""Of a grouped convolution's kernel, filled up with zeros."""
