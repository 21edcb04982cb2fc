# SPDX-License-Identifier: Apache-2.0
"""A floorplan: multipliers and block RAMs get their places before nextpnr places the logic around them.

nextpnr's placers move the few large cells of a full device to the next free site one after the other, far from where
they want to be, and the logic follows. Here they are assigned to their sites all at once.
"""

from loomwork.fpga.floorplan.plan import fix_blocks, floorplan, recipe_of_floorplan

__all__ = ["fix_blocks", "floorplan", "recipe_of_floorplan"]
