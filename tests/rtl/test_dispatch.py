# SPDX-License-Identifier: Apache-2.0
"""Dispatch: order, tickets and queues, with behavioural units of random speed."""

import random
from collections import deque
from dataclasses import replace

import pytest
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.command import Command, encode
from loomwork.arch.config import TINY
from loomwork.arch.isa import BY_MNEMONIC, Unit
from loomwork.rtl.dispatch import COMMANDS_IN_UNIT, ENGINES, Dispatch

SAMPLE = {
    Unit.LOAD: "LOAD",
    Unit.EXECUTE: "CONVOLVE",
    Unit.DRAIN: "REQUANT",
    Unit.STORE: "STORE",
    Unit.STREAM: "STREAM",
}
"""One command of each unit."""


def raw(unit: Unit, waits: dict[Unit, int] | None = None, tag: int = 0) -> int:
    """A command of `unit`. tag: put into one of its operands, to tell it from others."""
    insn = BY_MNEMONIC[SAMPLE[unit]]
    operands = {item.name: max(item.low, 0) for item in insn.operands}
    wide = next(item for item in insn.operands if item.bits >= 12)
    operands[wide.name] = tag
    return int.from_bytes(encode(Command(insn.mnemonic, operands, waits or {})), "little")


END = int.from_bytes(encode(Command("END")), "little")


async def within(ctx: SimulatorContext, cycles: int, condition) -> None:
    """Wait until the end of a cycle in which `condition` holds, for so many cycles at most."""
    for _ in range(cycles):
        _, _, holds = await ctx.tick().sample(condition)
        if holds:
            return
    raise AssertionError(f"nothing happened for {cycles} cycles")


class Program:
    """A random program that cannot deadlock: a command waits only for commands before it."""

    def __init__(self, rng: random.Random, length: int) -> None:
        self.commands: list[tuple[Unit, int]] = []
        self.needs: list[dict[Unit, int]] = []
        issued = dict.fromkeys(Unit, 0)
        for tag in range(length):
            unit = rng.choice(ENGINES)
            needs = {
                other: rng.randint(max(0, issued[other] - 3), issued[other])
                for other in (Unit.LOAD, Unit.EXECUTE, Unit.DRAIN, Unit.STORE)
                if other is not unit and rng.random() < 0.4
            }
            self.needs.append(needs)
            self.commands.append((unit, raw(unit, needs, tag)))
            issued[unit] += 1


class UnitModel:
    """A unit of random speed: checks that it gets its own commands, in order and not too early.

    finished: commands finished by each unit, shared by all models. capacity: commands it takes before it finishes one.
    """

    def __init__(self, dut: Dispatch, unit: Unit, program: Program, finished: dict[Unit, int], capacity: int) -> None:
        self.name = unit.name.lower()
        self.port = getattr(dut, self.name)
        self.index = getattr(dut, f"{self.name}_index")
        self.unit, self.program, self.finished, self.capacity = unit, program, finished, capacity
        self.expected = deque(number for number, (owner, _) in enumerate(program.commands) if owner is unit)
        self.running: deque[int] = deque()
        self.rng = random.Random(self.name)

    async def run(self, ctx: SimulatorContext) -> None:
        countdown = 0
        while True:
            ctx.set(self.port.command.ready, len(self.running) < self.capacity and self.rng.random() < 0.7)
            done = bool(self.running) and countdown == 0
            ctx.set(self.port.done, done)
            ctx.set(self.port.busy, bool(self.running))
            if self.running:
                assert ctx.get(self.index) == self.running[0], "the failing command, were there an error now"
            _, _, valid, ready, command = await ctx.tick().sample(
                self.port.command.valid, self.port.command.ready, self.port.command.payload
            )
            if valid:
                self.check_offer(command)
            if done:
                self.running.popleft()
                self.finished[self.unit] += 1
            if valid and ready:
                self.running.append(self.expected.popleft())
            restart = done or (valid and ready and len(self.running) == 1)
            countdown = self.rng.choice([0, 1, 3, 10, 30]) if restart else max(0, countdown - 1)

    def check_offer(self, command: int) -> None:
        number = self.expected[0]
        assert command == self.program.commands[number][1]
        for other, ticket in self.program.needs[number].items():
            assert self.finished[other] >= ticket, f"command {number} came too early"


