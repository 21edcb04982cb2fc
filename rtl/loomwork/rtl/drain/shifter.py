# SPDX-License-Identifier: Apache-2.0
"""Pipelined shifters: take a few bytes out of a window of the scratchpad, or put them into one."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

LEVELS_PER_STAGE = 3
"""Levels of 2:1 multiplexers between registers."""


class _Shifter(Component):
    """Both directions.

    unit: bits that stay together. count: units outside a window of `2 * positions` units. i, amount, o: see below.
    stall: every stage keeps what it has.
    """

    i: Signal
    amount: Signal
    stall: Signal
    o: Signal

    def __init__(self, unit: int, count: int, positions: int, *, widens: bool) -> None:
        self._unit, self._count = unit, count
        self._levels = (positions - 1).bit_length()
        self._widens = widens
        few, window = unit * count, unit * 2 * positions
        super().__init__(
            {
                "i": In(few if widens else window),
                "amount": In(self._levels),
                "stall": In(1),
                "o": Out(window if widens else few),
            }
        )
        self.latency = -(-self._levels // LEVELS_PER_STAGE)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, amount = self.i, self.amount
        # A widening shifter begins with small steps and a narrowing one with large steps: that keeps `value` narrow.
        levels = range(self._levels) if self._widens else reversed(range(self._levels))
        for done, level in enumerate(levels, start=1):
            step = self._unit << level
            if self._widens:
                value = self._select(m, f"level_{level}", amount[level], value << step, value, len(value) + step)
            else:
                kept = self._unit * (self._count + (1 << level) - 1)
                value = self._select(m, f"level_{level}", amount[level], value >> step, value, kept)
            if done % LEVELS_PER_STAGE == 0 or done == self._levels:
                stage = Signal(len(value), name=f"stage_{done}", reset_less=True)
                next_amount = Signal(self._levels, name=f"amount_{done}", reset_less=True)
                with m.If(~self.stall):
                    m.d.sync += [stage.eq(value), next_amount.eq(amount)]
                value, amount = stage, next_amount
        m.d.comb += self.o.eq(value)
        return m

    @staticmethod
    def _select(m: Module, name: str, choice: Value, one: Value, zero: Value, width: int) -> Signal:
        result = Signal(width, name=name)
        with m.If(choice):
            m.d.comb += result.eq(one)
        with m.Else():
            m.d.comb += result.eq(zero)
        return result


class Extractor(_Shifter):
    """Takes `count` units of a window of `2 * positions` out of it, from unit `amount` on, in `latency` cycles.

    unit: bits of a unit. i: the window. amount: below `positions`. o: the units. stall: wait.
    Needs `count <= positions`.
    """

    def __init__(self, unit: int, count: int, positions: int) -> None:
        super().__init__(unit, count, positions, widens=False)


class Inserter(_Shifter):
    """Puts `count` units into a window of `2 * positions`, from unit `amount` on, zeros elsewhere, in `latency` cycles.

    unit: bits of a unit. i: the units. amount: below `positions`. o: the window. stall: wait.
    Needs `count <= positions`.
    """

    def __init__(self, unit: int, count: int, positions: int) -> None:
        super().__init__(unit, count, positions, widens=True)
