# SPDX-License-Identifier: Apache-2.0
"""Drives units in the Amaranth simulator: commands, reports, waits with a bound, constructors that refuse."""

import gc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from amaranth.hdl import Cat, UnusedElaboratable, Value
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch.command import Command, encode


@dataclass
class UnitLog:
    """What a unit reported, by cycle: commands taken and done, errors, first and last cycle of `busy`."""

    taken: list[int] = field(default_factory=list[int])
    done: list[int] = field(default_factory=list[int])
    errors: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    busy: list[int] = field(default_factory=list[int])


async def watch_unit(ctx: SimulatorContext, unit: Any, log: UnitLog) -> None:
    """Background testbench: fills the log."""
    cycle = 0
    while True:
        _, _, taken, ready, done, busy, error = await ctx.tick().sample(
            unit.command.valid, unit.command.ready, unit.done, unit.busy, unit.error
        )
        if taken and ready:
            log.taken.append(cycle)
        if done:
            log.done.append(cycle)
            assert busy, "a unit is busy until it says done"
            assert len(log.done) <= len(log.taken)
        if error:
            log.errors.append((cycle, error))
        if busy:
            log.busy.append(cycle)
        cycle += 1


async def send_commands(ctx: SimulatorContext, unit: Any, commands: Sequence[Command], cycles: int = 5000) -> None:
    """Hand over commands, each as soon as the unit takes it; fails when it does not take one within `cycles` cycles."""
    for command in commands:
        ctx.set(unit.command.payload, int.from_bytes(encode(command), "little"))
        ctx.set(unit.command.valid, 1)
        for _ in range(cycles):
            *_, is_taken = await ctx.tick().sample(unit.command.ready)
            if is_taken:
                break
        else:
            raise AssertionError(f"{command} is not taken for {cycles} cycles")
        ctx.set(unit.command.valid, 0)


def assert_refused(make: Callable[[], Any], match: str) -> None:
    """Expect a constructor to raise ValueError; what it leaves behind is collected while Amaranth may not complain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        with pytest.raises(ValueError, match=match):
            make()
        gc.collect()


async def wait_for(ctx: SimulatorContext, condition: Callable[[], bool], cycles: int) -> None:
    """Tick until `condition()` holds; fails after `cycles` cycles."""
    for _ in range(cycles):
        if condition():
            return
        await ctx.tick()
    raise AssertionError(f"nothing happened for {cycles} cycles")


def set_together(ctx: SimulatorContext, values: Sequence[tuple[Any, int]]) -> None:
    """Set many signals at once: the simulator evaluates the design after each `set`."""
    targets = [Value.cast(target) for target, _ in values]
    word = position = 0
    for target, (_, value) in zip(targets, values, strict=True):
        word |= (int(value) & (1 << len(target)) - 1) << position
        position += len(target)
    ctx.set(Cat(*targets), word)


def simulate(dut: Any, main: Any, *background: Any, beside: Any = None) -> None:
    """Run testbench `main` (and `beside`) to the end, and background ones as long."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in background:
        simulator.add_testbench(process, background=True)
    if beside is not None:
        simulator.add_testbench(beside)
    simulator.add_testbench(main)
    simulator.run()