@pytest.mark.parametrize(("seed", "depth", "capacity"), [(1, 2, 1), (2, 4, 3), (3, 4, 1)])
def test_random_program(seed: int, depth: int, capacity: int):
    """Every command reaches its unit, in order, not before its tickets; the end comes when all is finished."""
    rng = random.Random(seed)
    program = Program(rng, 300)
    dut = Dispatch(replace(TINY, queue_depth=depth))
    finished = dict.fromkeys(Unit, 0)
    models = [UnitModel(dut, unit, program, finished, capacity) for unit in ENGINES]

    async def feed(ctx: SimulatorContext):
        for number, (unit, word) in enumerate([*program.commands, (Unit.CONTROL, END)]):
            while rng.random() < 0.2:
                await ctx.tick()
            ctx.set(dut.i.payload, {"command": word, "index": number, "unit": unit})
            ctx.set(dut.i.valid, 1)
            if unit is not Unit.CONTROL:
                await within(ctx, 2000, dut.i.ready)
                ctx.set(dut.i.valid, 0)
        await within(ctx, 2000, dut.ended)
        await ctx.tick()
        assert ctx.get(dut.ended), "stays until reset"

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for model in models:
        simulator.add_testbench(model.run, background=True)
    simulator.add_testbench(feed)
    simulator.run()
    assert not any(model.expected or model.running for model in models)
    assert sum(finished.values()) == len(program.commands)


def directed(testbench, queue_depth: int = 2) -> None:
    dut = Dispatch(replace(TINY, queue_depth=queue_depth))
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def run(ctx: SimulatorContext):
        await testbench(ctx, dut)

    simulator.add_testbench(run)
    simulator.run()


async def put(ctx: SimulatorContext, dut: Dispatch, unit: Unit, index: int, waits: dict[Unit, int] | None = None):
    ctx.set(dut.i.payload, {"command": raw(unit, waits), "index": index, "unit": unit})
    ctx.set(dut.i.valid, 1)
    await ctx.tick().until(dut.i.ready)
    ctx.set(dut.i.valid, 0)


async def finish(ctx: SimulatorContext, dut: Dispatch, unit: Unit, times: int):
    """Have `unit` finish commands it never had: all that counts here is the ticket counter."""
    port = getattr(dut, unit.name.lower())
    ctx.set(port.done, 1)
    await ctx.tick().repeat(times)
    ctx.set(port.done, 0)


def test_tickets_wrap_around():
    """A ticket is there when it is at most 511 behind, modulo 1024."""

    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        await put(ctx, dut, Unit.STORE, 0, {Unit.DRAIN: 1030 % 1024})
        await ctx.tick().repeat(3)
        assert ctx.get(dut.store.command.valid) == 0, "0 is 6 short of 6"
        offered: list[int] = []
        for count in range(1, 1100):
            await finish(ctx, dut, Unit.DRAIN, 1)
            if ctx.get(dut.store.command.valid):
                offered.append(count)
        # (finished - 6) mod 1024 < 512
        assert offered == [*range(6, 6 + 512), *range(1030, 1100)]

    directed(testbench)


