# SPDX-License-Identifier: Apache-2.0
"""Bursts: how runs of beats are cut for the bus."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.rtl.axi import MAX_BURST_BEATS, MAX_BURST_BYTES

RUN_BEATS_BITS = 32


def run_layout(config: Config) -> data.StructLayout:
    """Neighbouring beats in external memory: byte address, a multiple of the bus width, and number, at least 1.

    padded: the number, had the run begun at the last address where a longest burst can. single: that is one burst.
    """
    return data.StructLayout(
        {"address": config.address_bits, "beats": RUN_BEATS_BITS, "padded": RUN_BEATS_BITS + 1, "single": 1}
    )


def burst_layout(config: Config) -> data.StructLayout:
    """One burst: byte address of its first beat, and its length as AXI has it, the number of beats less 1. It crosses
    no 4 KiB boundary.
    """
    return data.StructLayout({"address": config.address_bits, "length": range(MAX_BURST_BEATS)})


def burst_limit(config: Config, queue_beats: int) -> int:
    """Beats of the longest burst for a queue of `queue_beats` (a power of two, at least 4).

    A quarter of the queue: while one burst waits for its last beat to leave the queue, the others cover the latency.
    """
    return min(MAX_BURST_BEATS, MAX_BURST_BYTES // config.bus_bytes, queue_beats // 4)


def without_burst(beats: Value, length: Value) -> Value:
    """A number of beats without those of a burst, one more than its length: the complement subtracts that in one sum.

    The highest bit, one more than `beats` has, is the carry: whether there are so many.
    """
    return beats + ~Cat(length, Const(0, len(beats) - len(length)))


def is_one_burst(beats: Value, max_beats: int) -> Value:
    """Whether it is at most `max_beats`, a power of two, without a carry through all bits."""
    bit = max_beats.bit_length() - 1
    return ~beats[bit + 1 :].any() & ~(beats[bit] & beats[:bit].any())


class BurstSplitter(Component):
    """Cuts runs into bursts, one per cycle, in order.

    max_beats: a power of two. Bursts end where the address is a multiple of `max_beats` beats, or with their run; as
    that is at most MAX_BURST_BYTES, none crosses a 4 KiB boundary.

    i: runs. o: bursts.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: Config, max_beats: int) -> None:
        if max_beats < 1 or max_beats & (max_beats - 1) or max_beats * config.bus_bytes > MAX_BURST_BYTES:
            raise ValueError(
                f"max_beats must be a power of two and at most {MAX_BURST_BYTES // config.bus_bytes} "
                f"({MAX_BURST_BYTES} bytes), not {max_beats}"
            )
        self._max_beats = max_beats
        self._beat_bits = (config.bus_bytes - 1).bit_length()
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(config))),
                "o": Out(stream.Signature(burst_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        address = Signal.like(self.o.payload.address)
        low = self._beat_bits
        high = low + (self._max_beats - 1).bit_length()
        # What is decided is in registers: the length, whether it is the last burst, and how many beats are behind it.
        length = Signal.like(self.o.payload.length)
        last, moves, takes = Signal(), Signal(), Signal()
        behind = Signal(RUN_BEATS_BITS)
        m.d.comb += [
            self.o.payload.address.eq(address),
            self.o.payload.length.eq(length),
            self.i.ready.eq(moves & takes),
            moves.eq(~self.o.valid | self.o.ready),  # late: more than this shall not wait for it
            takes.eq(~self.o.valid | last),
        ]
        run = self.i.payload
        with m.If(moves):
            with m.If(takes):
                m.d.sync += [
                    self.o.valid.eq(self.i.valid),
                    address.eq(run.address),
                    # Up to the next such address, or less.
                    length.eq(Mux(run.single, run.beats - 1, ~run.address[low:high])),
                    last.eq(run.single),
                    behind.eq(run.padded - self._max_beats),
                ]
            with m.Else():
                fits = is_one_burst(behind, self._max_beats)
                m.d.sync += [
                    address.eq(Cat(Const(0, high), address[high:] + 1)),
                    length.eq(Mux(fits, behind - 1, self._max_beats - 1)),
                    last.eq(fits),
                    behind.eq(behind - self._max_beats),
                ]
        return m
