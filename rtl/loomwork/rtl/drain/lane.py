# SPDX-License-Identifier: Apache-2.0
"""One lane of the drain: what becomes of one channel's values."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.isa import Combine
from loomwork.arch.numerics import ADD_LEFT_SHIFT
from loomwork.rtl.command import command_layout
from loomwork.rtl.compare import is_greater
from loomwork.rtl.delay import delay
from loomwork.rtl.drain.activation_table import ActivationTable
from loomwork.rtl.drain.clamp import Clamp
from loomwork.rtl.drain.layouts import has_operand
from loomwork.rtl.drain.parameters import CHANNEL_PARAMETERS
from loomwork.rtl.requantize import Requantizer
from loomwork.rtl.technology import Multiplier, Operand, technology_of


def connect_clamp(m: Module, clamp: Clamp, settings: data.View) -> None:
    """Take the limits of REQUANT or COMBINE."""
    m.d.comb += [
        clamp.zero_point.eq(settings.zero_point),
        clamp.minimum.eq(settings.minimum),
        clamp.maximum.eq(settings.maximum),
    ]


class SecondStage(Component):
    """ADD and MULTIPLY of one channel: rescales both values and sums, or multiplies them; requantizes, in
    `latency[mode]` cycles.

    add, multiply: which of them there are.

    settings: the COMBINE in force; mode: ADD or MULTIPLY. Both are constant while values pass.
    a, b: int8 values. result: int8.
    """

    settings: data.View
    mode: Signal
    a: Signal
    b: Signal
    result: Signal

    _finish = 1 + Requantizer.latency + Clamp.latency
    latency: ClassVar[Mapping[Combine, int]] = {
        Combine.ADD: 1 + Requantizer.latency + _finish,
        Combine.MULTIPLY: Multiplier.latency + _finish,
    }

    def __init__(self, *, add: bool, multiply: bool) -> None:
        self._add = add
        self._multiply = multiply
        super().__init__(
            {
                "settings": In(command_layout("COMBINE")),
                "mode": In(Combine),
                "a": In(signed(8)),
                "b": In(signed(8)),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        settings = self.settings
        operands: list[Operand] = []
        for name, value in (("a", self.a), ("b", self.b)):
            difference = value - settings[f"zero_{name}"]
            register = Signal(signed(9), name=f"difference_{name}", reset_less=True)
            m.d.sync += register.eq(difference)
            operands.append(Operand(d=difference, q=register))
        product = self._product(m, operands, platform)
        combined = Mux(self.mode == Combine.MULTIPLY, product, self._sum(m, operands))

        m.submodules.requantize = requantizer = Requantizer()
        m.submodules.clamp = clamp = Clamp()
        m.d.sync += requantizer.x.eq(combined)
        m.d.comb += [
            requantizer.multiplier.eq(settings.multiplier),
            requantizer.shift.eq(settings.shift),
            requantizer.rounding.eq(settings.rounding),
            clamp.x.eq(requantizer.result),
            self.result.eq(clamp.result),
        ]
        connect_clamp(m, clamp, settings)
        return m

    def _sum(self, m: Module, operands: Sequence[Operand]) -> Value:
        """The sum of ADD, 0 without it."""
        if not self._add:
            return Const(0)
        rescaled: list[Signal] = []
        for name, operand in zip("ab", operands, strict=True):
            m.submodules[f"requantize_{name}"] = requantizer = Requantizer(9, ADD_LEFT_SHIFT)
            m.d.comb += [
                requantizer.x.eq(operand.q),
                requantizer.multiplier.eq(self.settings[f"multiplier_{name}"]),
                requantizer.shift.eq(self.settings[f"shift_{name}"]),
                requantizer.rounding.eq(self.settings.rounding),
            ]
            rescaled.append(requantizer.result)
        return rescaled[0] + rescaled[1]

    def _product(self, m: Module, operands: Sequence[Operand], platform: object) -> Value:
        """The product of MULTIPLY, 0 without it."""
        if not self._multiply:
            return Const(0)
        return technology_of(platform).multiplier(m)(*operands, name="product")


class Lane(Component):
    """Everything between the sources of one channel and its finished int8.

    residual_add, elementwise_multiply, activation_table: which second stages there are.

    requant: each operand as it is meant for the step that entered `settings_stage` cycles ago. combine: the settings in
    force. mode: the `Combine` of all steps in the lane. These two are constant while steps are in it.
    valid, source, sum_first, parameters, operand: one step.
    looked_up: what the activation table makes of `clamped`, the value of the first stage.
    max_valid, max_first: whether a step that takes part in a maximum entered `latency[mode] - 1` cycles ago, and
    whether as its first. result: the maximum so far, one cycle after that.
    """

    valid: Signal
    source: Signal
    sum_first: Signal
    parameters: data.View
    operand: Signal
    requant: data.View
    combine: data.View
    mode: Signal
    clamped: Signal
    looked_up: Signal
    max_valid: Signal
    max_first: Signal
    result: Signal

    _clamped = 2 + Requantizer.latency + Clamp.latency
    settings_stage: ClassVar[Mapping[str, int]] = {
        **dict.fromkeys(("bias", "multiplier", "shift"), 0),
        "rounding": 2,
        **dict.fromkeys(("zero_point", "minimum", "maximum"), 2 + Requantizer.latency - 1),
    }
    latency: ClassVar[Mapping[Combine, int]] = {
        Combine.NONE: _clamped + 1,
        Combine.TABLE: _clamped + ActivationTable.latency + 1,
        **{mode: 2 + Requantizer.latency + Clamp.latency + cycles + 1 for mode, cycles in SecondStage.latency.items()},
    }

    def __init__(self, *, residual_add: bool, elementwise_multiply: bool, activation_table: bool) -> None:
        self._residual_add = residual_add
        self._elementwise_multiply = elementwise_multiply
        self._activation_table = activation_table
        super().__init__(
            {
                "valid": In(1),
                "source": In(signed(32)),
                "sum_first": In(1),
                "parameters": In(CHANNEL_PARAMETERS),
                "operand": In(signed(8)),
                "requant": In(command_layout("REQUANT")),
                "combine": In(command_layout("COMBINE")),
                "mode": In(Combine),
                "clamped": Out(signed(8)),
                "looked_up": In(signed(8)),
                "max_valid": In(1),
                "max_first": In(1),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total, biased = Signal(signed(32), reset_less=True), Signal(signed(32), reset_less=True)
        bias = delay(m, "bias", self.parameters.bias, 1)
        m.submodules.requantize = requantizer = Requantizer()
        m.submodules.clamp = clamp = Clamp()
        m.d.sync += biased.eq(total + bias)
        with m.If(self.valid):
            m.d.sync += total.eq(Mux(self.sum_first, 0, total) + self.source)
        m.d.comb += [
            requantizer.x.eq(biased),
            requantizer.multiplier.eq(delay(m, "multiplier", self.parameters.multiplier, 2)),
            requantizer.shift.eq(delay(m, "shift", self.parameters.shift, 1)),
            requantizer.rounding.eq(self.requant.rounding),
            clamp.x.eq(requantizer.result),
        ]
        connect_clamp(m, clamp, self.requant)

        m.d.comb += self.clamped.eq(clamp.result)
        # Which value is taken does not change while steps are in the lane.
        second_mode, table_mode = has_operand(self.mode), self.mode == Combine.TABLE
        values: dict[str, tuple[Value, Value]] = {"clamped": (~(second_mode | table_mode), clamp.result)}
        if self._residual_add or self._elementwise_multiply:
            m.submodules.second = second = SecondStage(add=self._residual_add, multiply=self._elementwise_multiply)
            m.d.comb += [
                second.settings.eq(self.combine),
                second.mode.eq(self.mode),
                second.a.eq(clamp.result),
                second.b.eq(delay(m, "operand", self.operand, self._clamped)),
            ]
            values["second"] = second_mode, second.result
        if self._activation_table:
            values["table"] = table_mode, self.looked_up
        # Each is compared by itself: the maximum is a loop of one cycle.
        finished, exceeds = Const(0, 8), Const(0)
        for name, (mode, value) in values.items():
            takes = delay(m, f"takes_{name}", mode, 1)
            finished |= value.as_unsigned() & takes.replicate(8)
            exceeds |= takes & is_greater(value, self.result)
        with m.If(self.max_valid & (self.max_first | exceeds)):
            m.d.sync += self.result.eq(finished)
        return m
