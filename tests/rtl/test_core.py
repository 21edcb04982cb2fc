# SPDX-License-Identifier: Apache-2.0
"""The whole core in the Amaranth simulator: programs too small to prove much but that everything is wired.

What the units compute is proved by their own tests, and whole networks run in Verilator.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.command import Command, encode
from loomwork.arch.config import TINY, Config
from loomwork.arch.isa import Unit, Window, isa_hash
from loomwork.arch.registers import BY_NAME, ID_VALUE, ErrorCode
from loomwork.rtl.core import Core

BASES = {window: 0x10000 * (window + 1) for window in Window}
SIZE = 0x1000
OKAY, SLVERR = 0, 2
BUSY, DONE, ERROR = 1, 2, 4


class AxiMemory:
    """External memory: bursts answered in order with random pauses.

    data: bytes by address; a write outside the OUTPUTS and WORKSPACE windows fails the test.
    bad: addresses that answer SLVERR. frozen: answer nothing.
    """

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut = dut
        self.rng = random.Random(seed)
        self.bytes = TINY.bus_bytes
        self.data: dict[int, int] = {}
        self.bad: set[int] = set()
        self.frozen = False
        self.reads = 0
        self.writes = 0

    def fill(self, address: int, values: bytes) -> None:
        self.data.update({address + place: value for place, value in enumerate(values)})

    def dump(self, address: int, length: int) -> bytes:
        return bytes(self.data.get(place, 0xEE) for place in range(address, address + length))

    async def serve_reads(self, ctx: SimulatorContext) -> None:
        dut = self.dut
        bursts: deque[tuple[int, int, int]] = deque()
        beat: tuple[int, int, bool] | None = None
        while True:
            ctx.set(dut.m_axi_arready, self.rng.random() < 0.6)
            if beat is None and bursts and not self.frozen and self.rng.random() < 0.7:
                address, left, identity = bursts.popleft()
                if left > 1:
                    bursts.appendleft((address + self.bytes, left - 1, identity))
                beat = (address, identity, left == 1)
            ctx.set(dut.m_axi_rvalid, beat is not None)
            if beat is not None:
                address, identity, last = beat
                ctx.set(dut.m_axi_rdata, int.from_bytes(self.dump(address, self.bytes), "little"))
                ctx.set(dut.m_axi_rresp, SLVERR if address in self.bad else OKAY)
                ctx.set(dut.m_axi_rid, identity)
                ctx.set(dut.m_axi_rlast, last)
            _, _, valid, ready, address, length, identity, rready = await ctx.tick().sample(
                dut.m_axi_arvalid,
                dut.m_axi_arready,
                dut.m_axi_araddr,
                dut.m_axi_arlen,
                dut.m_axi_arid,
                dut.m_axi_rready,
            )
            if valid and ready:
                assert address // 4096 == (address + (length + 1) * self.bytes - 1) // 4096
                bursts.append((address, length + 1, identity))
            if beat is not None and rready:
                self.reads += 1
                beat = None

    async def serve_writes(self, ctx: SimulatorContext) -> None:
        dut = self.dut
        bursts: deque[tuple[int, int]] = deque()
        responses: deque[int] = deque()
        while True:
            open_for_business = not self.frozen and self.rng.random() < 0.7
            ctx.set(dut.m_axi_awready, self.rng.random() < 0.6)
            ctx.set(dut.m_axi_wready, bool(bursts) and open_for_business)
            ctx.set(dut.m_axi_bvalid, bool(responses))
            if responses:
                ctx.set(dut.m_axi_bresp, responses[0])
            _, _, awvalid, awready, awaddr, awlen, wvalid, wready, wdata, wlast, bready = await ctx.tick().sample(
                dut.m_axi_awvalid,
                dut.m_axi_awready,
                dut.m_axi_awaddr,
                dut.m_axi_awlen,
                dut.m_axi_wvalid,
                dut.m_axi_wready,
                dut.m_axi_wdata,
                dut.m_axi_wlast,
                dut.m_axi_bready,
            )
            if responses and bready:
                responses.popleft()
            if wvalid and wready:
                self.writes += 1
                address, left = bursts.popleft()
                assert any(0 <= address - BASES[window] < SIZE for window in (Window.OUTPUTS, Window.WORKSPACE))
                self.fill(address, wdata.to_bytes(self.bytes, "little"))
                assert wlast == (left == 1)
                if left > 1:
                    bursts.appendleft((address + self.bytes, left - 1))
                else:
                    responses.append(SLVERR if address in self.bad else OKAY)
            if awvalid and awready:
                bursts.append((awaddr, awlen + 1))


class Driver:
    """Software's side: registers over AXI4-Lite."""

    def __init__(self, ctx: SimulatorContext, dut: Any, memory: AxiMemory, config: Config) -> None:
        self.ctx, self.dut, self.memory, self.config = ctx, dut, memory, config

    async def write(self, name: str, value: int) -> None:
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.s_axil_awaddr, BY_NAME[name].offset)
        ctx.set(dut.s_axil_wdata, value)
        ctx.set(dut.s_axil_wstrb, 0xF)
        for signal in (dut.s_axil_awvalid, dut.s_axil_wvalid, dut.s_axil_bready):
            ctx.set(signal, 1)
        await ctx.tick().until(dut.s_axil_awready & dut.s_axil_wready)
        ctx.set(dut.s_axil_awvalid, 0)
        ctx.set(dut.s_axil_wvalid, 0)
        await ctx.tick().until(dut.s_axil_bvalid)

    async def read(self, name: str) -> int:
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.s_axil_araddr, BY_NAME[name].offset)
        ctx.set(dut.s_axil_arvalid, 1)
        ctx.set(dut.s_axil_rready, 1)
        await ctx.tick().until(dut.s_axil_arready)
        ctx.set(dut.s_axil_arvalid, 0)
        (value,) = await ctx.tick().sample(dut.s_axil_rdata).until(dut.s_axil_rvalid)
        return value

    async def set_up(self) -> None:
        for window in Window:
            await self.write(f"{window.name}_BASE_LOW", BASES[window])
            await self.write(f"{window.name}_SIZE", SIZE)
        await self.write("IRQ_ENABLE", 0b11)

    async def start(self, *commands: Command | bytes) -> None:
        program = b"".join(command if isinstance(command, bytes) else encode(command) for command in commands)
        self.memory.fill(BASES[Window.COMMANDS], program)
        await self.write("CONTROL", 1)

    async def wait(self) -> int:
        """Wait until the engine is not busy; returns STATUS."""
        for _ in range(1000):
            status = await self.read("STATUS")
            if not status & BUSY:
                return status
        raise AssertionError("the engine does not come to an end")

    async def failure(self) -> tuple[ErrorCode, int]:
        """Wait for an error; returns its code and the number of the command that failed."""
        assert await self.wait() == ERROR
        assert self.ctx.get(self.dut.irq)
        offset = await self.read("ERROR_COMMAND")
        assert offset % 32 == 0
        return ErrorCode(await self.read("ERROR_CODE")), offset // 32

    async def soft_reset(self) -> None:
        await self.write("CONTROL", 2)
        assert await self.wait() == 0
        assert await self.read("ERROR_CODE") == 0
        assert await self.read("ERROR_COMMAND") == 0
        assert await self.read("IRQ_STATUS") == 0
        assert await self.read("IRQ_ENABLE") == 0b11, "survives"


