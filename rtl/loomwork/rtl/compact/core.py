# SPDX-License-Identifier: Apache-2.0
"""The compact core: processor, memory and engine, and how a host reaches them."""

from collections.abc import Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from loomwork.arch.registers import CSR_BYTES
from loomwork.rtl.compact.engine import Engine
from loomwork.rtl.compact.layout import ENGINE_BASE, MAILBOX_BASE, MEMORY_BASE, REGION_SHIFT, Layout, Mailbox
from loomwork.rtl.compact.memory import SharedMemory, WordAdapter
from loomwork.rtl.compact.processor import Processor

HOST_ADDRESS_BITS = 32
_REGISTER_BITS = (CSR_BYTES - 1).bit_length()


class CompactCore(Component):
    """Runs the programs of its configuration, with its external memory inside.

    firmware: of the processor. request, of_registers, write, address, write_data: an access of the host, four bytes of
    the external memory or a register of arch/registers.py, until `done`, with which read_data comes. irq: a program has
    ended, as IRQ_ENABLE says.
    """

    request: Signal
    of_registers: Signal
    write: Signal
    address: Signal
    write_data: Signal
    done: Signal
    read_data: Signal
    irq: Signal

    def __init__(self, layout: Layout, firmware: Sequence[int]) -> None:
        self._layout = layout
        self._firmware = firmware
        super().__init__(
            {
                "request": In(1),
                "of_registers": In(1),
                "write": In(1),
                "address": In(HOST_ADDRESS_BITS),
                "write_data": In(32),
                "done": Out(1),
                "read_data": Out(32),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = self._layout
        m.submodules.memory = memory = SharedMemory(layout)
        m.submodules.engine = engine = Engine(layout)
        m.submodules.processor = processor = Processor(self._firmware)
        m.submodules.of_host = of_host = WordAdapter(layout)
        m.submodules.of_processor = of_processor = WordAdapter(layout)
        connect(m, engine.memory, memory.engine)
        connect(m, of_host.memory, memory.host)
        connect(m, of_processor.memory, memory.processor)

        # The host reads registers where the firmware keeps them; what it writes to one, the firmware carries out.
        posted, is_served, cycles = Signal(), Signal(), Signal(32)
        m.d.comb += [
            posted.eq(self.request & self.of_registers & self.write),
            of_host.request.eq(self.request & ~posted),
            of_host.write.eq(self.write),
            of_host.address.eq(self.address),
            of_host.write_data.eq(self.write_data),
            of_host.lanes.eq(-1),
            self.read_data.eq(of_host.read_data),
            self.done.eq(of_host.done | is_served),
        ]
        with m.If(self.of_registers):
            m.d.comb += of_host.address.eq(layout.registers | self.address[:_REGISTER_BITS])
        m.d.sync += cycles.eq(cycles + 1)

        regions = {
            base: Signal(name=f"in_region_{base >> REGION_SHIFT}") for base in (MEMORY_BASE, ENGINE_BASE, MAILBOX_BASE)
        }
        for base, region in regions.items():
            m.d.comb += region.eq(processor.request & (processor.region == base >> REGION_SHIFT))
        number = processor.address[2:]
        ready = Signal()
        m.d.sync += ready.eq((regions[ENGINE_BASE] | regions[MAILBOX_BASE]) & ~ready)
        strobe = ready & processor.write
        m.d.comb += [
            of_processor.request.eq(regions[MEMORY_BASE]),
            of_processor.write.eq(processor.write),
            of_processor.address.eq(processor.address),
            of_processor.write_data.eq(processor.data),
            of_processor.lanes.eq(processor.lanes),
            engine.strobe.eq(strobe & regions[ENGINE_BASE]),
            engine.register.eq(number),
            engine.data.eq(processor.data),
            engine.result.eq(number),
            processor.done.eq(of_processor.done | ready),
            processor.found.eq(of_processor.read_data),
        ]
        found = Signal(32)
        m.d.sync += found.eq(engine.found)
        with m.If(regions[MAILBOX_BASE]):
            with m.Switch(number[:2]):
                with m.Case(Mailbox.OFFSET):
                    m.d.sync += found.eq((self.address[:_REGISTER_BITS] + 1) & (posted & ~is_served).replicate(32))
                with m.Case(Mailbox.VALUE):
                    m.d.sync += found.eq(self.write_data)
                with m.Case(Mailbox.CYCLES):
                    m.d.sync += found.eq(cycles)
        with m.If(ready):
            m.d.comb += processor.found.eq(found)
        m.d.sync += is_served.eq(strobe & regions[MAILBOX_BASE] & (number[:2] == Mailbox.OFFSET))
        with m.If(strobe & regions[MAILBOX_BASE] & (number[:2] == Mailbox.VALUE)):
            m.d.sync += self.irq.eq(processor.data[0])
        return m
