# SPDX-License-Identifier: Apache-2.0
"""Registers: what reads and writes over AXI4-Lite do, for each access kind of the table."""

import random

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.registers import CSR_BYTES, REGISTERS, Access, Bits, Register
from loomwork.rtl.csr import Csr

TABLE = (
    Register("PLAIN", 0x00, Access.READ, ""),
    Register("SETTING", 0x04, Access.READ_WRITE, "", reset=0x1234),
    Register("NARROW", 0x08, Access.READ_WRITE, "", (Bits("LOW", 0, 2, ""), Bits("HIGH", 30, 1, ""))),
    Register("PULSE", 0x10, Access.WRITE_PULSE, "", (Bits("A", 0, 1, ""), Bits("B", 3, 1, ""))),
    Register("EVENTS", 0x14, Access.STICKY, "", (Bits("A", 0, 1, ""), Bits("B", 1, 1, ""))),
)


BOTH = pytest.mark.parametrize("deep", [False, True])


async def write(
    ctx: SimulatorContext, dut: Csr, address: int, value: int, strobe: int = 0xF, data_late: int = 0
) -> int:
    """One write, the data `data_late` cycles behind the address (before it when negative). Returns the response."""
    bus = dut.bus
    ctx.set(bus.awaddr, address)
    ctx.set(bus.wdata, value)
    ctx.set(bus.wstrb, strobe)
    ctx.set(bus.bready, 0)
    first, second = (bus.awvalid, bus.wvalid) if data_late >= 0 else (bus.wvalid, bus.awvalid)
    ctx.set(first, 1)
    for _ in range(abs(data_late)):
        assert not ctx.get(bus.awready)
        assert not ctx.get(bus.wready)
        await ctx.tick()
    ctx.set(second, 1)
    await ctx.tick().until(bus.awready & bus.wready)
    ctx.set(bus.awvalid, 0)
    ctx.set(bus.wvalid, 0)
    ctx.set(bus.bready, 1)
    (response,) = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
    return response


async def read(ctx: SimulatorContext, dut: Csr, address: int, patience: int = 0) -> int:
    """One read, its data taken `patience` cycles after it has come. Returns the data, having checked the response."""
    bus = dut.bus
    ctx.set(bus.araddr, address)
    ctx.set(bus.arvalid, 1)
    ctx.set(bus.rready, 0)
    await ctx.tick().until(bus.arready)
    ctx.set(bus.arvalid, 0)
    await ctx.tick().repeat(patience) if patience else None
    ctx.set(bus.rready, 1)
    value, response = await ctx.tick().sample(bus.rdata, bus.rresp).until(bus.rvalid)
    assert response == 0
    return value


