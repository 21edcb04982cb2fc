# SPDX-License-Identifier: Apache-2.0
"""The interfaces between the units of the core.

Streams follow `amaranth.lib.stream`: a word moves in each cycle in which `valid` and `ready` are both 1, and `valid`
never waits for `ready`. Every signature is seen from the unit that makes the request; the other side uses `In`.
"""

from amaranth.hdl import signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import COMMAND_BYTES

COMMAND_BITS = 8 * COMMAND_BYTES
WORD_ADDRESS_BITS = 18
"""Width of a word address within a scratchpad bank: wider than any bank, so that an overrun is seen, not wrapped."""
PARITIES = 2
"""Memories of a bank: one of the even words and one of the odd ones."""
MEMORIES = BANKS * PARITIES
"""Of the scratchpad. A set of them has bit `PARITIES * bank + parity` for each."""
ACCUMULATOR_LATENCY = 2
"""Cycles from an accumulator read to its data."""
COMMANDS_IN_UNIT = 8
"""Commands that a unit may have taken and not finished, at most; a power of two."""
ERROR_BITS = 3
"""Width of an `ErrorCode`."""
PARAMS_INDEX_BITS = 4


def feed_latency(config: Config) -> int:
    """Cycles from a scratchpad read of the feed to its data."""
    return 2 + config.deep_pipeline


def window_latency(config: Config) -> int:
    """Cycles from an accepted scratchpad read of the drain or of STORE to its data."""
    return feed_latency(config) + config.deep_pipeline


class UnitPort(Signature):
    """How the core drives a unit (seen from the core).

    command: commands whose tickets are there, as COMMAND_BITS raw bits; none in the cycle after one was taken.
    done: one cycle per finished command.
    busy: a command is being executed. error: nonzero `ErrorCode` for one cycle when the command cannot go on.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "command": Out(stream.Signature(COMMAND_BITS)),
                "done": In(1),
                "busy": In(1),
                "error": In(ERROR_BITS),
            }
        )


class FeedRead(Signature):
    """Reads of the feed: a window of two neighbouring words in each of the four banks, every cycle, never refused.

    memories: which are read; both of a bank where the second word matters too.
    word: first word.
    data: `[BANKS][2 * rows] bytes`, `feed_latency` cycles later; byte 0 is byte 0 of `word`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "memories": Out(MEMORIES),
                "word": Out(data.ArrayLayout(WORD_ADDRESS_BITS, BANKS)),
                "data": In(data.ArrayLayout(data.ArrayLayout(8, 2 * config.rows), BANKS)),
            }
        )


class WindowRead(Signature):
    """Reads of a window of two neighbouring words of one bank, when the bank is free (drain, store).

    request: stream of {bank, word, wide}. data: `[2 * rows] bytes`; data_valid comes `window_latency` cycles after the
    request was taken, in order, and cannot be held back.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(data.StructLayout({"bank": 2, "word": WORD_ADDRESS_BITS, "wide": 1}))),
                "data": In(data.ArrayLayout(8, 2 * config.rows)),
                "data_valid": In(1),
            }
        )


def window_write_layout(config: Config) -> data.StructLayout:
    """A write to a window of two neighbouring words of one bank: `data` and byte-enable `mask` of `2 * rows` bytes.

    wide: bytes of the second word are enabled.
    """
    return data.StructLayout(
        {
            "bank": 2,
            "word": WORD_ADDRESS_BITS,
            "wide": 1,
            "data": data.ArrayLayout(8, 2 * config.rows),
            "mask": 2 * config.rows,
        }
    )


class AccumulatorRead(Signature):
    """How the drain takes finished blocks (seen from the drain). The halves take turns by themselves.

    ready: the next half holds a finished block. next_ready: it will in the next cycle. progress: if it does not, its
    pixels below this number are finished.
    enable, pixel: read one pixel of it; data: `[cols] int32`, ACCUMULATOR_LATENCY cycles later. release: one cycle,
    only when `ready`; the half may be overwritten (reads already made still deliver). `ready` and `progress` show the
    state of the following half in the cycle after.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "ready": In(1),
                "next_ready": In(1),
                "progress": In(range(config.accumulator_depth)),
                "enable": Out(1),
                "pixel": Out(range(config.accumulator_depth)),
                "data": In(data.ArrayLayout(signed(32), config.cols)),
                "release": Out(1),
            }
        )


def params_layout(config: Config) -> data.StructLayout:
    """One word of a block's parameters on its way to the drain.

    word: `[cols] bytes`. index: 0..3 biases, 4..7 multipliers, 8 shifts. last: the block's parameters are complete.
    Of the int32 values of channel `c`, byte `b` is byte `4 * c + b` of the four words laid end to end.
    """
    return data.StructLayout({"word": data.ArrayLayout(8, config.cols), "index": PARAMS_INDEX_BITS, "last": 1})
