# SPDX-License-Identifier: Apache-2.0
"""Registers without a lookup table of their own: in a netlist by hand, and in one of the board they are counted for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loomwork.fpga import synthesis
from loomwork.fpga.boards.board import Board
from loomwork.fpga.boards.catalog import ICEBREAKER, TANG_NANO_20K, ULX3S_85F
from loomwork.fpga.boards.families import ECP5
from loomwork.fpga.boards.lone_registers import lone_registers
from loomwork.fpga.capacity import estimate
from loomwork.fpga.synthesis import LONE, REST, UNITS


def cell(kind: str, output: str, **connections: Any) -> dict[str, Any]:
    directions = {port: "output" if port == output else "input" for port in connections}
    return {"type": kind, "port_directions": directions, "connections": {p: [bit] for p, bit in connections.items()}}


def netlist(*cells: dict[str, Any], ports: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "ports": {"o": {"direction": "output", "bits": list(ports)}},
        "cells": {f"cell_{number}": each for number, each in enumerate(cells)},
    }


TABLE = cell("LUT2", "F", F=5, I0=2, I1=3)
BEHIND = cell("DFFRE", "Q", Q=6, D=5, CLK=1)


@pytest.mark.parametrize(
    ("module", "lone"),
    [
        (netlist(TABLE, BEHIND), 0),
        (netlist(TABLE, BEHIND, cell("LUT1", "F", F=7, I0=5)), 1),  # the table drives another one, too
        (netlist(TABLE, BEHIND, ports=(5,)), 1),  # or a port
        (netlist(TABLE, BEHIND, cell("DFF", "Q", Q=7, D=6, CLK=1)), 1),  # behind a register
        (netlist(cell("ALU", "SUM", SUM=5, I0=2, I1=3), BEHIND), 1),
        (netlist(cell("DFFS", "Q", Q=6, D="0", CLK=1)), 1),
        (netlist(TABLE), 0),
    ],
)
def test_registers_that_no_lookup_table_drives_alone_are_counted(module: dict[str, Any], lone: int):
    assert lone_registers(module) == lone


def test_lone_registers_are_a_line_of_their_own_where_they_cost_a_lookup_table(tmp_path: Path):
    modules = {f"\\top.system.{path}": {"num_cells_by_type": {"LUT2": 1}} for path in UNITS.values()}
    top = {"num_cells_by_type": {"LUT2": 1, "DFF": 1}}
    (tmp_path / "units.json").write_text(json.dumps({"modules": {**modules, "\\top": top}}))
    flat = netlist(cell("DFF", "Q", Q=6, D=2, CLK=1))
    (tmp_path / synthesis.NETLIST).write_text(json.dumps({"modules": {"top": flat}}))
    units = synthesis._units(TANG_NANO_20K, tmp_path)
    assert (units[LONE].luts, units[LONE].registers) == (1, 0)
    assert LONE not in synthesis._units(ULX3S_85F, tmp_path)


def test_units_of_a_compact_core_are_counted_by_the_names_of_their_cells(tmp_path: Path):
    cells = {
        "system.core.engine.walker.x_SB_DFF_Q": cell("SB_DFF", "Q", Q=6, D=2, CLK=1),
        "system.core.engine.walker.x_SB_DFF_Q_D_SB_LUT4_O": cell("SB_LUT4", "O", O=2, I0=3, I1=4),
        "system.core.processor.cpu.reg_pc": cell("SB_DFFE", "Q", Q=8, D=9, CLK=1),
        "system.bridge.word": cell("SB_DFF", "Q", Q=10, D=11, CLK=1),
    }
    flat = {"ports": {}, "cells": cells}
    (tmp_path / synthesis.NETLIST).write_text(json.dumps({"modules": {"top": flat}}))
    units = synthesis._units(ICEBREAKER, tmp_path)
    assert (units["walker"].luts, units["walker"].registers) == (1, 1)
    assert (units["processor"].registers, units[REST].registers) == (1, 1)
    assert units[LONE].luts == 2  # all but the one behind the table


@pytest.mark.parametrize(("board", "share"), [(TANG_NANO_20K, 0.5), (ICEBREAKER, 0.4)])
def test_the_estimate_holds_a_share_of_them(board: Board, share: float):
    without = replace(board, family=replace(board.family, lone_registers=0))
    all_of_it = (board.config, board.memory_kib)
    few, many = estimate(without, *all_of_it), estimate(board, *all_of_it)
    assert many.luts - few.luts == int(share * many.registers)
    assert ECP5.lone_registers == 0
