# SPDX-License-Identifier: Apache-2.0
"""The results of `loomwork build` as tables."""

from rich.table import Table

from loomwork.fpga.boards.board import Resources
from loomwork.fpga.build import Build
from loomwork.fpga.unit_paths import NEAR

PATHS_SHOWN = 10
"""Pairs of units in the table of slowest paths; report.json has all."""


def tables(result: Build) -> list[Table]:
    """Fmax over the seeds, the slowest paths between units, and the cells of each unit."""
    return [_speed(result), _paths(result), _cells(result)]


def _speed(result: Build) -> Table:
    seeds = result.seeds
    table = Table(title=f"{result.board.title}: Fmax of {len(seeds.routed)} seeds")
    for name in ("median", "best", "worst", "clock"):
        table.add_column(f"{name} MHz", justify="right")
    table.add_row(f"{seeds.median:.1f}", f"{seeds.best.fmax:.1f}", f"{seeds.worst:.1f}", f"{result.clock_mhz:g}")
    return table


def _paths(result: Build) -> Table:
    table = Table(title=f"Slowest paths between units, of {len(result.seeds.best.unit_paths)} (best seed)")
    table.add_column("from")
    table.add_column("to")
    for name in ("ns", f"ends within {1 - NEAR:.0%} of the slowest"):
        table.add_column(name, justify="right")
    for path in result.seeds.best.unit_paths[:PATHS_SHOWN]:
        table.add_row(path.from_unit, path.to_unit, f"{path.delay:.2f}", f"{path.ends:,}")
    return table


def _cells(result: Build) -> Table:
    config = result.config
    title = f"{config.name} ({config.rows} x {config.cols}), {result.memory_kib} KiB of memory"
    table = Table(title=title)
    table.add_column("unit")
    for name in ("LUTs", "FF", "DSP", "block RAM"):
        table.add_column(name, justify="right")
    for name, unit in result.netlist.units.items():
        table.add_row(name, *_counts(unit))
    table.add_section()
    total, capacity = result.netlist.total, result.board.capacity
    table.add_row("sum", *_counts(total))
    pairs = zip(_values(total), _values(capacity), strict=True)
    table.add_row(f"of the {result.board.device}", *(f"{100 * used / have:.0f}%" for used, have in pairs))
    return table


def _values(resources: Resources) -> tuple[int, ...]:
    return resources.luts, resources.registers, resources.multipliers, resources.blocks


def _counts(resources: Resources) -> list[str]:
    return [f"{value:,}" for value in _values(resources)]
