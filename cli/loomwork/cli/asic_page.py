# SPDX-License-Identifier: Apache-2.0
"""The results of `loomwork asic` as a table, as JSON, and as a page of the documentation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from loomwork.arch.config import Config
from loomwork.cli.markdown import grid
from loomwork.fpga.asic import ABC_GATES, DELAY_SHARE, MACRO_WORDS, Area, Chip, groups, macs_per_second, total
from loomwork.fpga.buffers import FANOUT
from loomwork.fpga.hierarchy import WIRING
from loomwork.fpga.liberty import CORNERS, Library
from loomwork.fpga.macros import ACCESS_SHARE
from loomwork.fpga.timing import HOW_TO_GET, SlowestPath

_PAGE = """\
# Area on a chip

What each unit costs on a chip and how fast it is, before layout, with `{cells}`, for {frequency:g} MHz, by
{tools}. Made by

```
loomwork asic {options}--liberty DIR --markdown docs/asic.md
```

- Each unit is synthesized **by itself**: nothing is simplified across the borders of units. **wiring** is what `Core`
  and `Execute` have between them. Together they are the netlist of the core.
- **cells**: all standard cells, **FF**: the flip-flops of these. **macros**: SRAM macros; one that is used in part
  counts in full.
- **MHz** is the frequency that the slowest path allows, by OpenSTA, with setup times. Of a **unit**: of the paths
  within it, from register or macro to register or macro; of several units in a line, of the slowest. Of the **sum**: of
  the whole core, with all paths that cross the borders of units; outside its ports registers are assumed.
- Before layout: wires have no capacitance and no delay, the clock comes at once everywhere, no margin is taken. Laid
  out, the same is slower and larger.
- **GMAC/s per mm2**: PEs times the frequency of the core, by the sum of the areas. One MAC is one multiply-accumulate
  of 8 bits.

Logic:

- `abc` restructures it for depth, maps it, and sizes gates for {logic:.0%} of the period: one module of {gates:,}
  gates or more after the other, since it optimizes for the deepest path of what it is given. Only then a unit becomes
  one module. What drives more than {fanout} cells gets a tree of buffers.
- Initial values are dropped, as flip-flops and macros of a chip have none: reset sets them.

Memories:

- One of {words} words or more becomes a grid of equal macros, a smaller one flip-flops. Only macros that give their
  data within {share:.0%} of the period are taken (deep ones are slower), of these the grid of least area. Small
  memories gain nothing: a macro of 64 words of 32 bits takes as much as 1,074 of the smallest flip-flops.
- All memories of the design read one word while they write another, so that they take macros of two ports. One that
  provably never does both at once would take macros of one port, of half the area.
