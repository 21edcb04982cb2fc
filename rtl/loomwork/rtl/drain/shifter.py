# SPDX-License-Identifier: Apache-2.0
"""Pipelined shifters: take a few bytes out of a window of the scratchpad, or put them into one."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from loomwork.rtl.thermometer import thermometer

LEVELS_PER_STAGE = 3
"""Levels of 2:1 multiplexers between registers."""


def stages(positions: int) -> int:
    """Cycles that it takes to shift by less than `positions`."""
    return -(-(positions - 1).bit_length() // LEVELS_PER_STAGE)


class Extractor(Component):
    """Takes `count` units of a window of `2 * positions` out of it, from unit `amount` on, in `latency` cycles.

    unit: bits of a unit. i: the window. amount: below `positions`. o: the units. Needs `count <= positions`.
    """

    i: Signal
    amount: Signal
    o: Signal

    def __init__(self, unit: int, count: int, positions: int) -> None:
        self._unit, self._count = unit, count
        self._levels = (positions - 1).bit_length()
        self.latency = stages(positions)
        super().__init__({"i": In(unit * 2 * positions), "amount": In(self._levels), "o": Out(unit * count)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, amount = self.i, self.amount
        # It begins with large steps: that keeps `value` narrow.
        for done, level in enumerate(reversed(range(self._levels)), start=1):
            kept = self._unit * (self._count + (1 << level) - 1)
            value = Mux(amount[level], value[self._unit << level :], value)[:kept]
            if done % LEVELS_PER_STAGE == 0 or done == self._levels:
                stage = Signal(len(value), name=f"stage_{done}", reset_less=True)
                next_amount = Signal(self._levels, name=f"amount_{done}", reset_less=True)
                m.d.sync += [stage.eq(value), next_amount.eq(amount)]
                value, amount = stage, next_amount
        m.d.comb += self.o.eq(value)
        return m


class Inserter(Component):
    """Puts some bytes into a window of `2 * positions`, from byte `amount` on, in `latency` cycles.

    i: the `lanes` bytes, of which the first ones are put. amount: below `positions`. end: of the byte behind the last
    one. stall: every stage keeps what it has. o: the window, with anything but where `mask` says that it is one of the
    bytes. wide: some lie in the second half of the window. Needs powers of two, `lanes <= positions`.
    """

    i: Signal
    amount: Signal
    end: Signal
    stall: Signal
    o: Signal
    mask: Signal
    wide: Signal

    def __init__(self, lanes: int, positions: int) -> None:
        self._lanes, self._positions = lanes, positions
        self.latency = stages(positions)
        super().__init__(
            {
                "i": In(8 * lanes),
                "amount": In(range(positions)),
                "end": In(range(2 * positions)),
                "stall": In(1),
                "o": Out(8 * 2 * positions),
                "mask": Out(2 * positions),
                "wide": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        window = 2 * self._positions

        # All happens in the last stage; those before wait, behind the slow output of a queue's memory.
        value, amount, end = self.i, self.amount, self.end
        for stage in range(1, self.latency):
            early = value, amount, end
            value, amount, end = late = [Signal.like(signal, name=f"{signal.name}_{stage}") for signal in early]
            with m.If(~self.stall):
                m.d.sync += [q.eq(d) for q, d in zip(late, early, strict=True)]

        # Byte `n` of the window can only be that byte which comes to `n % lanes` by rotation.
        for level in range(exact_log2(self._lanes)):
            value = Mux(amount[level], value.rotate_left(8 << level), value)
        rotated = Signal(8 * self._lanes, reset_less=True)
        with m.If(~self.stall):
            m.d.sync += [
                rotated.eq(value),
                self.mask.eq(thermometer(end, window) & ~thermometer(amount, window)),
                self.wide.eq(end > self._positions),
            ]
        m.d.comb += self.o.eq(rotated.replicate(window // self._lanes))
        return m
