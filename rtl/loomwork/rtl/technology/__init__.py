# SPDX-License-Identifier: Apache-2.0
"""What a component asks of the device it is built for: multipliers with their registers.

A component finds its technology by the `platform` that Amaranth hands to `elaborate`: its attribute `technology`, and
PORTABLE where there is none. Memories need no such seam (docs/decisions/0011-multiplier-seam.md).
"""

from loomwork.rtl.technology.portable import PORTABLE, Multiplier, Operand, SinglePortMemory, Technology, technology_of

__all__ = ["PORTABLE", "Multiplier", "Operand", "SinglePortMemory", "Technology", "technology_of"]
