# SPDX-License-Identifier: Apache-2.0
"""Windows of external memory: where they lie, and the check that keeps every transfer inside its window."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import Window
from loomwork.rtl.burst import RUN_BEATS_BITS, run_layout

SIZE_BITS = 32
OFFSET_BITS = 37
"""Width of an offset into a window: holds offset + rows * row_stride of any command without overflow."""
LENGTH_BITS = 34
"""Width of a number of bytes: holds words * cols of any STREAM."""

SPAN = data.StructLayout({"window": 3, "offset": OFFSET_BITS, "length": LENGTH_BITS, "misaligned": 1})
"""Bytes of a window that a command wants: the first one and how many, at least 1.

misaligned: some number of the command is not a multiple of the bus width, so that the span is illegal in any case.
"""


def windows_layout(config: Config) -> data.ArrayLayout:
    """Base address (a multiple of 4096) and size in bytes of each `Window`, from the registers."""
    return data.ArrayLayout(data.StructLayout({"base": config.address_bits, "size": SIZE_BITS}), len(Window))


def zeros_of_sum(one: Value, other: Value) -> Value:
    """The sum of two numbers of the same width is 0, but for what is carried out of it, when all of these bits are set;
    as many as the numbers have, without a carry.

    Were it 0, there would be a carry out of each bit from the lowest one on in which one of them is 1 (Cortadella,
    Llaberia, "Evaluation of A+B=K Conditions without Carry Propagation", IEEE Transactions on Computers 41, 1992).
    """
    carries = (one | other)[:-1] << 1
    return ~(one ^ other ^ carries)


_FINDINGS = data.StructLayout({"illegal": 1, "too_long": 1, "carries": 1, "ends": 2})
"""What is found out of a span: it is illegal by itself; it is longer than its window; its end is beyond the last
address; or just behind it, when both bits say so.
"""


def _refuses(findings: data.View) -> Value:
    return findings.illegal | findings.too_long | (findings.carries & ~findings.ends.all())


class WindowCheck(Component):
    """Turns spans into runs of beats, two cycles later, one per cycle. The first illegal span stops it until reset.

    A span is illegal when it is misaligned, its window is not one of `allowed`, or it goes beyond the window's size or
    beyond the last address. A run has as many beats as the span's bytes touch.

    max_beats: of a burst (see `BurstSplitter`). With `deep_pipeline` what is found out is judged a cycle later: `busy`
    is longer and `fault` later by one, but `o` comes in the same cycle.

    windows: the base and size registers; constant while there are spans. i: spans. o: runs of beats.
    busy: a span is being looked at: neither in `o` nor in `fault` yet. fault: a span was illegal; stays 1.
    """

    windows: data.View
    i: stream.Interface
    o: stream.Interface
    busy: Signal
    fault: Signal

    def __init__(self, config: Config, allowed: Sequence[Window], max_beats: int) -> None:
        self._config = config
        self._max_beats = max_beats
        self._allowed = tuple(allowed)
        super().__init__(
            {
                "windows": In(windows_layout(config)),
                "i": In(stream.Signature(SPAN)),
                "o": Out(stream.Signature(run_layout(config))),
                "busy": Out(1),
                "fault": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus_bytes = self._config.bus_bytes
        beat_bits = (bus_bytes - 1).bit_length()
        address_bits = self._config.address_bits
        span = self.i.payload

        looked = Signal()  # there is a span in the second stage
        advance = Signal()
        m.d.comb += [
            advance.eq(~looked | self.o.ready),
            self.i.ready.eq(advance & ~self.fault),
        ]

        # First stage: end of the span, choice of the window.
        looks = Signal()  # there is one in this stage
        offset = Signal(OFFSET_BITS)
        end = Signal(OFFSET_BITS + 1)
        beats, before_last = Signal(RUN_BEATS_BITS), Signal(RUN_BEATS_BITS)
        base = Signal(address_bits)
        size = Signal(SIZE_BITS)
        illegal = Signal()
        with m.If(advance):
            m.d.sync += [
                looks.eq(self.i.valid & self.i.ready),
                offset.eq(span.offset),
                end.eq(span.offset + span.length),
                beats.eq((span.length + bus_bytes - 1) >> beat_bits),
                before_last.eq((span.length - 1) >> beat_bits),
            ]
            with m.Switch(span.window):
                for window in self._allowed:
                    with m.Case(window):
                        m.d.sync += [
                            base.eq(self.windows[window].base),
                            size.eq(self.windows[window].size),
                            illegal.eq(span.misaligned),
                        ]
                with m.Default():
                    m.d.sync += illegal.eq(1)

        # Second stage: comparison, absolute address. Where a burst may begin the base does not change.
        limit = Signal(address_bits + 2)
        low_end, high_end = end[: address_bits + 1], end[address_bits + 1 :]
        place = offset[beat_bits : beat_bits + self._max_beats.bit_length() - 1]
        run, findings = self.o.payload, Signal(_FINDINGS)
        zeros = zeros_of_sum(base, end[:address_bits])
        m.d.comb += [
            limit.eq(base + low_end),
            findings.illegal.eq(illegal | high_end.any() | limit[address_bits + 1]),
            findings.too_long.eq(end > size),
            findings.carries.eq(limit[address_bits]),
            # The limit may be the first address behind the last one.
            findings.ends.eq(Cat(zeros[::2].all(), zeros[1::2].all())),
        ]
        with m.If(advance):
            m.d.sync += [
                run.address.eq(base + offset),
                run.beats.eq(beats),
                run.padded.eq(beats + place),
                # The last beat is one of the longest burst's.
                run.single.eq(~(before_last[: len(place)] + place)[-1] & ~before_last[len(place) :].any()),
            ]

        if self._config.deep_pipeline:
            noted, is_new = Signal(_FINDINGS), Signal()
            refused = looked & _refuses(noted)
            with m.If(advance):
                m.d.sync += [looked.eq(looks), noted.eq(findings)]
            m.d.sync += [is_new.eq(advance & looks), self.fault.eq(self.fault | refused)]
            m.d.comb += [self.o.valid.eq(looked & ~refused & ~self.fault), self.busy.eq(looks | is_new)]
        else:
            refused = looks & _refuses(findings)
            with m.If(advance):
                m.d.sync += [looked.eq(looks & ~refused & ~self.fault), self.fault.eq(self.fault | refused)]
            m.d.comb += [self.o.valid.eq(looked), self.busy.eq(looks)]
        return m
