# SPDX-License-Identifier: Apache-2.0
"""What is on a board with a compact core: the core with its memory, and the host link."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from loomwork.arch.config import Config
from loomwork.fpga.boards.system import join
from loomwork.fpga.link.bridge import Bridge
from loomwork.fpga.link.framing import Deframer, Framer
from loomwork.fpga.link.requests import Requests
from loomwork.fpga.link.uart import UartReceiver, UartTransmitter
from loomwork.rtl.compact.build import build_firmware
from loomwork.rtl.compact.core import CompactCore
from loomwork.rtl.compact.layout import Layout


class CompactSystem(Component):
    """A compact core whose registers and memory are reached over a UART; see `System`.

    Raises ConfigError for a configuration that the compact core has not, FirmwareError when the program cannot be made.
    """

    rx: Signal
    tx: Signal
    irq: Signal

    def __init__(self, config: Config, memory_bytes: int, divisor: int) -> None:
        self._layout = Layout(config, memory_bytes)
        self._firmware = build_firmware(self._layout)
        self._divisor = divisor
        super().__init__({"rx": In(1), "tx": Out(1), "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = CompactCore(self._layout, self._firmware)
        m.submodules.receiver = receiver = UartReceiver(self._divisor)
        m.submodules.deframer = deframer = Deframer()
        m.submodules.requests = requests = Requests()
        m.submodules.bridge = bridge = Bridge(self._layout.external)
        m.submodules.framer = framer = Framer()
        m.submodules.transmitter = transmitter = UartTransmitter(self._divisor)
        memory, registers = bridge.memory, bridge.registers
        m.d.comb += [
            receiver.rx.eq(self.rx),
            *join(deframer, receiver, "data", "valid", "error"),
            *join(requests, deframer, "begin", "byte", "push", "good"),
            *join(bridge, requests, "pending", "request", "data_words", "data"),
            *join(requests, bridge, "taken", "index"),
            self.tx.eq(transmitter.tx),
            self.irq.eq(core.irq),
            core.request.eq(memory.request | registers.request),
            core.of_registers.eq(registers.request),
            *join(core, memory, "write", "address", "write_data"),  # the same for both
            *(memory.read_data.eq(core.read_data), registers.read_data.eq(core.read_data)),
            *(memory.done.eq(core.done), registers.done.eq(core.done)),
        ]
        connect(m, bridge.reply, framer.i)
        connect(m, framer.o, transmitter.i)
        return m
