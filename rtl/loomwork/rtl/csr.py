# SPDX-License-Identifier: Apache-2.0
"""Control and status registers behind AXI4-Lite, made from the table in `arch/registers.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Member, Out

from loomwork.arch.isa import Window
from loomwork.arch.registers import CSR_BYTES, REGISTERS, Access, Register
from loomwork.rtl.axi import LITE_DATA_BITS, Axi4Lite

CSR_ADDRESS_BITS = (CSR_BYTES - 1).bit_length()
RESP_OKAY = 0
_LOWER_BITS = 2
"""Bits of a word's address that choose in the first step of a read in steps."""
PAGE_BITS = 12
"""The low bits of a window's base are 0, so that no burst of a unit can cross a 4 KiB border by surprise."""

_WRITING = data.StructLayout({"valid": 1, "data": LITE_DATA_BITS, "strobes": LITE_DATA_BITS // 8})
"""A write of a word."""


def writable_bits(register: Register, address_bits: int) -> int:
    """Mask of the bits of a register that software can change or, for WRITE_PULSE, that do something.

    Named bits where the table names any; of a window's base, those that a multiple of 4096 on a bus of `address_bits`
    may have set.
    """
    for window in Window:
        if register.name == f"{window.name}_BASE_LOW":
            return (1 << min(address_bits, 32)) - (1 << PAGE_BITS)
        if register.name == f"{window.name}_BASE_HIGH":
            return (1 << max(address_bits - 32, 0)) - 1
    if register.bits:
        return sum((1 << part.width) - 1 << part.low for part in register.bits)
    return (1 << LITE_DATA_BITS) - 1


class Csr(Component):
    """The register file.

    Addresses without a register read as 0 and ignore writes, answered OKAY: looking at the whole space shall not crash
    the processor that does. Byte enables are honoured; a write acts when address and data are both there, one cycle
    before its response. The two low bits of an address are ignored. deep: a read takes two cycles more, a write one;
    the next one is taken when it is answered (`deep_pipeline`).

    bus: AXI4-Lite. For a register NAME of the table there is a member `name`: READ, its value (in); READ_WRITE, its
    value (out); WRITE_PULSE, the bits just written as 1, for one cycle (out); STICKY, its value (out) together with
    `name_set`, bits that happen now (in) and win over clearing. clear: clear the STICKY registers.
    """

    bus: Any
    clear: Signal

    def __init__(
        self, registers: Sequence[Register] = REGISTERS, *, address_bits: int = 32, deep: bool = False
    ) -> None:
        self._registers = registers
        self._deep = deep
        self._address_bits = address_bits
        members: dict[str, Member] = {}
        for register in registers:
            name = register.name.lower()
            members[name] = (In if register.access is Access.READ else Out)(LITE_DATA_BITS)
            if register.access is Access.STICKY:
                members[f"{name}_set"] = In(LITE_DATA_BITS)
        super().__init__({"bus": In(Axi4Lite(CSR_ADDRESS_BITS)), "clear": In(1), **members})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        values = {register.name: Value.cast(getattr(self, register.name.lower())) for register in self._registers}

        domain = "sync" if self._deep else "comb"
        taken, writing = self._take_write(m, domain)
        for register in self._registers:
            chosen = Signal(name=f"write_{register.name.lower()}")
            m.d[domain] += chosen.eq(taken & (bus.awaddr[2:] == register.offset >> 2))
            self._write(m, register, values[register.name], chosen, writing)

        m.d.comb += bus.rresp.eq(RESP_OKAY)
        if self._deep:
            self._read_in_steps(m, values)
        else:
            m.d.comb += bus.arready.eq(~bus.rvalid | bus.rready)
            with m.If(bus.arready):
                m.d.sync += [bus.rvalid.eq(bus.arvalid), bus.rdata.eq(_select(bus.araddr[2:], self._words(values)))]
        return m

    def _take_write(self, m: Module, domain: str) -> tuple[Signal, data.View]:
        """Whether a write is taken, and one in the cycle in which it acts: the same, or with `deep` the next one."""
        bus = self.bus
        taken = Signal()
        writing = Signal(_WRITING)
        m.d.comb += [bus.awready.eq(taken), bus.wready.eq(taken), bus.bresp.eq(RESP_OKAY)]
        if self._deep:
            m.d.comb += taken.eq(bus.awvalid & bus.wvalid & ~bus.bvalid & ~writing.valid)
        else:
            m.d.comb += taken.eq(bus.awvalid & bus.wvalid & (~bus.bvalid | bus.bready))
        m.d[domain] += [
            writing.valid.eq(taken),
            writing.data.eq(bus.wdata),
            writing.strobes.eq(bus.wstrb),
        ]
        with m.If(writing.valid):
            m.d.sync += bus.bvalid.eq(1)
        with m.Elif(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        return taken, writing

    def _read_in_steps(self, m: Module, values: Mapping[str, Value]) -> None:
        """Note the address, choose by its lower bits, choose by its upper ones: each in a cycle."""
        bus = self.bus
        address = Signal(len(bus.araddr) - 2, reset_less=True)
        noted, chosen = Signal(), Signal()
        m.d.comb += bus.arready.eq(~(noted | chosen | bus.rvalid))
        m.d.sync += [noted.eq(bus.arvalid & bus.arready), chosen.eq(noted)]
        with m.If(bus.arready):
            m.d.sync += address.eq(bus.araddr[2:])
        words = self._words(values)
        block = 1 << _LOWER_BITS
        level: list[Value | None] = []
        for start in range(0, len(words), block):
            register = Signal(LITE_DATA_BITS, name=f"words_{start}", reset_less=True)
            m.d.sync += register.eq(_select(address[:_LOWER_BITS], words[start : start + block]))
            level.append(register)
        with m.If(chosen):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(_select(address[_LOWER_BITS:], level))]
        with m.Elif(bus.rready):
            m.d.sync += bus.rvalid.eq(0)

    def _write(self, m: Module, register: Register, value: Value, chosen: Value, writing: data.View) -> None:
        """What a write to one register does, when it is `chosen`."""
        mask = writable_bits(register, self._address_bits)
        enabled = Cat((chosen & strobe).replicate(8) for strobe in writing.strobes)
        match register.access:
            case Access.READ_WRITE:
                kept = Signal(LITE_DATA_BITS, name=register.name.lower(), init=register.reset)
                # One condition for a whole byte becomes its clock enable, instead of a multiplexer for each bit.
                for number, strobe in enumerate(writing.strobes):
                    with m.If(chosen & strobe):
                        for place in range(8 * number, 8 * number + 8):
                            if mask >> place & 1:
                                m.d.sync += kept[place].eq(writing.data[place])
                m.d.comb += value.eq(kept)
            case Access.WRITE_PULSE:
                m.d.comb += value.eq(writing.data & enabled & mask)
            case Access.STICKY:
                events = getattr(self, f"{register.name.lower()}_set")
                kept = Mux(self.clear, 0, value) & ~(writing.data & enabled & mask)
                m.d.sync += value.eq(kept | events)
            case Access.READ:
                pass

    def _words(self, values: Mapping[str, Value]) -> list[Value | None]:
        """What each word of the address space reads as, 32 bits; None where that is 0."""
        words: list[Value | None] = [None] * (CSR_BYTES * 8 // LITE_DATA_BITS)
        for register in self._registers:
            if register.access is not Access.WRITE_PULSE:
                words[register.offset >> 2] = values[register.name]
        return words


def _select(address: Value, words: Sequence[Value | None]) -> Value:
    """One of 2 to the power of bits of the address words: two-way multiplexers, one level of them for each bit.

    A `Switch` would compare the address with that of each register, and again for each bit of it.
    """
    level = list(words)
    for bit in address:
        level = [_choose(bit, *pair) for pair in zip(level[::2], level[1::2], strict=True)]
    return Const(0) if level[0] is None else level[0]


def _choose(bit: Value, low: Value | None, high: Value | None) -> Value | None:
    """`high` where `bit` is 1, else `low`; None is 0."""
    if low is None and high is None:
        return None
    return Mux(bit, 0 if high is None else high, 0 if low is None else low)
