# SPDX-License-Identifier: Apache-2.0
"""The weight-stationary systolic array."""

from collections.abc import Sequence
from itertools import pairwise

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.rtl.align import buses_layout
from loomwork.rtl.pe import PE
from loomwork.rtl.technology import technology_of


def delay(m: Module, value: Value, cycles: int, name: str) -> list[Value]:
    """`value` and the registers behind it: element `n` is `value` of `n` cycles ago. Not cleared by reset."""
    stages = [value]
    for cycle in range(1, cycles + 1):
        stage = Signal(value.shape(), name=f"{name}_{cycle}", reset_less=True)
        m.d.sync += stage.eq(stages[-1])
        stages.append(stage)
    return stages


def skew(m: Module, value: Value, name: str) -> list[Value]:
    """The bytes of `value`: byte `n` of `n` cycles ago. Not cleared by reset."""
    late = value
    columns = [late[:8]]
    for cycle in range(1, len(value) // 8):
        stage = Signal(len(late) - 8, name=f"{name}_{cycle}", reset_less=True)
        m.d.sync += stage.eq(late[8:])
        late = stage
        columns.append(late[:8])
    return columns


class SystolicArray(Component):
    """`rows` x `cols` PEs. Activations move right, partial sums move down, both one PE per cycle.

    In depthwise mode a column takes its activations from above instead: from one bus for each `depthwise_taps` rows
    (docs/microarchitecture.md, "Depthwise mode"). An input column that enters in cycle `t` brings byte `c` of bus `g`
    to column `c`. Row `g * depthwise_taps + k` multiplies, for the sum whose tag entered in cycle `t`, that of cycle
    `t + k`. Bus 0 are the first `cols` bytes of `pixel`.

    pixel: `[rows] int8` of one pixel, all in one cycle; skewed inside. buses: `[depthwise_groups - 1][cols] int8` of an
    input column, likewise. depthwise: it is one.
    swap: with the first pixel of a pass: this and the pixels behind it meet the weights in the shadow registers.
    weights, load: `[cols] int8` go to the shadow registers of each array row whose bit is set in `load`. Row `r` may be
    loaded from the cycle after `swap` + `r` on (`r` cycles after the pixel, the mark enters row `r`), and must be
    loaded by the cycle of `swap` + `r` - 1.
    tag, o_tag: anything that shall stay beside a pixel; comes out with the sums of column 0. Cleared by reset.
    psums: `[cols]` sums of a pixel; column `c` follows `latency + c` cycles after the pixel.
    """

    pixel: data.View
    buses: data.View
    depthwise: Signal
    swap: Signal
    weights: data.View
    load: Signal
    tag: data.View
    o_tag: data.View
    psums: data.View

    def __init__(self, config: Config, tag: ShapeLike) -> None:
        self._config = config
        self._tag = tag
        super().__init__(
            {
                "pixel": In(data.ArrayLayout(signed(8), config.rows)),
                "buses": In(buses_layout(config)),
                "depthwise": In(1),
                "swap": In(1),
                "weights": In(data.ArrayLayout(signed(8), config.cols)),
                "load": In(config.rows),
                "tag": In(tag),
                "o_tag": Out(tag),
                "psums": Out(data.ArrayLayout(signed(config.psum_bits), config.cols)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a pixel to its sum in column 0."""
        return self._config.rows + PE.latency

    def model(self, pixel: Sequence[int], weights: Sequence[Sequence[int]]) -> list[int]:
        """`[cols]` sums of `[rows]` activations times `[rows][cols]` weights."""
        sums = [0] * self._config.cols
        for activation, row in zip(pixel, weights, strict=True):
            sums = [PE.model(activation, weight, psum) for weight, psum in zip(row, sums, strict=True)]
        return sums

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols = self._config.rows, self._config.cols
        multipliers = technology_of(platform).array_multipliers(m, cols)
        # A PE is reached by swap and pixel after row + col cycles, and by its weights col cycles after the others.
        swaps = delay(m, self.swap, rows + cols - 2, "swap")
        lefts: list[Value] = [delay(m, self.pixel[row], row, f"pixel_{row}")[-1] for row in range(rows)]
        loads = delay(m, self.load, cols - 1, "load")
        modes = delay(m, self.depthwise, rows + cols - 2, "depthwise") if self._config.depthwise else []
        buses = self._skew_buses(m, lefts) if self._config.depthwise else []
        for col in range(cols):
            weight = delay(m, self.weights[col], col, f"weight_{col}")[-1]
            psum: Value | None = None
            for row in range(rows):
                activation = lefts[row]
                if self._config.depthwise:
                    bus = buses[row // self._config.depthwise_taps]
                    activation = Mux(modes[row + col], bus[col], activation)
                lefts[row], psum = PE(row, col).add_to(
                    m,
                    multipliers[col],
                    activation=activation,
                    swap=swaps[row + col],
                    weight=weight,
                    load=loads[col][row],
                    psum_above=psum,
                )
            if psum is not None:
                m.d.comb += self.psums[col].eq(psum)

        stages = [self.tag, *(Signal(self._tag, name=f"tag_{n}") for n in range(1, self.latency + 1))]
        m.d.sync += [late.eq(early) for early, late in pairwise(stages)]
        m.d.comb += self.o_tag.eq(stages[-1])
        return m

    def _skew_buses(self, m: Module, lefts: list[Value]) -> list[list[Value]]:
        """Bytes of each bus and column: as late as a sum that enters with them is in the bus's first row, there."""
        taps, cols = self._config.depthwise_taps, self._config.cols
        buses = [lefts[:cols]]  # skewed by one cycle per byte like any pixel
        for number in range(1, self._config.depthwise_groups):
            late = delay(m, self.buses[number - 1].as_value(), number * taps, f"bus_{number}")[-1]
            buses.append([byte.as_signed() for byte in skew(m, late, f"column_{number}")])
        return buses
