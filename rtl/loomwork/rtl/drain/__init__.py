# SPDX-License-Identifier: Apache-2.0
"""The DRAIN unit: takes finished sums or scratchpad bytes, requantizes, combines, pools, writes to the scratchpad.

`walker` counts through the loops of a command, `address` turns each step into places in memory, `launcher` makes the
reads, `datapath` computes, `writer` puts the bytes in place. Everything that can wait lies before the launch or behind
the last stage: a step that is launched moves on by one stage per cycle.
"""

from loomwork.rtl.drain.unit import Drain

__all__ = ["Drain"]