- A macro promises nothing for a word that one port reads while the other writes it ("there is no conflict handling
  included", says the datasheet); the RTL then reads what was there before. So each write is kept for a cycle in
  registers, from which a read of that word gets it: two flip-flops for each bit of width. The netlist does what the RTL
  does, whatever the addresses.
- Write enables become the bit masks of the macros, the ports for their self-test are tied off.
"""

_MHZ = "MHz, {corner}"


@dataclass(frozen=True)
class Result:
    """Of one configuration. argument: what it was called by, a preset or a file."""

    config: Config
    chip: Chip
    argument: str


@dataclass(frozen=True)
class Run:
    """What all results have in common. yosys: its version. sta: OpenSTA's, None where it is missing. library: None for
    gate equivalents. frequency: MHz.
    """

    yosys: str
    sta: str | None
    library: Library | None
    frequency: float


def _areas(result: Result) -> dict[str, Area]:
    """The area of each line, and of all as `sum`."""
    areas = {line: total([result.chip.areas[name] for name in names]) for line, names in groups().items()}
    return {**areas, "sum": total(list(areas.values()))}


def _frequencies(paths: Mapping[str, SlowestPath | None]) -> dict[str, str]:
    """MHz of each line, of the sum that of the core; nothing where no register drives another."""
    lines = {line: names for line, names in groups().items() if names != [WIRING]}
    found = {line: [path for name in names if (path := paths[name])] for line, names in lines.items()}
    slowest = {line: max(of_line, key=lambda path: path.delay) for line, of_line in found.items() if of_line}
    if (core := paths[WIRING]) is not None:
        slowest["sum"] = core
    return {line: f"{path.frequency:.0f}" for line, path in slowest.items()}


def _headings(result: Result, run: Run) -> list[str]:
    if run.library is None:
        return ["unit", "gates", "of these FF", "bits in memories"]
    frequencies = [_MHZ.format(corner=corner) for corner in result.chip.paths]
    return ["unit", "cells, mm2", "of these FF", "macros, mm2", "sum, mm2", *frequencies, "macros"]


def _lines(result: Result, run: Run) -> list[list[str]]:
    """The cells of each line of the table."""
    frequencies = [_frequencies(paths) for paths in result.chip.paths.values()]
    lines: list[list[str]] = []
    for name, area in _areas(result).items():
        if run.library is None:
            lines.append([name, f"{area.logic:,.0f}", f"{area.registers:,.0f}", f"{area.bits:,}"])
        else:
            figures = [_mm2(area.logic), _mm2(area.registers), _mm2(area.macro_area), _mm2(area.whole)]
            macros = ", ".join(f"{count} {macro}" for macro, count in area.macros)
            lines.append([name, *figures, *(one.get(name, "") for one in frequencies), macros])
    return lines


def _mm2(square_micrometres: float) -> str:
    return f"{square_micrometres / 1e6:.3f}"


def table(result: Result, run: Run) -> Table:
    """One configuration for the terminal."""
    config = result.config
    made = Table(title=f"{config.name} ({config.rows} x {config.cols})", title_justify="left")
    for heading in _headings(result, run):
        made.add_column(heading, justify="left" if heading in ("unit", "macros") else "right")
    for line in _lines(result, run):
        made.add_row(*line)
    return made


def summary(result: Result) -> list[str]:
    """For each corner a sentence of the core's frequency, what limits it, and GMAC/s per mm2."""
    area = _areas(result)["sum"].whole / 1e6
    sentences: list[str] = []
    for corner, paths in result.chip.paths.items():
        path = paths[WIRING]
        if path is not None:
            speed = macs_per_second(result.config, path)
            sentences.append(
                f"{corner}: {path.frequency:.0f} MHz, {speed:.1f} GMAC/s, {speed / area:.2f} GMAC/s per mm2; "
                f"slowest path {path.delay:.2f} ns, from {path.start} to {path.end}"
            )
    return sentences


def to_json(results: Sequence[Result], run: Run) -> dict[str, Any]:
    """Area (um2 or gate equivalents) and slowest paths (ns) of every unit, for other programs."""
    return {
        "yosys": run.yosys,
        "opensta": run.sta,
        "library": run.library.cells.name if run.library else None,
        "unit": "um2" if run.library else "gate equivalents",
        "mhz": run.frequency,
        "results": [
            {
                "config": result.config.name,
                "units": {
                    name: {**asdict(area), "macros": dict(area.macros)} for name, area in result.chip.areas.items()
                },
                "paths": {
                    corner: {name: asdict(path) if path else None for name, path in paths.items()}
                    for corner, paths in result.chip.paths.items()
                },
            }
            for result in results
        ],
    }


def markdown(results: Sequence[Result], run: Run) -> str:
    """The results as a page of the documentation; with a library."""
    options = "".join(f"--config {result.argument} " for result in results)
    page = _PAGE.format(
        cells=run.library.cells.name if run.library else "",
        tools=f"Yosys {run.yosys}" + (f" and OpenSTA {run.sta}" if run.sta else ""),
        frequency=run.frequency,
        options=options,
        words=MACRO_WORDS,
        fanout=FANOUT,
        gates=ABC_GATES,
        logic=DELAY_SHARE,
        share=ACCESS_SHARE,
    )
    for result in results:
        config = result.config
        lines = [line[:-1] for line in _lines(result, run)]
        page += f"\n## {config.name} ({config.rows} x {config.cols})\n\n{grid(_headings(result, run)[:-1], lines)}"
        macros = ", ".join(f"{count} `{name}`" for name, count in _areas(result)["sum"].macros)
        page += f"\nMacros: {macros}.\n" if macros else ""
        if not result.chip.paths:
            page += f"\nNo timing: {HOW_TO_GET}.\n"
        sentences = "".join(f"- {sentence}\n" for sentence in summary(result))
        page += f"\n{sentences}{_slowest(result)}" if sentences else ""
    return page


def _slowest(result: Result) -> str:
    """A table of the slowest path within each unit, at the first corner."""
    lines = [
        [name, f"`{path.start}`", f"`{path.end}`", f"{path.delay:.2f}"]
        for name, path in result.chip.paths.get(next(iter(CORNERS)), {}).items()
        if path is not None and name != WIRING
    ]
    return (
        f"\nThe slowest path within each unit:\n\n{grid(['unit', 'from', 'to', 'ns'], lines, names=3)}" if lines else ""
    )
