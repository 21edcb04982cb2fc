# SPDX-License-Identifier: Apache-2.0
"""The datapath: the lanes, the parameters they use, and the marks that accompany the steps through them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import Combine, Params
from loomwork.rtl.command import command_layout
from loomwork.rtl.delay import delay
from loomwork.rtl.drain.activation_table import ActivationTable
from loomwork.rtl.drain.lane import Lane
from loomwork.rtl.drain.layouts import launched_layout
from loomwork.rtl.drain.parameters import CHANNEL_PARAMETERS
from loomwork.rtl.drain.sequencer import BANKS_OF_SETTINGS


def second_stages(config: Config) -> tuple[Combine, ...]:
    """What the drain of a configuration can do between requantization and maximum, the quickest first."""
    built = {
        Combine.NONE: True,
        Combine.TABLE: config.activation_table,
        Combine.ADD: config.residual_add,
        Combine.MULTIPLY: config.elementwise_multiply,
    }
    return tuple(sorted((mode for mode, there in built.items() if there), key=lambda mode: Lane.latency[mode]))


class Datapath(Component):
    """Computes `requant_lanes` channels per cycle.

    requants: two banks of settings; each step goes with one. combine: the settings in force. mode: the `Combine` of all
    steps on their way. table, write_table: a TABLE whose entries are to be taken; no step on its way looks anything up.
    i, source, operand: a step with its values, as the reader delivers them. parameters: of its channels.
    bytes, push: finished bytes of a window, `latency` cycles after its last step at most.
    """

    requants: data.View
    combine: data.View
    mode: Signal
    table: data.View
    write_table: Signal
    i: data.View
    source: data.View
    operand: data.View
    parameters: data.View
    bytes: Signal
    push: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        self._modes = second_stages(config)
        self.latency = Lane.latency[self._modes[-1]]
        lanes = config.requant_lanes
        super().__init__(
            {
                "requants": In(data.ArrayLayout(command_layout("REQUANT"), BANKS_OF_SETTINGS)),
                "combine": In(command_layout("COMBINE")),
                "mode": In(Combine),
                "table": In(command_layout("TABLE")),
                "write_table": In(1),
                "i": In(launched_layout(config)),
                "source": In(data.ArrayLayout(signed(32), lanes)),
                "operand": In(data.ArrayLayout(signed(8), lanes)),
                "parameters": In(data.ArrayLayout(CHANNEL_PARAMETERS, lanes)),
                "bytes": Out(8 * lanes),
                "push": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        # Marks of the step that is about to enter the maximum, which lies as far down as its mode says; they end there,
        # for the mode may change as soon as all results are written.
        flags = self.i.flags
        marks: Value = Cat(self.i.valid & flags.sum_last, flags.max_first, flags.max_last)
        at_maximum: Value = Const(0, 3)
        position = 0
        for mode in self._modes:
            marks = delay(m, f"marks_{mode.name.lower()}", marks, Lane.latency[mode] - 1 - position, reset=True)
            position = Lane.latency[mode] - 1
            at_maximum = Mux(self.mode == mode, marks, at_maximum)
            marks = Mux(self.mode == mode, 0, marks)
        m.d.sync += self.push.eq(at_maximum[0] & at_maximum[2])

        table: ActivationTable | None = None
        if self._config.activation_table:
            m.submodules.table = table = ActivationTable(self._config.requant_lanes)
            m.d.comb += [table.command.eq(self.table), table.write.eq(self.write_table)]

        requant = self._settings(m)
        for index in range(self._config.requant_lanes):
            m.submodules[f"lane_{index}"] = lane = Lane(
                residual_add=self._config.residual_add,
                elementwise_multiply=self._config.elementwise_multiply,
                activation_table=self._config.activation_table,
            )
            stored, chosen = self.parameters[index], lane.parameters
            m.d.comb += [
                lane.requant.eq(requant),
                lane.combine.eq(self.combine),
                lane.mode.eq(self.mode),
                lane.valid.eq(self.i.valid),
                lane.source.eq(self.source[index]),
                lane.operand.eq(self.operand[index]),
                lane.sum_first.eq(flags.sum_first),
                lane.max_valid.eq(at_maximum[0]),
                lane.max_first.eq(at_maximum[1]),
                chosen.bias.eq(Mux(self.i.params == Params.UNIFORM, requant.bias, stored.bias)),
                self.bytes.word_select(index, 8).eq(lane.result),
            ]
            if table is not None:
                m.d.comb += [table.x[index].eq(lane.clamped), lane.looked_up.eq(table.result[index])]
            with m.If(self.i.params == Params.PER_CHANNEL):
                m.d.comb += [chosen.multiplier.eq(stored.multiplier), chosen.shift.eq(stored.shift)]
            with m.Else():
                m.d.comb += [chosen.multiplier.eq(requant.multiplier), chosen.shift.eq(requant.shift)]
        return m

    def _settings(self, m: Module) -> data.View:
        """Every operand of REQUANT, of the bank that belongs to the step in the stage where the lanes use it. From a
        register where there is time for one: all lanes use it.
        """
        requant = Signal(command_layout("REQUANT"))
        bank, time = self.i.bank, 0
        for name, stage in sorted(Lane.settings_stage.items(), key=lambda item: item[1]):
            early = max(stage - 1, 0)
            bank, time = delay(m, f"bank_{early}", bank, early - time), early
            chosen = Mux(bank, self.requants[1][name], self.requants[0][name])
            m.d.comb += requant[name].eq(delay(m, name, Value.cast(chosen), stage - early))
        return requant
