# SPDX-License-Identifier: Apache-2.0
"""A unit's own copy of what reaches all units."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out


class Replica(Component):
    """A register of one unit for signals that reach all of them: the units lie far apart in a chip.

    Synthesis would make one register of all copies; a flow that wants them keeps the borders of this module until
    registers are mapped, as `loomwork.fpga.synthesis` does.

    clear, halt: of the control. unit_clear, unit_halt: the same for the unit, a cycle later.
    """

    clear: Signal
    halt: Signal
    unit_clear: Signal
    unit_halt: Signal

    def __init__(self) -> None:
        super().__init__({"clear": In(1), "halt": In(1), "unit_clear": Out(1), "unit_halt": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += [self.unit_clear.eq(self.clear), self.unit_halt.eq(self.halt)]
        return m
