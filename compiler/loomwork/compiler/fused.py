# SPDX-License-Identifier: Apache-2.0
"""What fusion makes of a convolution and the layers behind it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.compiler.graph import Combination, Convolution, Layer, MaxPool


@dataclass(frozen=True, kw_only=True)
class FusedConvolution(Layer):
    """A convolution whose result is combined with `operand` or looked up, and pooled, on its way out of the
    accumulators.

    combination: the sum or product, with the convolution's result as its `input`. table: as of `Table`, not together
    with `combination`. pool: the MAX_POOL_2D; its windows neither overlap nor reach over the border. operand: the
    second input of the combination, None without one.
    """

    convolution: Convolution
    combination: Combination | None = None
    table: NDArray[np.int8] | None = None
    pool: MaxPool | None = None
    operand: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Layer`."""
        return (self.input,) if self.operand is None else (self.input, self.operand)
