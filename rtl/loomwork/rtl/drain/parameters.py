# SPDX-License-Identifier: Apache-2.0
"""The parameter store: biases, multipliers and shifts of two blocks, the one in use and the next."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.rtl.ports import params_layout
from loomwork.rtl.requantize import MULTIPLIER_BITS, SHIFT_BITS

CHANNEL_PARAMETERS = data.StructLayout({"bias": signed(32), "multiplier": MULTIPLIER_BITS, "shift": signed(SHIFT_BITS)})
"""What one channel is requantized with."""


def lanes_of(config: Config, values: Value, group: Value, unit: int) -> Value:
    """Of `cols` values of `unit` bits, the `requant_lanes` values of a channel group."""
    if config.channel_groups == 1:
        return values
    return Value.cast(values).word_select(group, unit * config.requant_lanes)


class Parameters(Component):
    """Two buffers of `cols` channels, filled and used by turns.

    i: words of the stream; taken while a buffer is free. ready: the next buffer in turn is complete and not claimed.
    buffer: which one that is. claim: it is now in use, and no longer `ready`. free, free_buffer: a buffer is no longer
    in use. read_buffer, group: what to read; lanes: its `requant_lanes` channels, in the same cycle.
    """

    i: stream.Interface
    ready: Signal
    buffer: Signal
    claim: Signal
    free: Signal
    free_buffer: Signal
    read_buffer: Signal
    group: Signal
    lanes: data.View

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(params_layout(config))),
                "ready": Out(1),
                "buffer": Out(1),
                "claim": In(1),
                "free": In(1),
                "free_buffer": In(1),
                "read_buffer": In(1),
                "group": In(range(config.channel_groups)),
                "lanes": Out(data.ArrayLayout(CHANNEL_PARAMETERS, config.requant_lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, word = self._config, self.i.payload
        # Words of the stream, by buffer: int32 values lie in four words, laid end to end.
        words = [
            [Signal(8 * config.cols, name=f"buffer_{b}_word_{i}", reset_less=True) for i in range(9)] for b in range(2)
        ]
        fill, is_full = Signal(), Signal()  # which is filled next; whether it is not to be
        occupied, complete = Signal(2), Signal(2)  # not to be filled; to be claimed
        finishes = Signal()
        m.d.comb += [
            self.i.ready.eq(~is_full),
            finishes.eq(self.i.valid & self.i.ready & word.last),
        ]
        # Words are stored a cycle later: a step reads its parameters later still.
        late, stores, fills = Signal(word.shape(), reset_less=True), Signal(), Signal(reset_less=True)
        m.d.sync += [late.eq(word), fills.eq(fill), stores.eq(self.i.valid & self.i.ready)]
        with m.If(stores):
            for b, buffer in enumerate(words):
                for index, stored in enumerate(buffer):
                    with m.If((fills == b) & (late.index == index)):
                        m.d.sync += stored.eq(late.word)
        with m.If(finishes):
            m.d.sync += [
                occupied.bit_select(fill, 1).eq(1),
                complete.bit_select(fill, 1).eq(1),
                fill.eq(~fill),
            ]
        # What `complete` says of `buffer`, from a register: much depends on it.
        with m.If(self.claim):
            m.d.sync += [complete.bit_select(self.buffer, 1).eq(0), self.buffer.eq(~self.buffer)]
            m.d.sync += self.ready.eq(complete.bit_select(~self.buffer, 1) | finishes)
        with m.Elif(finishes & (fill == self.buffer)):
            m.d.sync += self.ready.eq(1)
        with m.If(self.free):
            m.d.sync += occupied.bit_select(self.free_buffer, 1).eq(0)
        remains = Cat(occupied[b] & ~(self.free & (self.free_buffer == b)) for b in range(2))
        m.d.sync += is_full.eq(Mux(finishes, remains.bit_select(~fill, 1), remains.bit_select(fill, 1)))

        kinds = [Cat(buffer[:4]) for buffer in words], [Cat(buffer[4:8]) for buffer in words], [b[8] for b in words]
        bias, multiplier, shift = (
            lanes_of(config, Mux(self.read_buffer, kind[1], kind[0]), self.group, unit)
            for kind, unit in zip(kinds, (32, 32, 8), strict=True)
        )
        for lane in range(config.requant_lanes):
            m.d.comb += [
                self.lanes[lane].bias.eq(bias.word_select(lane, 32)),
                self.lanes[lane].multiplier.eq(multiplier.word_select(lane, 32)),
                self.lanes[lane].shift.eq(shift.word_select(lane, 8)),
            ]
        return m
