# SPDX-License-Identifier: Apache-2.0
"""What the parts of the drain hand to each other."""

from functools import reduce
from operator import or_

from amaranth.hdl import Value
from amaranth.lib import data

from loomwork.arch.config import Config
from loomwork.arch.isa import Combine
from loomwork.rtl.command import command_layout
from loomwork.rtl.ports import WORD_ADDRESS_BITS

ROW_BITS = 15
"""Width of an image row, from the largest operands of DRAIN."""
BYTE_BITS = 27
"""Width of a byte's position in an image row, likewise."""
_DRAIN = command_layout("DRAIN")
WINDOW_STEP_BITS = _DRAIN["in_step"].width + _DRAIN["pool_x_step"].width
"""Width of the bytes from one pooling window to the next."""
CHANNEL_BITS = 13
"""Width of a channel number, to one block beyond the largest `channels`."""


def has_operand(mode: Value) -> Value:
    """Whether a second stage reads a second tensor. mode: a `Combine`."""
    return reduce(or_, (mode == member for member in Combine if member.has_operand))


def flags_layout(config: Config) -> data.StructLayout:
    """What the datapath must know of a step.

    group: which `requant_lanes` of the block's channels. sum_first, sum_last: the step is the first and the last of a
    sum; max_first, max_last: of a maximum. Each is 1 where there is none. block_last: last step of its block.
    """
    return data.StructLayout(
        {
            "group": range(config.channel_groups),
            "sum_first": 1,
            "sum_last": 1,
            "max_first": 1,
            "max_last": 1,
            "block_last": 1,
        }
    )


def point_layout(config: Config) -> data.StructLayout:
    """One step as the loops count it: one pixel of the source, `requant_lanes` of its channels.

    row, column: pixel relative to the first one. byte: of the source in its image row, still without `channel`.
    out_row, out_byte: likewise of the destination, whose row is absolute. channel: first channel.
    count: channels that there are, 1 .. requant_lanes. window_last, last: last step of its window, of the command.
    """
    return data.StructLayout(
        {
            "row": ROW_BITS,
            "column": ROW_BITS,
            "byte": BYTE_BITS,
            "out_row": ROW_BITS,
            "out_byte": BYTE_BITS,
            "channel": CHANNEL_BITS,
            "count": range(config.requant_lanes + 1),
            "window_last": 1,
            "last": 1,
            "flags": flags_layout(config),
        }
    )


def target_layout(config: Config) -> data.StructLayout:
    """Where bytes go: from `byte` of `word` of `bank` to `end`, the byte behind them, which may be in the next word.

    last: they are the last ones of their command.
    """
    return data.StructLayout(
        {
            "bank": 2,
            "word": WORD_ADDRESS_BITS,
            "byte": range(config.rows),
            "end": range(2 * config.rows),
            "last": 1,
        }
    )


def step_layout(config: Config) -> data.StructLayout:
    """One step with its addresses.

    bank, byte, wide: of the scratchpad source and the operand alike; word, operand_word: of each. pixel: of the
    accumulators; outside: there is no such pixel. target: where the window's result goes.
    """
    return data.StructLayout(
        {
            "bank": 2,
            "word": WORD_ADDRESS_BITS,
            "operand_word": WORD_ADDRESS_BITS,
            "byte": range(config.rows),
            "wide": 1,
            "pixel": range(config.accumulator_depth),
            "outside": 1,
            "target": target_layout(config),
            "window_last": 1,
            "last": 1,
            "flags": flags_layout(config),
        }
    )


def launched_layout(config: Config) -> data.StructLayout:
    """A step on its way through the datapath.

    valid: there is one. from_scratchpad, has_operand: its reads. params: which parameters, a `Params`; buffer: where.
    bank: of settings.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "from_scratchpad": 1,
            "has_operand": 1,
            "params": 2,
            "buffer": 1,
            "bank": 1,
            "flags": flags_layout(config),
        }
    )
