# SPDX-License-Identifier: Apache-2.0
"""What every test bench needs: clock, reset, registers by name, and a memory that notices what it should not see."""

import json
import os
import random
from collections.abc import Iterator
from typing import Protocol

import cocotb
from cocotb.clock import Clock
from cocotb.handle import LogicObject
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave
from cocotbext.axi.address_space import Region

from loomwork.arch.command import Command, encode
from loomwork.arch.config import Config
from loomwork.arch.isa import WRITABLE_WINDOWS, Window
from loomwork.arch.registers import BY_NAME, ErrorCode

CONFIG_VARIABLE = "LOOMWORK_TESTBENCH_CONFIG"
GUARD_BYTES = 4096
GUARD = 0xA5
CLOCK_PERIOD_NS = 10


def tested_config() -> Config:
    """The configuration under test, which the runner passes through the environment."""
    return Config.from_dict(json.loads(os.environ[CONFIG_VARIABLE]))


class Dut(Protocol):
    """The ports of the core that a test bench touches itself; the bus models find theirs by prefix."""

    clk: LogicObject
    rst: LogicObject
    irq: LogicObject


class BusError(Exception):
    """Makes the memory answer SLVERR."""


class GuardedMemory(Region):
    """External memory of five windows, each between guard zones.

    Every access outside a window, and every write to a window that is read-only, is noted in `violations` and answered
    with SLVERR. latency: extra cycles drawn per burst. failing: windows that answer SLVERR whatever is asked.
    """

    def __init__(self, clock: LogicObject, generator: random.Random, latency: int) -> None:
        super().__init__(1 << 32)
        self.bytes = bytearray()
        self.bases: dict[Window, int] = {}
        self.sizes: dict[Window, int] = {}
        self.violations: list[str] = []
        self.failing: set[Window] = set()
        self._clock = clock
        self._random = generator
        self._latency = latency

    def place(self, contents: dict[Window, bytes]) -> None:
        """Lay out the windows anew; all between them is filled with GUARD."""
        self.bytes = bytearray()
        for window, content in contents.items():
            self._pad_to_guard()
            self.bases[window] = len(self.bytes)
            self.sizes[window] = len(content)
            self.bytes.extend(content)
        self._pad_to_guard()
        self.violations.clear()
        self.failing.clear()

    def content(self, window: Window) -> bytes:
        """What a window holds now."""
        return bytes(self.bytes[self.bases[window] : self.bases[window] + self.sizes[window]])

    def check_guards(self) -> None:
        """Assert that nothing outside the windows was touched, read or written."""
        assert not self.violations, self.violations
        position = 0
        for window, base in [*self.bases.items(), (None, len(self.bytes))]:
            zone = self.bytes[position:base]
            assert zone == bytes([GUARD]) * len(zone), f"guard bytes before {window} were overwritten"
            if window is not None:
                position = base + self.sizes[window]

    def _pad_to_guard(self) -> None:
        gap = GUARD_BYTES - len(self.bytes) % GUARD_BYTES
        self.bytes.extend(bytes([GUARD]) * gap)

    def _window_of(self, address: int, length: int) -> Window | None:
        for window, base in self.bases.items():
            if base <= address and address + length <= base + self.sizes[window]:
                return window
        return None

    async def _read(self, address: int, length: int, **_: object) -> bytes:
        if self._latency and self._random.random() < 0.05:
            await ClockCycles(self._clock, self._random.randint(1, self._latency))
        window = self._window_of(address, length)
        if window is None:
            self.violations.append(f"read of {length} bytes at {address:#x}, outside every window")
        if window is None or window in self.failing:
            raise BusError
        return bytes(self.bytes[address : address + length])

    async def _write(self, address: int, data: bytes, **_: object) -> None:
        window = self._window_of(address, len(data))
        if window is None or window not in WRITABLE_WINDOWS:
            self.violations.append(f"write of {len(data)} bytes at {address:#x} to {window}")
            raise BusError
        if window in self.failing:
            raise BusError
        self.bytes[address : address + len(data)] = data


def pauses(generator: random.Random, percent: int) -> Iterator[bool]:
    """An endless series of random pauses."""
    while True:
        yield generator.random() * 100 < percent


