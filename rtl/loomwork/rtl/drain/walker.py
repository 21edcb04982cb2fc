"""The walker: counts through the loops of a DRAIN."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import Pool
from loomwork.rtl.command import command_layout
from loomwork.rtl.drain.layouts import BYTE_BITS, CHANNEL_BITS, ROW_BITS, point_layout


class Walker(Component):
    """Counts through block, output row, output column, channel group, pooling row, pooling column, the last innermost.

    command: the DRAIN, constant from `start` to its last point. start: begin, in the next cycle.
    o: the points (layouts.py), as fast as they are taken.
    """

    command: data.View
    start: Signal
    o: stream.Interface

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(command_layout("DRAIN")),
                "start": In(1),
                "o": Out(stream.Signature(point_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, command, point = self._config, self.command, self.o.payload
        lane_bits, group_bits = (config.requant_lanes - 1).bit_length(), (config.channel_groups - 1).bit_length()

        # Place in each loop. The pixel's place follows in `row`, `column` and `byte`; `window_*` is the first of a window.
        pool_x, pool_y, out_x, out_y = Signal(8), Signal(8), Signal(10), Signal(10)
        group, block = Signal(group_bits), Signal(CHANNEL_BITS - lane_bits - group_bits)
        row, column, byte = Signal(ROW_BITS), Signal(ROW_BITS), Signal(BYTE_BITS)
        window_row, window_column, window_byte = Signal(ROW_BITS), Signal(ROW_BITS), Signal(BYTE_BITS)
        out_row, out_byte = Signal(ROW_BITS), Signal(BYTE_BITS)
        window_step = Signal(17)  # bytes from one window to the next

        channel, remaining = Signal(CHANNEL_BITS), Signal(CHANNEL_BITS)
        m.d.comb += [
            channel.eq(Cat(Const(0, lane_bits), group, block)),
            remaining.eq(command.channels - channel),
        ]

        # Last in its loop. A window that is not pooled is one pixel.
        is_pooled = command.pool != Pool.NONE
        last_pool_x, last_pool_y, last_group = Signal(), Signal(), Signal()
        last_x, last_y, last_block = Signal(), Signal(), Signal()
        m.d.comb += [
            last_pool_x.eq(~is_pooled | (pool_x + 1 == command.pool_width)),
            last_pool_y.eq(~is_pooled | (pool_y + 1 == command.pool_height)),
            last_group.eq(group.all() | (remaining <= config.requant_lanes)),
            last_x.eq(out_x + 1 == command.width),
            last_y.eq(out_y + 1 == command.height),
            last_block.eq((block << (lane_bits + group_bits)) + config.cols >= command.channels),
        ]

        window_first = ~pool_x.any() & ~pool_y.any()
        window_last = last_pool_x & last_pool_y
        block_last = Signal()
        m.d.comb += [
            block_last.eq(window_last & last_group & last_x & last_y),
            point.row.eq(row),
            point.column.eq(column),
            point.byte.eq(byte),
            point.out_row.eq(out_row),
            point.out_byte.eq(out_byte),
            point.channel.eq(channel),
            point.count.eq(Mux(remaining < config.requant_lanes, remaining, config.requant_lanes)),
            point.window_last.eq(window_last),
            point.last.eq(block_last & last_block),
            point.flags.group.eq(group),
            point.flags.sum_first.eq((command.pool != Pool.SUM) | window_first),
            point.flags.sum_last.eq((command.pool != Pool.SUM) | window_last),
            point.flags.max_first.eq((command.pool != Pool.MAX) | window_first),
            point.flags.max_last.eq((command.pool != Pool.MAX) | window_last),
            point.flags.block_last.eq(block_last),
        ]

        def enter_window(first_row: Value, first_column: Value, first_byte: Value) -> None:
            """Begin a window, or this one again for the next group of channels, at its first pixel."""
            m.d.sync += [
                *(pool_x.eq(0), pool_y.eq(0)),
                *(row.eq(first_row), column.eq(first_column), byte.eq(first_byte)),
                *(window_row.eq(first_row), window_column.eq(first_column), window_byte.eq(first_byte)),
            ]

        with m.If(self.start):
            enter_window(Const(0), Const(0), command.in_offset)
            m.d.sync += [
                self.o.valid.eq(1),
                *(out_x.eq(0), out_y.eq(0), group.eq(0), block.eq(0)),
                *(out_row.eq(command.out_row), out_byte.eq(command.out_offset)),
                window_step.eq(command.pool_x_step * command.in_step),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            with m.If(~last_pool_x):
                m.d.sync += [pool_x.eq(pool_x + 1), column.eq(column + 1), byte.eq(byte + command.in_step)]
            with m.Elif(~last_pool_y):
                m.d.sync += [pool_x.eq(0), column.eq(window_column), byte.eq(window_byte)]
                m.d.sync += [pool_y.eq(pool_y + 1), row.eq(row + 1)]
            with m.Elif(~last_group):
                enter_window(window_row, window_column, window_byte)
                m.d.sync += group.eq(group + 1)
            with m.Elif(~last_x):
                enter_window(window_row, window_column + command.pool_x_step, window_byte + window_step)
                m.d.sync += [group.eq(0), out_x.eq(out_x + 1), out_byte.eq(out_byte + command.out_step)]
            with m.Elif(~last_y):
                enter_window(window_row + command.pool_y_step, Const(0), command.in_offset)
                m.d.sync += [group.eq(0), out_x.eq(0), out_byte.eq(command.out_offset)]
                m.d.sync += [out_y.eq(out_y + 1), out_row.eq(out_row + 1)]
            with m.Else():
                enter_window(Const(0), Const(0), command.in_offset)
                m.d.sync += [group.eq(0), out_x.eq(0), out_byte.eq(command.out_offset)]
                m.d.sync += [out_y.eq(0), out_row.eq(command.out_row), block.eq(block + 1)]
                m.d.sync += self.o.valid.eq(~last_block)
        return m
