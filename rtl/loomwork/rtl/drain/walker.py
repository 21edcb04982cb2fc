# SPDX-License-Identifier: Apache-2.0
"""The walker: counts through the loops of a DRAIN."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import Pool
from loomwork.rtl.command import command_layout
from loomwork.rtl.drain.layouts import BYTE_BITS, CHANNEL_BITS, ROW_BITS, WINDOW_STEP_BITS, point_layout


class Walker(Component):
    """Counts through block, output row, output column, channel group, pooling row, pooling column, the last innermost.

    command: the DRAIN, constant from `start` to its last point. start: begin, in the next cycle.
    window_step: bytes from one window to the next, constant from the cycle after `start` on.
    o: the points (layouts.py), as fast as they are taken.
    """

    command: data.View
    start: Signal
    window_step: Signal
    o: stream.Interface

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(command_layout("DRAIN")),
                "start": In(1),
                "window_step": In(WINDOW_STEP_BITS),
                "o": Out(stream.Signature(point_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, command, point = self._config, self.command, self.o.payload
        lane_bits, group_bits = (config.requant_lanes - 1).bit_length(), (config.channel_groups - 1).bit_length()

        group, block = Signal(group_bits), Signal(CHANNEL_BITS - lane_bits - group_bits)

        # What is left of each loop, counting this round, and whether that is the last one, known from a register.
        pool_columns, pool_rows, columns, rows = Signal(8), Signal(8), Signal(10), Signal(10)
        channels, block_channels = Signal(CHANNEL_BITS), Signal(CHANNEL_BITS)
        last_pool_x, last_pool_y, last_group = Signal(), Signal(), Signal()
        last_x, last_y, last_block = Signal(), Signal(), Signal()

        # Where the loops are: `row`, `column` and `byte` follow the pixel, `window_*` the window's first one.
        row, column, byte = Signal(ROW_BITS), Signal(ROW_BITS), Signal(BYTE_BITS)
        window_row, window_column, window_byte = Signal(ROW_BITS), Signal(ROW_BITS), Signal(BYTE_BITS)
        window_first, window_last = Signal(), Signal()
        out_row, out_byte = Signal(ROW_BITS), Signal(BYTE_BITS)

        block_last = Signal()
        m.d.comb += [
            block_last.eq(window_last & last_group & last_x & last_y),
            point.row.eq(row),
            point.column.eq(column),
            point.byte.eq(byte),
            point.out_row.eq(out_row),
            point.out_byte.eq(out_byte),
            point.channel.eq(Cat(Const(0, lane_bits), group, block)),
            point.count.eq(Mux(channels < config.requant_lanes, channels, config.requant_lanes)),
            point.window_last.eq(window_last),
            point.last.eq(block_last & last_block),
            point.flags.group.eq(group),
            point.flags.sum_first.eq((command.pool != Pool.SUM) | window_first),
            point.flags.sum_last.eq((command.pool != Pool.SUM) | window_last),
            point.flags.max_first.eq((command.pool != Pool.MAX) | window_first),
            point.flags.max_last.eq((command.pool != Pool.MAX) | window_last),
            point.flags.block_last.eq(block_last),
        ]

        def enter_pool_row(is_last: Value) -> None:
            """Begin a row of a window; `is_last`: it has no other one behind it."""
            is_alone = command.pool_width == 1
            m.d.sync += [pool_columns.eq(command.pool_width), last_pool_x.eq(is_alone), last_pool_y.eq(is_last)]
            m.d.sync += window_last.eq(is_alone & is_last)

        def enter_pixel(left: Value, *, by: int = 0) -> None:
            """Begin with the first group of a pixel's channels, which are `by` less than `left`."""
            last = (left <= by + config.requant_lanes) | (config.channel_groups == 1)
            m.d.sync += [channels.eq(left - by), group.eq(0), last_group.eq(last)]

        def enter_window(first_row: Value, first_column: Value, first_byte: Value) -> None:
            """Begin a window, or this one again for the next group, at its first pixel."""
            enter_pool_row(command.pool_height == 1)
            m.d.sync += [
                *(window_first.eq(1), pool_rows.eq(command.pool_height)),
                *(row.eq(first_row), column.eq(first_column), byte.eq(first_byte)),
                *(window_row.eq(first_row), window_column.eq(first_column), window_byte.eq(first_byte)),
            ]

        def enter_row() -> None:
            """Begin an output row at its first pixel."""
            m.d.sync += [columns.eq(command.width), last_x.eq(command.width == 1), out_byte.eq(command.out_offset)]

        def enter_block(left: Value, *, by: int = 0) -> None:
            """Begin a block of channels at the first pixel of all; `by` less than `left` are left."""
            enter_window(Const(0), Const(0), command.in_offset)
            enter_row()
            enter_pixel(left, by=by)
            m.d.sync += [rows.eq(command.height), last_y.eq(command.height == 1), out_row.eq(command.out_row)]
            m.d.sync += [block_channels.eq(left - by), last_block.eq(left <= by + config.cols)]

        # Until a command begins, all is set to its first point in every cycle: `start` is known late.
        with m.If(~self.o.valid):
            enter_block(command.channels)
            m.d.sync += [self.o.valid.eq(self.start), block.eq(0)]
        with m.Elif(self.o.ready):
            m.d.sync += window_first.eq(0)
            with m.If(~last_pool_x):
                m.d.sync += [pool_columns.eq(pool_columns - 1), last_pool_x.eq(pool_columns == 2)]
                m.d.sync += window_last.eq((pool_columns == 2) & last_pool_y)
                m.d.sync += [column.eq(column + 1), byte.eq(byte + command.in_step)]
            with m.Elif(~last_pool_y):
                enter_pool_row(pool_rows == 2)
                m.d.sync += [column.eq(window_column), byte.eq(window_byte), row.eq(row + 1)]
                m.d.sync += pool_rows.eq(pool_rows - 1)
            with m.Elif(~last_group):
                enter_window(window_row, window_column, window_byte)
                m.d.sync += [channels.eq(channels - config.requant_lanes), group.eq(group + 1)]
                m.d.sync += last_group.eq(
                    (group + 1 == config.channel_groups - 1) | (channels <= 2 * config.requant_lanes)
                )
            with m.Elif(~last_x):
                enter_window(window_row, window_column + command.pool_x_step, window_byte + self.window_step)
                enter_pixel(block_channels)
                m.d.sync += [columns.eq(columns - 1), last_x.eq(columns == 2), out_byte.eq(out_byte + command.out_step)]
            with m.Elif(~last_y):
                enter_window(window_row + command.pool_y_step, Const(0), command.in_offset)
                enter_row()
                enter_pixel(block_channels)
                m.d.sync += [rows.eq(rows - 1), last_y.eq(rows == 2), out_row.eq(out_row + 1)]
            with m.Else():
                enter_block(block_channels, by=config.cols)
                m.d.sync += [block.eq(block + 1), self.o.valid.eq(~last_block)]
        return m
