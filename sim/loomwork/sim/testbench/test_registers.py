# SPDX-License-Identifier: Apache-2.0
"""Registers over AXI4-Lite: identity, storage, byte strobes, access kinds."""

import cocotb

from loomwork.arch.isa import isa_hash
from loomwork.arch.registers import BY_NAME, CSR_BYTES, ID_VALUE, INTERFACE_VERSION, REGISTERS, Access
from loomwork.sim.testbench.environment import Bench, Dut


@cocotb.test()
async def identity(dut: Dut) -> None:
    """The identity registers tell command set and configuration."""
    bench = await Bench.create(dut)
    assert await bench.read("ID") == ID_VALUE
    assert await bench.read("VERSION") == INTERFACE_VERSION
    assert await bench.read("ISA_HASH") == isa_hash()
    assert await bench.read("CONFIG_HASH_LOW") == bench.config.hash & 0xFFFF_FFFF
    assert await bench.read("CONFIG_HASH_HIGH") == bench.config.hash >> 32


@cocotb.test()
async def storage(dut: Dut) -> None:
    """Read/write registers keep what was written, byte by byte; read-only ones do not change; none disturbs another."""
    bench = await Bench.create(dut)
    writable = [register for register in REGISTERS if register.access is Access.READ_WRITE and not register.bits]
    writable = [register for register in writable if not register.name.endswith("_HIGH")]
    values = {register.name: bench.random.getrandbits(32) & 0xFFFF_F000 for register in writable}
    for name, value in values.items():
        await bench.write(name, value)
    await bench.registers.write(BY_NAME["WATCHDOG"].offset + 1, b"\x5a")
    values["WATCHDOG"] = values["WATCHDOG"] & 0xFFFF_00FF | 0x5A00
    await bench.write("ID", 0)
    for name, value in values.items():
        assert await bench.read(name) == value, name
    assert await bench.read("ID") == ID_VALUE


@cocotb.test()
async def unmapped(dut: Dut) -> None:
    """An address without a register answers, and changes nothing."""
    bench = await Bench.create(dut)
    mapped = {register.offset for register in REGISTERS}
    hole = next(offset for offset in range(0, CSR_BYTES, 4) if offset not in mapped)
    await bench.registers.write(hole, b"\xff\xff\xff\xff")
    assert await bench.registers.read_dword(hole) == 0
    assert await bench.read("STATUS") == 0
