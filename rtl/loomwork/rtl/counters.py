# SPDX-License-Identifier: Apache-2.0
"""Performance counters: cycles in which something happened, by the table of `arch/registers.py`."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.registers import COUNTERS
from loomwork.rtl.delay import delay

COUNTER_BITS = 32
EVENTS = data.StructLayout({name: 1 for name, _ in COUNTERS})
"""One bit per counter."""


class Counters(Component):
    """Counts the cycles in which an event is 1; wraps after 2**32.

    events: what happens in this cycle. enable: count. clear: set all to 0. values: the counters, three cycles later.
    """

    events: data.View
    enable: Signal
    clear: Signal
    values: data.View

    def __init__(self) -> None:
        values = data.StructLayout({name: COUNTER_BITS for name, _ in COUNTERS})
        super().__init__({"events": In(EVENTS), "enable": In(1), "clear": In(1), "values": Out(values)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Events are known late in their cycle, and far from here.
        events = data.View(EVENTS, delay(m, "happened", Value.cast(self.events), 2, reset=True))
        enable = delay(m, "enabled", self.enable, 2, reset=True)
        for name, _ in COUNTERS:
            # A signal of its own gives each counter its name in waveforms.
            count = Signal(COUNTER_BITS, name=name)
            m.d.comb += self.values[name].eq(count)
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(enable):
                m.d.sync += count.eq(count + events[name])
        return m