ROWS, WORDS = 5, 3
ROW_BYTES = WORDS * TINY.rows
STRIDE = 32


def transfer(mnemonic: str, window: Window, waits: dict[Unit, int] | None = None, **changes: int) -> Command:
    operands = {
        "window": window,
        "offset": 64,
        "row_stride": STRIDE,
        "base": 7,
        "pitch": WORDS,
        "row": 2,
        "rows": ROWS,
        "words": WORDS,
    }
    return Command(mnemonic, operands | changes, waits or {})


COPY = (
    transfer("LOAD", Window.INPUTS),
    transfer("STORE", Window.OUTPUTS, {Unit.LOAD: 1}),
    Command("END"),
)


CONFIGS = (TINY, replace(TINY, name="late", deep_pipeline=True))


def simulate(scenario: Callable[[Driver], Awaitable[None]], seed: int = 1) -> None:
    """Run a scenario on a core without and on one with `deep_pipeline`."""
    for config in CONFIGS:
        _simulate(config, scenario, seed)


def _simulate(config: Config, scenario: Callable[[Driver], Awaitable[None]], seed: int) -> None:
    dut = Core(config)
    memory = AxiMemory(dut, seed)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def run(ctx: SimulatorContext) -> None:
        driver = Driver(ctx, dut, memory, config)
        await driver.set_up()
        await scenario(driver)

    simulator.add_testbench(memory.serve_reads, background=True)
    simulator.add_testbench(memory.serve_writes, background=True)
    simulator.add_testbench(run)
    simulator.run()


async def check_copy(driver: Driver, rng: random.Random) -> None:
    """Copy an image from INPUTS to OUTPUTS; nothing but its bytes may change."""
    source, target = BASES[Window.INPUTS] + 64, BASES[Window.OUTPUTS] + 64
    driver.memory.fill(source - 64, rng.randbytes(SIZE))
    before = bytearray(rng.randbytes(SIZE))
    driver.memory.fill(target - 64, bytes(before))
    driver.memory.reads = driver.memory.writes = 0
    await driver.start(*COPY)
    assert await driver.wait() == DONE
    for row in range(ROWS):
        place = 64 + row * STRIDE
        before[place : place + ROW_BYTES] = driver.memory.dump(source + row * STRIDE, ROW_BYTES)
    assert driver.memory.dump(target - 64, SIZE) == before
    assert driver.ctx.get(driver.dut.irq)
    assert await driver.read("IRQ_STATUS") == 1
    await driver.write("IRQ_STATUS", 1)
    await driver.ctx.tick()
    assert not driver.ctx.get(driver.dut.irq)
    assert await driver.read("COUNT_READ_BEATS") == driver.memory.reads
    assert await driver.read("COUNT_WRITE_BEATS") == driver.memory.writes == ROWS * ROW_BYTES // TINY.bus_bytes
    assert 0 < await driver.read("COUNT_LOAD_BUSY") < await driver.read("COUNT_CYCLES")
    assert 0 < await driver.read("COUNT_STORE_WAIT_TICKET") < await driver.read("COUNT_CYCLES")
    assert await driver.read("COUNT_EXECUTE_BUSY") == 0


