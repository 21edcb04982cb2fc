# SPDX-License-Identifier: Apache-2.0
"""The processor of the compact core, with the memory of its firmware."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from loomwork.rtl.compact.layout import REGION_SHIFT

MODULE = "picorv32"
_PARAMETERS = {
    **dict.fromkeys(("ENABLE_COUNTERS", "ENABLE_COUNTERS64", "CATCH_MISALIGN", "CATCH_ILLINSN", "ENABLE_IRQ"), 0),
    **dict.fromkeys(("COMPRESSED_ISA", "ENABLE_REGS_16_31", "ENABLE_REGS_DUALPORT", "TWO_STAGE_SHIFT"), 1),
}
"""RV32IC: compressed instructions take a third less memory, which the smallest FPGA has less of than lookup tables."""


def processor_verilog() -> str:
    """The Verilog of PicoRV32, module MODULE, which a design with a `Processor` needs beside its own."""
    package = files("pythondata_cpu_picorv32")
    return package.joinpath("verilog/picorv32.v").read_text(encoding="utf-8")


class Processor(Component):
    """PicoRV32 and the firmware's instructions.

    firmware: words from address 0 on.
    request, write, address, data, lanes: an access elsewhere, until `done`, with which `found` comes. region: the
    address's highest bits.
    """

    request: Signal
    write: Signal
    region: Signal
    address: Signal
    data: Signal
    lanes: Signal
    done: Signal
    found: Signal

    def __init__(self, firmware: Sequence[int]) -> None:
        self._firmware = firmware
        super().__init__(
            {
                "request": Out(1),
                "write": Out(1),
                "region": Out(2),
                "address": Out(REGION_SHIFT),
                "data": Out(32),
                "lanes": Out(4),
                "done": In(1),
                "found": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = rom = Memory(shape=32, depth=len(self._firmware), init=self._firmware)
        read = rom.read_port()
        valid, ready = Signal(), Signal()
        address, ahead, found = Signal(32), Signal(32), Signal(32)
        signals: dict[str, Any] = {
            "i_clk": ClockSignal(),
            "i_resetn": ~ResetSignal(allow_reset_less=True),
            "o_mem_valid": valid,
            "i_mem_ready": ready,
            "o_mem_addr": address,
            "o_mem_wdata": self.data,
            "o_mem_wstrb": self.lanes,
            "i_mem_rdata": found,
            "o_mem_la_addr": ahead,
            "i_irq": Const(0, 32),
            **{f"i_pcpi_{name}": Const(0, width) for name, width in (("wr", 1), ("rd", 32), ("wait", 1), ("ready", 1))},
            **{f"p_{name}": value for name, value in _PARAMETERS.items()},
        }
        m.submodules.cpu = Instance(MODULE, **signals)
        in_rom = self.region == 0
        m.d.comb += [
            self.region.eq(address[REGION_SHIFT:]),
            self.address.eq(address),
            self.request.eq(valid & ~in_rom),
            self.write.eq(self.lanes.any()),
            # The address is known a cycle ahead, so that an instruction takes no cycle to fetch.
            read.addr.eq(ahead >> 2),
            ready.eq(valid & (in_rom | self.done)),
            found.eq(self.found),
        ]
        with m.If(in_rom):
            m.d.comb += found.eq(read.data)
        return m
