# SPDX-License-Identifier: Apache-2.0
"""Where the pixels of a tile lie in the memory: one after the other, row by row."""

from dataclasses import dataclass

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import BANKS
from loomwork.rtl.compact.layout import (
    BANK_BITS,
    GROUP_BITS,
    NUMBER_BITS,
    PARTS,
    ROW_BITS,
    ROW_STEP_BITS,
    SIZE_BITS,
    STEP_BITS,
    X_BITS,
    Layout,
    Register,
)


@dataclass(frozen=True)
class Writes:
    """What the processor writes to the engine: in the cycle with `strobe`, `data` for the register `number`."""

    strobe: Value
    number: Value
    data: Value

    def hits(self, register: Register) -> Value:
        """Whether it is this register."""
        return self.strobe & (self.number == register)

    def part(self, register: Register, name: str) -> Value:
        """The bits of `data` that a part of a register has. Raises StopIteration for one that it does not have."""
        bits = next(bits for bits in PARTS[register] if bits.name == name)
        return self.data[bits.low : bits.low + bits.width]


class Walker(Component):
    """Goes through the pixels of a tile.

    strobe, register, data: of the engine's registers (`Register`). restart: to the first pixel. shift: that one lies
    `rows` bytes further in its row from now on. advance: to the next pixel; done a cycle or more later, when `ready`.
    word: where the first byte of the pixel lies. offset: byte in that word. inside: which of the `rows` bytes from it
    on belong to the image. number: of the pixel in the accumulators. is_last: of the tile.
    """

    strobe: Signal
    register: Signal
    data: Signal
    advance: Signal
    restart: Signal
    shift: Signal
    ready: Signal
    word: Signal
    offset: Signal
    inside: Signal
    number: Signal
    is_last: Signal

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rows = layout.config.rows
        super().__init__(
            {
                "strobe": In(1),
                "register": In(4),
                "data": In(32),
                "advance": In(1),
                "restart": In(1),
                "shift": In(1),
                "ready": Out(1),
                "word": Out(layout.address_bits),
                "offset": Out(range(self._rows)),
                "inside": Out(self._rows),
                "number": Out(NUMBER_BITS),
                "is_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout, data = self._layout, self.data
        writes = Writes(self.strobe, self.register, data)
        address_bits, offset_bits = layout.address_bits, (self._rows - 1).bit_length()

        # As the processor has written them.
        first_address = Signal(address_bits)
        first_row, first_bank, first_left = Signal(signed(ROW_BITS)), Signal(BANK_BITS), Signal(GROUP_BITS)
        wrap, ring_wrap = Signal(address_bits), Signal(address_bits)
        height, y_step = Signal(13), Signal(ROW_STEP_BITS)
        first_x, x_step, row_bytes = Signal(signed(X_BITS)), Signal(STEP_BITS), Signal(16)
        width, rows = Signal(SIZE_BITS), Signal(SIZE_BITS)
        first_number, number_step, row_numbers = Signal(NUMBER_BITS), Signal(ROW_STEP_BITS), Signal(NUMBER_BITS)
        # The pixel.
        address, row = Signal(address_bits), Signal(signed(ROW_BITS))
        bank, left = Signal(BANK_BITS), Signal(GROUP_BITS)
        x, column, line = Signal(signed(X_BITS)), Signal(SIZE_BITS), Signal(SIZE_BITS)
        row_number = Signal(NUMBER_BITS)
        steps = Signal(ROW_STEP_BITS)

        targets: dict[Register, dict[str | None, Signal]] = {
            Register.ROW_ADDRESS: {None: first_address},
            Register.ROW: {"ROW": first_row, "BANK": first_bank, "LEFT": first_left},
            Register.WRAP: {"USUAL": wrap, "RING": ring_wrap},
            Register.HEIGHT: {"ROWS": height, "STEP": y_step},
            Register.X: {None: first_x},
            Register.X_STEP: {"STEP": x_step, "ROW_BYTES": row_bytes},
            Register.SIZE: {"WIDTH": width, "HEIGHT": rows},
            Register.PIXEL: {"FIRST": first_number, "STEP": number_step, "ROW": row_numbers},
        }
        for register, parts in targets.items():
            with m.If(writes.hits(register)):
                for name, target in parts.items():
                    value = data if name is None else writes.part(register, name)
                    m.d.sync += target.eq(value.as_signed() if register is Register.WRAP else value)

        # Down one image row: into the next bank, or into the first one of the next group of rows.
        is_wrap, is_ring = Signal(), Signal()
        down, bank_step = Signal(address_bits), layout.config.bank_words
        m.d.comb += [
            is_wrap.eq(bank == BANKS - 1),
            is_ring.eq(left == 0),
            down.eq(Mux(is_wrap, Mux(is_ring, ring_wrap, wrap), bank_step)),
        ]
        goes_down, ends_row = Signal(), Signal()
        m.d.comb += [
            self.ready.eq(steps == 0),
            ends_row.eq(self.advance & (column == 1)),
            goes_down.eq((ends_row & (y_step != 0)) | (steps != 0)),
            self.is_last.eq((column == 1) & (line == 1)),
        ]
        with m.If(goes_down):
            m.d.sync += [address.eq(address + down), row.eq(row + 1), bank.eq(bank + 1)]
            with m.If(is_wrap):
                m.d.sync += left.eq(left - 1)
        with m.If(ends_row):
            m.d.sync += steps.eq(Mux(y_step == 0, 0, y_step - 1))
        with m.Elif(steps != 0):
            m.d.sync += steps.eq(steps - 1)

        next_row_number = Signal(NUMBER_BITS)
        m.d.comb += next_row_number.eq(row_number + row_numbers)
        with m.If(ends_row):
            m.d.sync += [
                *(x.eq(first_x), column.eq(width), line.eq(line - 1)),
                *(row_number.eq(next_row_number), self.number.eq(next_row_number)),
            ]
        with m.Elif(self.advance):
            m.d.sync += [x.eq(x + x_step), column.eq(column - 1), self.number.eq(self.number + number_step)]
        with m.If(self.restart):
            m.d.sync += [
                *(address.eq(first_address), row.eq(first_row), bank.eq(first_bank), left.eq(first_left)),
                *(x.eq(first_x), column.eq(width), line.eq(rows), steps.eq(0)),
                *(row_number.eq(first_number), self.number.eq(first_number)),
            ]
        with m.If(self.shift):
            m.d.sync += first_x.eq(first_x + self._rows)

        # Bytes of the image: rows by their number; in a row, by words from its beginning and from its end.
        in_rows, behind = Signal(), Signal(signed(X_BITS))
        m.d.comb += [
            in_rows.eq((row >= 0) & (row < height)),
            self.word.eq(address + (x >> offset_bits)),
            self.offset.eq(x[:offset_bits]),
            behind.eq(x - row_bytes),
        ]
        early, late = x >> offset_bits, behind >> offset_bits
        for lane in range(self._rows):
            crosses = [value[:offset_bits] + lane >= self._rows for value in (x, behind)]
            m.d.comb += self.inside[lane].eq(
                in_rows & ((early >= 0) | ((early == -1) & crosses[0])) & ((late < -1) | ((late == -1) & ~crosses[1]))
            )
        return m