class Bench:
    """A core with clock, registers and memory. Make one with `await Bench.create(dut)`."""

    def __init__(self, dut: Dut, generator: random.Random, latency: int) -> None:
        self.dut = dut
        self.random = generator
        self.config = tested_config()
        self.memory = GuardedMemory(dut.clk, generator, latency)
        self.registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.bus = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=self.memory)

    @classmethod
    async def create(cls, dut: Dut, *, latency: int = 20, pause_percent: int = 0) -> "Bench":
        """Start the clock and reset the core. latency: of the memory. pause_percent: of every bus channel."""
        generator = random.Random(cocotb.RANDOM_SEED)
        dut.rst.value = 1
        cocotb.start_soon(Clock(dut.clk, CLOCK_PERIOD_NS, unit="ns").start())
        bench = cls(dut, generator, latency)
        if pause_percent:
            read, write = bench.bus.read_if, bench.bus.write_if
            assert read is not None
            assert write is not None
            channels = (read.ar_channel, read.r_channel, write.aw_channel, write.w_channel, write.b_channel)
            for channel in channels:
                channel.set_pause_generator(pauses(generator, pause_percent))
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        return bench

    async def read(self, register: str) -> int:
        """Read a register by name."""
        return await self.registers.read_dword(BY_NAME[register].offset)

    async def write(self, register: str, value: int) -> None:
        """Write a register by name."""
        await self.registers.write_dword(BY_NAME[register].offset, value)

    async def load(self, commands: list[Command] | bytes, contents: dict[Window, bytes]) -> None:
        """Place the windows in memory and program their registers."""
        program = commands if isinstance(commands, bytes) else b"".join(map(encode, commands))
        self.memory.place({Window.COMMANDS: program, **contents})
        for window in Window:
            await self.write(f"{window.name}_BASE_LOW", self.memory.bases.get(window, 0))
            await self.write(f"{window.name}_BASE_HIGH", 0)
            await self.write(f"{window.name}_SIZE", self.memory.sizes.get(window, 0))

    async def start(self) -> None:
        """Clear and enable the interrupt, start the program."""
        events = BY_NAME["IRQ_ENABLE"].mask("DONE") | BY_NAME["IRQ_ENABLE"].mask("ERROR")
        await self.write("IRQ_STATUS", events)
        await self.write("IRQ_ENABLE", events)
        await self.write("CONTROL", BY_NAME["CONTROL"].mask("START"))

    async def wait(self, limit: int = 200_000) -> None:
        """Wait for the interrupt; fails after `limit` cycles."""
        for _ in range(limit):
            if self.dut.irq.value == 1:
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError(f"no interrupt within {limit} cycles")

    async def run(self, commands: list[Command] | bytes, contents: dict[Window, bytes]) -> bytes:
        """Run a program to its end; returns what the OUTPUTS window holds then."""
        await self.load(commands, contents)
        await self.start()
        await self.wait()
        status = await self.read("STATUS")
        code = ErrorCode(await self.read("ERROR_CODE"))
        assert not status & BY_NAME["STATUS"].mask("ERROR"), f"{code.name} at {await self.read('ERROR_COMMAND')}"
        assert status & BY_NAME["STATUS"].mask("DONE")
        assert not status & BY_NAME["STATUS"].mask("BUSY")
        self.memory.check_guards()
        return self.memory.content(Window.OUTPUTS)

    async def expect_error(self, code: ErrorCode, offset: int) -> None:
        """Wait for the engine to stop and check why and where."""
        await self.wait()
        status = await self.read("STATUS")
        assert status & BY_NAME["STATUS"].mask("ERROR"), f"STATUS is {status:#x}"
        found = ErrorCode(await self.read("ERROR_CODE"))
        assert found is code, f"{found.name} instead of {code.name}"
        assert await self.read("ERROR_COMMAND") == offset

    async def soft_reset(self, limit: int = 2000) -> None:
        """Reset the engine and wait until it is idle and without error."""
        await self.write("CONTROL", BY_NAME["CONTROL"].mask("RESET"))
        for _ in range(limit):
            if not await self.read("STATUS") & BY_NAME["STATUS"].mask("BUSY"):
                break
        assert await self.read("STATUS") == 0
        assert await self.read("ERROR_CODE") == ErrorCode.NONE
