# SPDX-License-Identifier: Apache-2.0
"""The results of `loomwork build` as tables."""

from rich.table import Table

from loomwork.fpga.boards.board import Resources
from loomwork.fpga.build import Build


def tables(result: Build) -> list[Table]:
    """Fmax over the seeds, and the cells of each unit."""
    return [_speed(result), _cells(result)]


def _speed(result: Build) -> Table:
    seeds = result.seeds
    table = Table(title=f"{result.board.title}: Fmax of {len(seeds.routed)} seeds")
    for name in ("median", "best", "worst", "clock"):
        table.add_column(f"{name} MHz", justify="right")
    table.add_row(f"{seeds.median:.1f}", f"{seeds.best.fmax:.1f}", f"{seeds.worst:.1f}", f"{result.clock_mhz:g}")
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
