# SPDX-License-Identifier: Apache-2.0
"""Tickets against an independent reading of the commands: vector clocks, and units that run at random speeds."""

from dataclasses import replace

import pytest

from loomwork.arch.command import Command, decode_program
from loomwork.arch.config import MID, SMALL, Config
from loomwork.arch.isa import Unit
from loomwork.compiler import synchronize
from loomwork.compiler.driver import compile_graph
from loomwork.compiler.synchronize import REFRESH, WINDOW
from tests.compiler.hazards import HazardError, check_hazards, conflicts, furthest_ahead, simulate, touches
from tests.compiler.random_graphs import GraphMaker, random_graph

CRAMPED = Config(
    name="cramped", rows=4, cols=4, scratchpad_kib=16, accumulator_depth=16, bus_bytes=4, requant_lanes=1, queue_depth=2
)


def commands_of(maker: GraphMaker, config: Config, *outputs: str) -> list[Command]:
    step, _ = compile_graph(maker.graph(*outputs), config)
    return decode_program(step.commands)


def chain(layers: int, height: int = 12) -> tuple[GraphMaker, str]:
    """Convolutions with residual additions, of which every other map is an output."""
    maker = GraphMaker(layers)
    name = maker.input(height, 6, 4)
    for index in range(layers):
        branch = maker.convolution(name, 4, pad=(1, 1))
        name = maker.add(branch, name) if index % 3 == 0 else branch
    return maker, name


@pytest.mark.parametrize("config", [SMALL, MID, CRAMPED], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(12))
def test_every_conflict_is_ordered(seed: int, config: Config) -> None:
    maker = random_graph(seed, layers=5, largest=8)
    commands = commands_of(maker, config, list(maker.maps)[-1], list(maker.maps)[-2])
    assert check_hazards(commands, config) > 0
    pairs = conflicts(commands, config)
    for run in range(3):
        spans = simulate(commands, config, seed=run)
        assert all(spans[earlier][1] <= spans[later][0] for earlier, later in pairs)


@pytest.mark.parametrize("config", [CRAMPED], ids=lambda config: config.name)
def test_long_programs_keep_tickets_within_their_window(config: Config) -> None:
    """With more commands than tickets, no counter runs 512 ahead of a ticket that is still to be looked at."""
    maker, name = chain(layers=60, height=48)
    commands = commands_of(maker, config, *list(maker.maps)[1:4], name)
    counts = {unit: sum(command.insn.unit is unit for command in commands) for unit in Unit}
    assert counts[Unit.DRAIN] > 1100
    assert counts[Unit.EXECUTE] > 1100
    check_hazards(commands, config)
    pairs = conflicts(commands, config)
    for run in range(6):
        spans = simulate(commands, config, seed=run)
        assert all(spans[earlier][1] <= spans[later][0] for earlier, later in pairs)


def test_no_counter_can_run_a_window_ahead_of_a_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output is stored early, and nothing overwrites it for long: its STOREs may lag far behind the DRAINs."""
    maker, name = chain(layers=60, height=48)
    early = list(maker.maps)[1]
    outputs = early, maker.add(name, early)
    assert furthest_ahead(commands_of(maker, CRAMPED, *outputs)) < WINDOW
    # Without refreshed waits it could: the bound is not there by itself.
    monkeypatch.setattr(synchronize, "REFRESH", 1 << 20)
    assert furthest_ahead(commands_of(maker, CRAMPED, *outputs)) >= WINDOW


def test_tickets_are_fresh() -> None:
    maker, name = chain(layers=60, height=48)
    counts = dict.fromkeys(Unit, 0)
    for command in commands_of(maker, CRAMPED, name):
        for unit, ticket in command.waits.items():
            assert 0 <= (counts[unit] - ticket) % 1024 <= REFRESH
        counts[command.insn.unit] += 1


@pytest.mark.parametrize("seed", range(12))
def test_regions_hold_everything_that_a_command_touches(seed: int) -> None:
    maker = random_graph(seed, layers=5, largest=8, products=seed % 2 == 1)
    maker.convolution(maker.input(4, 20, 16), 16, kernel=(1, 3), depthwise=True)
    step, compiled = compile_graph(maker.graph(*list(maker.maps)[-3:-2], list(maker.maps)[-1]), CRAMPED)
    for task, touch in zip(compiled.tasks, touches(decode_program(step.commands), CRAMPED), strict=True):
        for regions, words in ((task.reads, touch.reads), (task.writes, touch.writes)):
            declared = {int(word) for region in regions for word in region.addresses(CRAMPED.bank_words)}
            assert {bank * CRAMPED.bank_words + word for bank, word in words} <= declared


def test_rows_are_waited_for_one_by_one() -> None:
    """The second layer's first tile needs the first layer's first tiles only."""
    maker = GraphMaker(1)
    first = maker.convolution(maker.input(32, 16, 4), 4, pad=(1, 1))
    commands = commands_of(maker, CRAMPED, maker.convolution(first, 4, pad=(1, 1)))
    convolutions = [command for command in commands if command.mnemonic == "CONVOLVE"]
    assert len(convolutions) == 64
    drains_before = 1
    # One row per tile; REQUANT is the first DRAIN-unit command. The tile of row 0 reads rows 0 and 1.
    assert convolutions[32].waits[Unit.DRAIN] == drains_before + 2
    assert convolutions[33].waits[Unit.DRAIN] == drains_before + 3


def test_implied_waits_are_left_out() -> None:
    maker = GraphMaker(2)
    commands = commands_of(maker, SMALL, maker.convolution(maker.input(20, 8, 4), 4, kernel=(1, 1)))
    loads = [command.waits.get(Unit.LOAD) for command in commands if command.mnemonic == "CONVOLVE"]
    assert loads == list(range(1, len(loads) + 1))
    assert len(loads) > 1
    assert all(Unit.LOAD not in command.waits for command in commands if command.mnemonic == "DRAIN")


def test_every_wait_is_needed_and_missed_when_it_is_not_there() -> None:
    maker, name = chain(layers=4)
    commands = commands_of(maker, CRAMPED, name)
    found = 0
    for position, command in enumerate(commands):
        for unit in command.waits:
            waits = {other: ticket for other, ticket in command.waits.items() if other is not unit}
            broken = [*commands[:position], replace(command, waits=waits), *commands[position + 1 :]]
            with pytest.raises(HazardError, match="does not wait for"):
                check_hazards(broken, CRAMPED)
            found += 1
    assert found > 20


def test_the_simulation_notices_a_ticket_that_never_comes() -> None:
    commands = [Command("END", {}, {Unit.LOAD: 1})]
    with pytest.raises(HazardError, match="nothing can go on"):
        simulate(commands, SMALL, seed=0)
