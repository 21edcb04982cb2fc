# SPDX-License-Identifier: Apache-2.0
"""From the words of the four banks to one byte for each array row."""

from collections.abc import Mapping, Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from loomwork.arch.config import BANKS, Config
from loomwork.rtl.thermometer import thermometer


def turn_layout(config: Config) -> data.StructLayout:
    """What to do with the two words of one bank: see `alignment_layout`."""
    return data.StructLayout({"merge": range(config.rows), "rotate": range(config.rows)})


def span_layout(config: Config) -> data.StructLayout:
    """Neighbouring array rows that take bytes from the same bank: see `alignment_layout`."""
    return data.StructLayout({"bank": range(BANKS), "low": range(config.rows + 1), "high": range(config.rows + 1)})


def buses_layout(config: Config) -> data.ArrayLayout:
    """Bytes of one input column of a DEPTHWISE, `[kernel rows but the first, cols]`: see `Align`."""
    return data.ArrayLayout(data.ArrayLayout(8, config.cols), config.depthwise_groups - 1 if config.depthwise else 0)


def alignment_layout(config: Config) -> data.StructLayout:
    """How the words of one pixel become bytes of array rows.

    banks: of each window of two words, word 1 replaces bytes below `merge` of word 0; then array row `r` may take
    byte `(r + rotate) % rows` of it.
    spans: array rows `low <= r < high` take theirs from `bank`; none when `high` is 0.
    pad: for array rows in no span.
    """
    return data.StructLayout(
        {
            "banks": data.ArrayLayout(turn_layout(config), BANKS),
            "spans": data.ArrayLayout(span_layout(config), BANKS),
            "pad": signed(8),
        }
    )


class Align(Component):
    """Rotates each bank's window to the array rows it is meant for, then selects one bank per row.

    Of an input column of a DEPTHWISE each span has an output of its own, as if it were alone: span 0 `o`, the others
    `buses`.
    A pipeline without stalls; results come `latency` cycles after their input.
    words: `[BANKS][2 * rows] bytes`. alignment: see `alignment_layout`. depthwise: it is such a column. Both come with
    the words. o: `[rows] bytes`. buses: `[kernel rows but the first][cols] bytes`; hold still without `depthwise`.
    """

    latency = 3

    words: data.View
    alignment: data.View
    depthwise: Signal
    o: data.View
    buses: data.View

    def __init__(self, config: Config) -> None:
        self._rows, self._cols = config.rows, config.cols
        self._buses = buses_layout(config).length
        self._alignment = alignment_layout(config)
        super().__init__(
            {
                "words": In(data.ArrayLayout(data.ArrayLayout(8, 2 * config.rows), BANKS)),
                "alignment": In(self._alignment),
                "depthwise": In(1),
                "o": Out(data.ArrayLayout(8, config.rows)),
                "buses": Out(buses_layout(config)),
            }
        )

    def model(self, words: Sequence[Sequence[int]], alignment: Mapping[str, Any]) -> list[int]:
        """Result for `[BANKS][2 * rows]` bytes and an alignment given as dicts and lists: `[rows]` unsigned bytes."""
        result = [alignment["pad"] & 0xFF] * self._rows
        for span in alignment["spans"]:
            turn = alignment["banks"][span["bank"]]
            for row in range(span["low"], span["high"]):
                byte = (row + turn["rotate"]) % self._rows
                result[row] = words[span["bank"]][byte + self._rows * (byte < turn["merge"])]
        return result

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self._rows
        # Nothing is reset here: there are thousands of registers, and none says whether it holds something.
        alignments = [Signal(self._alignment, name=f"alignment_{stage}", reset_less=True) for stage in (1, 2)]
        m.d.sync += [alignments[0].eq(self.alignment), alignments[1].eq(alignments[0])]

        rotated: list[Value] = []
        for number in range(BANKS):
            window, turn = self.words[number], self.alignment.banks[number]
            merged = Signal(8 * rows, name=f"merged_{number}", reset_less=True)
            m.d.sync += merged.eq(
                Cat(Mux(turn.merge > byte, window[byte + rows], window[byte]) for byte in range(rows))
            )
            turned: Value = merged
            for level in range(exact_log2(rows)):
                turned = Mux(alignments[0].banks[number].rotate[level], turned.rotate_right(8 << level), turned)
            rotated.append(Signal(8 * rows, name=f"rotated_{number}", reset_less=True))
            m.d.sync += rotated[-1].eq(turned)

        depthwise = [Signal(name=f"depthwise_{stage}", reset_less=True) for stage in (1, 2)]
        m.d.sync += [depthwise[0].eq(self.depthwise), depthwise[1].eq(depthwise[0])]
        covers = [Signal(rows, name=f"cover_{number}", reset_less=True) for number in range(BANKS)]
        for cover, span in zip(covers, self.alignment.spans, strict=True):
            m.d.sync += cover.eq(thermometer(span.high, rows) & ~thermometer(span.low, rows))
        for row in range(rows):
            covering: list[Value] = [cover[row] for cover in covers]
            if self._buses:
                covering[1:] = [cover & ~depthwise[0] for cover in covering[1:]]
            covered = Signal(name=f"covered_{row}", reset_less=True)
            bank = Signal(range(BANKS), name=f"bank_{row}", reset_less=True)
            m.d.sync += covered.eq(Cat(covering).any())
            for span, cover in zip(alignments[0].spans, covering, strict=True):
                with m.If(cover):
                    m.d.sync += bank.eq(span.bank)
            byte = Array(value[8 * row : 8 * row + 8] for value in rotated)[bank]
            result = Signal(8, name=f"result_{row}", reset_less=True)
            m.d.sync += result.eq(Mux(covered, byte, alignments[1].pad))
            m.d.comb += self.o[row].eq(result)
        if self._buses:
            self._fill_buses(m, rotated, alignments, covers, depthwise)
        return m

    def _fill_buses(
        self,
        m: Module,
        rotated: list[Value],
        alignments: list[data.View],
        covers: list[Signal],
        depthwise: list[Signal],
    ) -> None:
        """The last two stages once more, for each span but the first, and without choosing between them."""
        for number in range(1, 1 + self._buses):
            bus = Signal.like(self.buses[number - 1], name=f"bus_{number}", reset_less=True)
            m.d.comb += self.buses[number - 1].eq(bus)
            span = alignments[0].spans[number]
            covered = Signal(self._cols, name=f"bus_covered_{number}", reset_less=True)
            bank = Signal(range(BANKS), name=f"bus_bank_{number}", reset_less=True)
            with m.If(depthwise[0]):
                m.d.sync += [bank.eq(span.bank), covered.eq(covers[number])]
            with m.If(depthwise[1]):
                for column in range(self._cols):
                    chosen = Array(value[8 * column : 8 * column + 8] for value in rotated)[bank]
                    m.d.sync += bus[column].eq(Mux(covered[column], chosen, alignments[1].pad))
