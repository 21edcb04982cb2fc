# SPDX-License-Identifier: Apache-2.0
"""What is on every board: core, memory and host link, from the UART's pins on."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, Flow, In, Out, connect

from loomwork.arch.config import Config
from loomwork.fpga.link.bridge import Bridge
from loomwork.fpga.link.framing import Deframer, Framer
from loomwork.fpga.link.memory import OnChipMemory, check_size
from loomwork.fpga.link.requests import Requests
from loomwork.fpga.link.uart import UartReceiver, UartTransmitter
from loomwork.fpga.link.words import LiteMaster
from loomwork.rtl.core import Core


def join(to: Any, source: Any, *names: str) -> list[Any]:
    """Drive inputs of one component by the outputs of the same names of another."""
    return [getattr(to, name).eq(getattr(source, name)) for name in names]


class System(Component):
    """A core whose registers and memory are reached over a UART.

    memory_bytes: of block RAM that serves as external memory. divisor: clock cycles per bit of the UART.
    rx, tx: the UART. irq: the core's interrupt: a program has ended.

    Raises ConfigError for a memory that does not fit the bus.
    """

    rx: Signal
    tx: Signal
    irq: Signal

    def __init__(self, config: Config, memory_bytes: int, divisor: int) -> None:
        check_size(config, memory_bytes)
        self._config = config
        self._memory_bytes = memory_bytes
        self._divisor = divisor
        super().__init__({"rx": In(1), "tx": Out(1), "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = Core(self._config)
        m.submodules.memory = memory = OnChipMemory(self._config, self._memory_bytes)
        m.submodules.receiver = receiver = UartReceiver(self._divisor)
        m.submodules.deframer = deframer = Deframer()
        m.submodules.requests = requests = Requests()
        m.submodules.bridge = bridge = Bridge(self._memory_bytes)
        m.submodules.framer = framer = Framer()
        m.submodules.transmitter = transmitter = UartTransmitter(self._divisor)
        m.submodules.lite = lite = LiteMaster()
        m.d.comb += [
            receiver.rx.eq(self.rx),
            *join(deframer, receiver, "data", "valid", "error"),
            *join(requests, deframer, "begin", "byte", "push", "good"),
            *join(bridge, requests, "pending", "request", "data_words", "data"),
            *join(requests, bridge, "taken", "index"),
            self.tx.eq(transmitter.tx),
            self.irq.eq(core.irq),
        ]
        connect(m, bridge.reply, framer.i)
        connect(m, framer.o, transmitter.i)
        connect(m, bridge.memory, memory.words)
        connect(m, bridge.registers, lite.words)
        for prefix, interface in (("m_axi", memory.read), ("m_axi", memory.write), ("s_axil", lite.bus)):
            for name, member in interface.signature.members.items():
                here, there = getattr(interface, name), getattr(core, f"{prefix}_{name}")
                m.d.comb += here.eq(there) if member.flow is Flow.In else there.eq(here)
        return m