def test_programs_run_and_registers_tell():
    async def scenario(driver: Driver) -> None:
        assert await driver.read("ID") == ID_VALUE
        assert await driver.read("ISA_HASH") == isa_hash()
        found = await driver.read("CONFIG_HASH_HIGH") << 32 | await driver.read("CONFIG_HASH_LOW")
        assert found == driver.config.hash
        rng = random.Random(5)
        for _ in range(3):
            await check_copy(driver, rng)

    simulate(scenario)


def test_errors_stop_the_engine_and_a_soft_reset_recovers():
    illegal = bytearray(encode(COPY[0]))
    illegal[-1] = 1
    input_row_2, output_row_1 = BASES[Window.INPUTS] + 64 + 2 * STRIDE, BASES[Window.OUTPUTS] + 64 + STRIDE
    last_word = TINY.bank_words - 1
    cases: list[tuple[ErrorCode, int, list[Command | bytes], set[int]]] = [
        (ErrorCode.ILLEGAL_OPCODE, 1, [COPY[0], bytes(32)], set()),
        (ErrorCode.ILLEGAL_OPERAND, 2, [COPY[0], COPY[0], bytes(illegal)], set()),
        (ErrorCode.WINDOW, 1, [COPY[0], transfer("STORE", Window.INPUTS), COPY[2]], set()),
        (ErrorCode.WINDOW, 0, [transfer("LOAD", Window.INPUTS, offset=SIZE - STRIDE), COPY[2]], set()),
        (ErrorCode.SCRATCHPAD, 1, [COPY[0], transfer("LOAD", Window.INPUTS, base=last_word), COPY[2]], set()),
        (ErrorCode.SCRATCHPAD, 0, [transfer("STORE", Window.OUTPUTS, base=last_word), COPY[2]], set()),
        (ErrorCode.BUS_READ, 0, [*COPY], {input_row_2}),
        (ErrorCode.BUS_READ, 1, [*COPY], {BASES[Window.COMMANDS] + 36}),
        (ErrorCode.BUS_WRITE, 1, [*COPY], {output_row_1 + ROW_BYTES - TINY.bus_bytes}),
        (ErrorCode.WATCHDOG, 1, [COPY[0], transfer("STORE", Window.OUTPUTS, {Unit.DRAIN: 1}), COPY[2]], set()),
    ]

    async def scenario(driver: Driver) -> None:
        rng = random.Random(6)
        await driver.write("WATCHDOG", 300)
        for code, number, program, bad in cases:
            driver.memory.bad = bad
            await driver.start(*program)
            assert await driver.failure() == (code, number), code
            await driver.write("CONTROL", 1)  # ignored
            assert await driver.read("STATUS") == ERROR
            driver.memory.bad = set()
            await driver.soft_reset()
        await check_copy(driver, rng)

    simulate(scenario)


def test_an_error_ends_a_long_store_early():
    async def scenario(driver: Driver) -> None:
        rows = 100
        await driver.start(transfer("STORE", Window.OUTPUTS, rows=rows), bytes(32))
        assert await driver.failure() == (ErrorCode.ILLEGAL_OPCODE, 1)
        await driver.ctx.tick().repeat(100)  # bursts on the bus are completed
        writes = driver.memory.writes
        assert writes < rows * ROW_BYTES // TINY.bus_bytes // 2
        await driver.ctx.tick().repeat(500)
        assert driver.memory.writes == writes

    simulate(scenario)


def test_program_without_end_stops_at_its_window():
    async def scenario(driver: Driver) -> None:
        await driver.write("COMMANDS_SIZE", 64)
        await driver.start(COPY[0], COPY[1], COPY[2])
        assert await driver.failure() == (ErrorCode.WINDOW, 2)
        await driver.soft_reset()
        await driver.write("COMMANDS_SIZE", 96)
        await check_copy(driver, random.Random(7))

    simulate(scenario)


def test_soft_reset_aborts_a_program_and_finishes_what_is_on_the_bus():
    async def scenario(driver: Driver) -> None:
        waited = 0
        for delay in (0, 10, 20, 30, 45, 60, 90, 120):
            await driver.start(*COPY)
            await driver.ctx.tick().repeat(delay) if delay else None
            driver.memory.frozen = True
            await driver.write("CONTROL", 2)
            busy = False
            for _ in range(20):
                busy = await driver.read("STATUS") == BUSY
            driver.memory.frozen = False
            assert await driver.wait() == 0
            waited += busy
        assert waited >= 4, "bursts must have been under way often"
        await check_copy(driver, random.Random(8))

    simulate(scenario)