def simulate(dut: Csr, testbench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@BOTH
def test_read_only(deep: bool):
    dut = Csr(TABLE, deep=deep)

    async def testbench(ctx: SimulatorContext):
        ctx.set(dut.plain, 0xDEADBEEF)
        assert await read(ctx, dut, 0x00) == 0xDEADBEEF
        assert await write(ctx, dut, 0x00, 1) == 0
        assert await read(ctx, dut, 0x00, patience=3) == 0xDEADBEEF

    simulate(dut, testbench)


@BOTH
def test_read_write_with_byte_enables(deep: bool):
    dut = Csr(TABLE, deep=deep)

    async def testbench(ctx: SimulatorContext):
        assert await read(ctx, dut, 0x04) == 0x1234
        await write(ctx, dut, 0x04, 0xAABBCCDD, strobe=0b0101)
        assert await read(ctx, dut, 0x04) == 0x00BB12DD
        assert ctx.get(dut.setting) == 0x00BB12DD
        await write(ctx, dut, 0x04, 0x11223344, strobe=0)
        assert await read(ctx, dut, 0x04) == 0x00BB12DD
        await write(ctx, dut, 0x08, 0xFFFFFFFF)
        assert await read(ctx, dut, 0x08) == 0x40000003, "only named bits exist"

    simulate(dut, testbench)


@BOTH
def test_pulse_lasts_one_cycle_and_reads_as_zero(deep: bool):
    dut = Csr(TABLE, deep=deep)
    seen: list[int] = []

    async def watch(ctx: SimulatorContext):
        async for _, _, value in ctx.tick().sample(dut.pulse):
            seen.append(value)

    async def testbench(ctx: SimulatorContext):
        await write(ctx, dut, 0x10, 0xFFFFFFFF)
        assert await read(ctx, dut, 0x10) == 0
        await write(ctx, dut, 0x10, 0x9, strobe=0b1110)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_process(watch)
    simulator.add_testbench(testbench)
    simulator.run()
    assert [value for value in seen if value] == [0b1001]


@BOTH
def test_sticky_bits_are_cleared_by_writing_one(deep: bool):
    dut = Csr(TABLE, deep=deep)

    async def testbench(ctx: SimulatorContext):
        ctx.set(dut.events_set, 0b11)
        await ctx.tick()
        ctx.set(dut.events_set, 0)
        assert await read(ctx, dut, 0x14) == 0b11
        await write(ctx, dut, 0x14, 0b01)
        assert await read(ctx, dut, 0x14) == 0b10
        ctx.set(dut.events_set, 0b10)
        await write(ctx, dut, 0x14, 0b10)
        assert await read(ctx, dut, 0x14) == 0b10, "an event is not lost to a write in the same cycle"
        ctx.set(dut.events_set, 0)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert await read(ctx, dut, 0x14) == 0

    simulate(dut, testbench)


@pytest.mark.parametrize("data_late", [-2, 0, 3])
@BOTH
def test_address_and_data_come_in_any_order(data_late: int, deep: bool):
    dut = Csr(TABLE, deep=deep)

    async def testbench(ctx: SimulatorContext):
        await write(ctx, dut, 0x04, 77, data_late=data_late)
        assert await read(ctx, dut, 0x04) == 77

    simulate(dut, testbench)


@BOTH
def test_addresses_without_a_register_read_as_zero(deep: bool):
    dut = Csr(TABLE, deep=deep)
    used = {register.offset for register in TABLE}

    async def testbench(ctx: SimulatorContext):
        ctx.set(dut.plain, 0xFFFFFFFF)
        for address in range(0, CSR_BYTES, 4):
            if address not in used:
                assert await write(ctx, dut, address, 0xFFFFFFFF) == 0
                assert await read(ctx, dut, address) == 0
        assert await read(ctx, dut, 0x04) == 0x1234

    simulate(dut, testbench)


@pytest.mark.parametrize("address_bits", [32, 40])
def test_whole_table(address_bits: int):
    """Every register of the real map is there, at its place and nowhere else."""
    dut = Csr(address_bits=address_bits)
    rng = random.Random(7)
    values = {register.name: rng.getrandbits(32) for register in REGISTERS}

    def kept(name: str) -> int:
        """What a READ_WRITE register of the real map holds after `values[name]` is written to it."""
        value = values[name]
        if name.endswith("_BASE_LOW"):
            return value & 0xFFFFF000
        if name.endswith("_BASE_HIGH"):
            return value & ((1 << address_bits - 32) - 1)
        return value & 0b11 if name == "IRQ_ENABLE" else value

    async def testbench(ctx: SimulatorContext):
        for register in REGISTERS:
            if register.access is Access.READ:
                ctx.set(getattr(dut, register.name.lower()), values[register.name])
            elif register.access is Access.READ_WRITE:
                await write(ctx, dut, register.offset, values[register.name])
        for register in REGISTERS:
            value = await read(ctx, dut, register.offset)
            if register.access is Access.READ:
                assert value == values[register.name], register.name
            elif register.access is Access.READ_WRITE:
                assert value == kept(register.name), register.name
                assert ctx.get(getattr(dut, register.name.lower())) == value
            else:
                assert value == 0

    simulate(dut, testbench)


@BOTH
def test_writes_and_reads_follow_each_other_every_cycle_or_take_three_and_four(deep: bool):
    dut = Csr(TABLE, deep=deep)

    async def testbench(ctx: SimulatorContext):
        bus = dut.bus
        ctx.set(bus.bready, 1)
        ctx.set(bus.rready, 1)
        ctx.set(bus.awvalid, 1)
        ctx.set(bus.wvalid, 1)
        ctx.set(bus.arvalid, 1)
        ctx.set(bus.wstrb, 0xF)
        ctx.set(bus.awaddr, 4)
        ctx.set(bus.araddr, 4)
        seen: list[int] = []
        for value in range(10):
            ctx.set(bus.wdata, value)
            assert ctx.get(bus.awready) == (not deep or value % 3 == 0)
            assert ctx.get(bus.arready) == (not deep or value % 4 == 0)
            _, _, valid, data = await ctx.tick().sample(bus.rvalid, bus.rdata)
            if valid:
                seen.append(data)
        # In steps, a read finds what was written by the cycle behind the one of its address: at 0 nothing is, at 4 the
        # value of cycle 3.
        assert seen == ([0x1234, 3] if deep else [0x1234, 0, 1, 2, 3, 4, 5, 6, 7])

    simulate(dut, testbench)
