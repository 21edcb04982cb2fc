# SPDX-License-Identifier: Apache-2.0
"""What fusion makes of a convolution and the layers behind it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.compiler.graph import Add, Convolution, Layer, MaxPool


@dataclass(frozen=True, kw_only=True)
class FusedConvolution(Layer):
    """A convolution whose result is added to `operand` or looked up, and pooled, on its way out of the accumulators.

    add: the ADD, with the convolution's result as its `input`. table: as of `Table`, not together with `add`. pool: the
    MAX_POOL_2D; its windows neither overlap nor reach over the border. operand: the second input of the ADD, None
    without one.
    """

    convolution: Convolution
    add: Add | None = None
    table: NDArray[np.int8] | None = None
    pool: MaxPool | None = None
    operand: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Layer`."""
        return (self.input,) if self.operand is None else (self.input, self.operand)
