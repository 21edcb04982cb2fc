# SPDX-License-Identifier: Apache-2.0
"""Registers of the compact core: what each holds and takes, starting and resetting, the interrupt, the watchdog."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from loomwork.arch.command import Command
from loomwork.arch.isa import Unit, Window
from loomwork.arch.registers import BY_NAME, COUNTERS, CSR_BYTES, REGISTERS, Access, ErrorCode, Register
from loomwork.rtl.csr import writable_bits
from loomwork.sim.testbench.programs import TestProgram, copy_program
from tests.rtl.compact.machines import BUSY, DONE, ERROR, EVENTS, FOUR, RESET, START, Machine, Stop, machine

EVENT_DONE, EVENT_ERROR = BY_NAME["IRQ_STATUS"].mask("DONE"), BY_NAME["IRQ_STATUS"].mask("ERROR")
STORED = [register for register in REGISTERS if register.access is Access.READ_WRITE]
COUNTER_NAMES = [f"COUNT_{name.upper()}" for name, _ in COUNTERS]


@pytest.fixture
def core() -> Iterator[Machine]:
    core = machine(FOUR)
    core.reset()
    for register in STORED:
        core.write(register.name, 0)
    core.write("IRQ_STATUS", EVENTS)
    yield core
    core.reset()


@pytest.fixture
def program() -> TestProgram:
    return copy_program(FOUR, random.Random(5))


def endless(program: TestProgram) -> list[Command]:
    """The same program, whose STORE waits for a ticket that never comes."""
    load, store, end = program.commands
    return [load, replace(store, waits={Unit.DRAIN: 1}), end]


def hang(core: Machine, program: TestProgram) -> None:
    core.load(endless(program), program.windows)
    core.start()
    assert core.wait(20_000) == BUSY


def fail(core: Machine, program: TestProgram) -> None:
    assert core.run(program.commands[:2], program.windows) == Stop(ErrorCode.WINDOW, 64)


def reset_value(register: Register) -> int:
    by_configuration = {"CONFIG_HASH_LOW": FOUR.hash & 0xFFFF_FFFF, "CONFIG_HASH_HIGH": FOUR.hash >> 32}
    return by_configuration.get(register.name, register.reset)


# What they hold


def test_registers_have_the_values_of_the_table_after_power_on():
    link = Machine(FOUR, machine(FOUR).link.memory_bytes).link
    found = {register.name: link.read_register(register.offset) for register in REGISTERS}
    assert found == {register.name: reset_value(register) for register in REGISTERS}
    assert not link.irq


@pytest.mark.parametrize("value", [0xFFFF_FFFF, 0x5A69_C3A5, 0x8000_1001, 0])
def test_registers_for_reading_and_writing_keep_the_bits_that_they_have(core: Machine, value: int):
    for number, register in enumerate(STORED):
        core.write(register.name, value ^ 0x0101_1000 * number)
    found = {register.name: core.read(register.name) for register in STORED}
    assert found == {
        register.name: (value ^ 0x0101_1000 * number) & writable_bits(register, FOUR.address_bits)
        for number, register in enumerate(STORED)
    }


@pytest.mark.parametrize("register", [r for r in REGISTERS if r.access is Access.READ], ids=lambda r: r.name)
def test_registers_for_reading_ignore_what_is_written(core: Machine, register: Register):
    before = [core.read(other.name) for other in REGISTERS]
    for value in (0xFFFF_FFFF, 0):
        core.write(register.name, value)
        assert [core.read(other.name) for other in REGISTERS] == before


def test_addresses_without_a_register_read_as_zero_and_ignore_what_is_written(core: Machine):
    mapped = {register.offset for register in REGISTERS}
    holes = [offset for offset in range(0, CSR_BYTES, 4) if offset not in mapped]
    before = [core.read(register.name) for register in REGISTERS]
    for offset in holes:
        core.link.write_register(offset, 0xFFFF_FFFF)
    assert [core.link.read_register(offset) for offset in holes] == [0] * len(holes)
    assert [core.read(register.name) for register in REGISTERS] == before


def test_control_reads_as_zero(core: Machine, program: TestProgram):
    core.write("CONTROL", 0xFFFF_FFFC)  # bits without a name
    assert core.read("CONTROL") == 0
    assert core.read("STATUS") == 0
    core.load(program.commands, program.windows)
    core.start()
    assert core.read("CONTROL") == 0
    assert core.ended() == Stop(ErrorCode.NONE, 0)


# Events


def test_events_stay_until_their_own_bit_is_written_as_one(core: Machine, program: TestProgram):
    core.run(program.commands, program.windows)
    assert core.read("IRQ_STATUS") == EVENT_DONE
    fail(core, program)
    assert core.read("IRQ_STATUS") == EVENT_DONE | EVENT_ERROR
    core.write("IRQ_STATUS", 0)
    assert core.read("IRQ_STATUS") == EVENT_DONE | EVENT_ERROR
    core.write("IRQ_STATUS", ~EVENT_ERROR & 0xFFFF_FFFF)
    assert core.read("IRQ_STATUS") == EVENT_ERROR
    core.write("IRQ_STATUS", EVENT_ERROR)
    assert core.read("IRQ_STATUS") == 0


@pytest.mark.parametrize("enabled", range(4))
def test_the_interrupt_is_the_or_of_the_events_that_are_enabled(core: Machine, program: TestProgram, enabled: int):
    core.write("IRQ_ENABLE", enabled)
    assert not core.link.irq
    for event, run in ((EVENT_DONE, lambda: core.run(program.commands, program.windows)), (0, core.reset)):
        run()
        assert core.link.irq == bool(event & enabled)
    fail(core, program)
    assert core.link.irq == bool(EVENT_ERROR & enabled)
    core.write("IRQ_STATUS", EVENTS)
    core.link.step(1000)
    assert not core.link.irq


def test_the_interrupt_follows_its_enable(core: Machine, program: TestProgram):
    core.run(program.commands, program.windows)
    for enabled in (EVENT_DONE, EVENT_ERROR, EVENTS, 0):
        core.write("IRQ_ENABLE", enabled)
        core.link.step(1000)
        assert core.link.irq == bool(enabled & EVENT_DONE)


# Starting


def test_a_program_that_ends_is_done(core: Machine, program: TestProgram):
    assert core.run(program.commands, program.windows) == Stop(ErrorCode.NONE, 0)
    assert core.read("STATUS") == DONE
    assert core.content(Window.OUTPUTS) == program.inputs


def test_start_is_ignored_while_a_program_runs(core: Machine, program: TestProgram):
    hang(core, program)
    core.start()
    assert core.wait(20_000) == BUSY
    assert core.read("IRQ_STATUS") == 0
    assert core.content(Window.OUTPUTS) == bytes(program.output_bytes)
    # Once more from its beginning, the corrected program would end.
    core.load(program.commands, program.windows)
    core.start()
    assert core.wait(20_000) == BUSY


def test_start_is_ignored_after_an_error(core: Machine, program: TestProgram):
    fail(core, program)
    core.load(program.commands, program.windows)
    core.start()
    assert core.wait(20_000) == ERROR
    assert core.ended() == Stop(ErrorCode.WINDOW, 64)
    assert core.content(Window.OUTPUTS) == bytes(program.output_bytes)


def test_start_takes_done_away(core: Machine, program: TestProgram):
    core.run(program.commands, program.windows)
    hang(core, program)
    assert core.read("STATUS") == BUSY


# Soft reset


@pytest.mark.parametrize("before", ["idle", "done", "busy", "stopped"])
def test_a_soft_reset_clears_everything_but_what_the_host_has_set(core: Machine, program: TestProgram, before: str):
    match before:
        case "done":
            core.run(program.commands, program.windows)
        case "busy":
            core.run(program.commands, program.windows)
            hang(core, program)
        case "stopped":
            fail(core, program)
        case _:
            pass
    core.write("WATCHDOG", 123_456_789)
    core.write("IRQ_ENABLE", EVENTS)
    kept = {register.name: core.read(register.name) for register in STORED}
    core.write("CONTROL", RESET)
    core.link.step(10_000)
    cleared = ["STATUS", "IRQ_STATUS", "ERROR_CODE", "ERROR_COMMAND", *COUNTER_NAMES]
    assert {name: core.read(name) for name in cleared} == dict.fromkeys(cleared, 0)
    assert {register.name: core.read(register.name) for register in STORED} == kept
    assert not core.link.irq


@pytest.mark.parametrize("cycles", [1, 100, 500, 1500, 3000, 5000, 8000])
def test_after_a_soft_reset_at_any_moment_a_program_runs(core: Machine, program: TestProgram, cycles: int):
    core.load([*program.commands[:2], *program.commands[:2], *program.commands[:2], Command("END")], program.windows)
    core.start()
    core.link.step(cycles)
    core.reset()
    assert core.run(program.commands, program.windows) == Stop(ErrorCode.NONE, 0)
    assert core.content(Window.OUTPUTS) == program.inputs


def test_reset_wins_over_start(core: Machine, program: TestProgram):
    core.load(program.commands, program.windows)
    core.write("CONTROL", START | RESET)
    core.link.step(20_000)
    assert core.read("STATUS") == 0
    assert core.content(Window.OUTPUTS) == bytes(program.output_bytes)


def test_registers_are_written_while_a_program_waits(core: Machine, program: TestProgram):
    hang(core, program)
    core.write("IRQ_ENABLE", EVENT_ERROR)
    core.write("WATCHDOG", 1_000)
    assert core.ended(50_000) == Stop(ErrorCode.WATCHDOG, 32)
    assert core.link.irq


# Counters


def test_counters_begin_at_zero_with_each_start_and_count(core: Machine, program: TestProgram):
    counted = ("CYCLES", "LOAD_BUSY", "STORE_BUSY", "READ_BEATS", "WRITE_BEATS")
    found = []
    for _ in range(2):
        core.run(program.commands, program.windows)
        found.append({name: core.read(f"COUNT_{name}") for name in counted})
        core.link.step(5000)
        assert core.read("COUNT_CYCLES") == found[-1]["CYCLES"]
    for values in found:
        beats = len(program.inputs) // FOUR.bus_bytes
        assert values["WRITE_BEATS"] == beats
        assert values["READ_BEATS"] >= beats + 3 * 32 // FOUR.bus_bytes
        assert 0 < values["LOAD_BUSY"] < values["CYCLES"]
        assert 0 < values["STORE_BUSY"] < values["CYCLES"]
    assert abs(found[1]["CYCLES"] - found[0]["CYCLES"]) < 0.1 * found[0]["CYCLES"]


def test_counters_of_the_program_before_are_gone_while_the_next_one_runs(core: Machine, program: TestProgram):
    core.run(program.commands, program.windows)
    hang(core, program)
    assert core.read("COUNT_STORE_BUSY") == 0
    assert core.read("COUNT_WRITE_BEATS") == 0


# Watchdog


@pytest.mark.parametrize("limit", [40_000, 400_000])
def test_the_watchdog_ends_a_program_that_waits_for_ever(core: Machine, program: TestProgram, limit: int):
    core.write("WATCHDOG", limit)
    core.load(endless(program), program.windows)
    core.start()
    assert core.wait(limit - 2_000) == BUSY
    assert core.ended(30_000) == Stop(ErrorCode.WATCHDOG, 32)
    assert limit < core.read("COUNT_CYCLES") < limit + 25_000


def test_without_a_watchdog_a_program_waits_for_ever(core: Machine, program: TestProgram):
    core.write("WATCHDOG", 0)
    hang(core, program)
    assert core.wait(3_000_000) == BUSY


def test_the_watchdog_lets_a_program_run_that_takes_longer_than_its_limit(core: Machine, program: TestProgram):
    core.write("WATCHDOG", 30_000)
    pairs = program.commands[:2] * 40
    assert core.run([*pairs, Command("END")], program.windows) == Stop(ErrorCode.NONE, 0)
    assert core.read("COUNT_CYCLES") > 60_000