def test_waits_of_one_unit_do_not_hold_up_another():
    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        await put(ctx, dut, Unit.DRAIN, 0, {Unit.EXECUTE: 1})
        await put(ctx, dut, Unit.STORE, 1, {Unit.DRAIN: 1})
        await put(ctx, dut, Unit.LOAD, 2)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.load.command.valid)
        assert not ctx.get(dut.drain.command.valid)
        assert not ctx.get(dut.store.command.valid)
        assert ctx.get(dut.drain_waiting)
        assert ctx.get(dut.store_waiting)
        assert not ctx.get(dut.load_waiting)
        await finish(ctx, dut, Unit.EXECUTE, 1)
        assert ctx.get(dut.drain.command.valid)
        assert not ctx.get(dut.drain_waiting)
        assert not ctx.get(dut.store.command.valid)

    directed(testbench)


def test_a_full_queue_is_counted_and_holds_up_what_follows():
    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        for index in range(2):
            await put(ctx, dut, Unit.LOAD, index)
        await ctx.tick().repeat(3)
        ctx.set(dut.i.payload, {"command": raw(Unit.LOAD), "index": 2, "unit": Unit.LOAD})
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.i.ready)
        assert ctx.get(dut.wait_queue)
        ctx.set(dut.i.payload, {"command": raw(Unit.STORE), "index": 2, "unit": Unit.STORE})
        assert ctx.get(dut.i.ready)
        assert not ctx.get(dut.wait_queue)

    directed(testbench)


def test_halt_hands_out_nothing():
    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        await put(ctx, dut, Unit.LOAD, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.load.command.valid)
        ctx.set(dut.halt, 1)
        assert not ctx.get(dut.load.command.valid)

    directed(testbench)


def test_stuck_index_is_the_oldest_unfinished_command():
    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        await put(ctx, dut, Unit.STORE, 5, {Unit.DRAIN: 1})
        await put(ctx, dut, Unit.DRAIN, 6)
        await put(ctx, dut, Unit.LOAD, 7)
        ctx.set(dut.load.command.ready, 1)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.stuck_index) == 5
        ctx.set(dut.drain.command.ready, 1)
        await ctx.tick()
        ctx.set(dut.drain.command.ready, 0)
        await finish(ctx, dut, Unit.DRAIN, 1)
        ctx.set(dut.store.command.ready, 1)
        await ctx.tick().repeat(2)
        await finish(ctx, dut, Unit.STORE, 1)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.stuck_index) == 7

    directed(testbench)


def test_a_unit_is_not_offered_more_than_can_be_kept_track_of():
    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        ctx.set(dut.load.command.ready, 1)
        for index in range(COMMANDS_IN_UNIT + 1):
            await put(ctx, dut, Unit.LOAD, index)
        await ctx.tick().repeat(5)
        assert not ctx.get(dut.load.command.valid)
        assert ctx.get(dut.load_index) == 0
        await finish(ctx, dut, Unit.LOAD, 1)
        assert ctx.get(dut.load.command.valid)
        assert ctx.get(dut.load_index) == 1

    directed(testbench)


def test_of_an_idle_unit_the_command_that_was_finished_last_is_known():
    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        ctx.set(dut.load.command.ready, 1)
        for index in range(40):
            await put(ctx, dut, Unit.LOAD, index)
            await ctx.tick().repeat(4)
            assert ctx.get(dut.load_index) == index
            await finish(ctx, dut, Unit.LOAD, 1)
            await ctx.tick()
            assert ctx.get(dut.load_index) == index

    directed(testbench)


def test_every_unfinished_command_is_remembered_in_a_full_lane():
    """The unit has taken all that it may, the queue behind it is full, and all this goes round several times."""
    depth = 4
    held = COMMANDS_IN_UNIT + depth

    async def testbench(ctx: SimulatorContext, dut: Dispatch):
        ctx.set(dut.load.command.ready, 1)
        for index in range(held):
            await put(ctx, dut, Unit.LOAD, index)
        for oldest in range(3 * held):
            await ctx.tick().repeat(3)
            assert ctx.get(dut.load_index) == oldest
            assert not ctx.get(dut.i.ready)
            await finish(ctx, dut, Unit.LOAD, 1)
            await put(ctx, dut, Unit.LOAD, oldest + held)

    directed(testbench, queue_depth=depth)
