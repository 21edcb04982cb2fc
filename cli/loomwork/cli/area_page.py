# SPDX-License-Identifier: Apache-2.0
"""The results of `loomwork area` as a table, as JSON, and as a page of the documentation."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from loomwork.cli.markdown import grid
from loomwork.cli.output import UsageError
from loomwork.fpga.area import Cells, by_group, total

_PAGE = """\
# Area

What each unit costs on a Lattice ECP5, by `synth_ecp5` of Yosys {version}, before placement. Made by

```
loomwork area {options}--markdown docs/area.md
```

- Each unit is synthesized **by itself**: nothing is simplified across the borders of units, and the wiring between
  them is left out. The whole core is a few per cent smaller or larger than the sum.
- **LUTs**: the LUT4 that are occupied, by logic, by carry cells (CCU2C, two each) and by distributed RAM
  (TRELLIS_DPR16X4, six each), as nextpnr-ecp5 counts them. **FF**: TRELLIS_FF. **DSP**: MULT18X18D. **block RAM**:
  DP16KD, 18 kbit each.
- **feed**: walk, window, alignment and queue. **dma**: load, stream, store, fetch, bus masters. **control**:
  pass sequencer, weight loader, decoder, dispatch, registers, start and stop, counters.
- The last line is the share of an {device}, the largest ECP5. Above 100 % a configuration does not fit.
"""

_DEVICE = "LFE5U-85F"
_SIZES = {"luts": 83_640, "ff": 83_640, "dsp": 156, "bram": 208}
"""Of the device (ECP5 and ECP5-5G Family Data Sheet, table of the family)."""

_Figure = Callable[[Cells], int]
_FIGURES: dict[str, _Figure] = {
    "LUTs": lambda cells: cells.luts,
    "FF": lambda cells: cells.ff,
    "DSP": lambda cells: cells.dsp,
    "block RAM": lambda cells: cells.bram,
}
"""What versions and variants are compared by."""
_KINDS: dict[str, _Figure] = {
    "LUTs": lambda cells: cells.luts,
    "LUT4": lambda cells: cells.lut4,
    "CCU2C": lambda cells: cells.ccu2c,
    "DPR16X4": lambda cells: cells.dpr,
    "FF": lambda cells: cells.ff,
    "DSP": lambda cells: cells.dsp,
    "block RAM": lambda cells: cells.bram,
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Cells of one configuration, of `rows` x `cols` PEs: by unit, and for each variant with less in it likewise."""

    config: str
    rows: int
    cols: int
    units: Mapping[str, Cells]
    variants: Mapping[str, Mapping[str, Cells]]


def to_json(results: Sequence[Result], version: str) -> dict[str, Any]:
    """As JSON values; `read_results` reverses it. Cells are the fields of `Cells`."""
    return {"yosys": version, "results": [asdict(result) for result in results]}


def read_results(path: Path) -> dict[str, Result]:
    """Results by configuration, of a file written by `--json`. Raises UsageError when it is something else."""

    def cells(units: Any) -> dict[str, Cells]:
        found = {name: Cells(**counts) for name, counts in units.items()}
        if not all(isinstance(count, int) for one in found.values() for count in asdict(one).values()):
            raise TypeError
        return found

    try:
        return {
            item["config"]: Result(
                config=item["config"],
                rows=int(item["rows"]),
                cols=int(item["cols"]),
                units=cells(item["units"]),
                variants={label: cells(units) for label, units in item["variants"].items()},
            )
            for item in json.loads(path.read_text(encoding="utf-8"))["results"]
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"{path} does not hold areas, as `loomwork area --json` writes them") from None


def _lines(result: Result) -> list[tuple[str, list[str]]]:
    """The lines of a configuration, with all kinds of cells: groups, one PE, sum, share of the device."""
    groups = by_group(result.units)
    whole = total(groups.values())
    pes = result.rows * result.cols
    lines = [(name, [f"{figure(cells):,}" for figure in _KINDS.values()]) for name, cells in groups.items()]
    lines.insert(1, (f"– one of {pes} PEs", [f"{figure(groups['array']) / pes:.1f}" for figure in _KINDS.values()]))
    lines.append(("sum", [f"{figure(whole):,}" for figure in _KINDS.values()]))
    share = {"LUTs": whole.luts / _SIZES["luts"], "FF": whole.ff / _SIZES["ff"]}
    share |= {"DSP": whole.dsp / _SIZES["dsp"], "block RAM": whole.bram / _SIZES["bram"]}
    lines.append((f"of an {_DEVICE}", [f"{share[name]:.0%}" if name in share else "" for name in _KINDS]))
    return lines


def table(result: Result) -> Table:
    """One configuration for the terminal, with what its variants save."""
    made = Table("unit", title=f"{result.config} ({result.rows} x {result.cols})", title_justify="left")
    for heading in _KINDS:
        made.add_column(heading, justify="right")
    for name, figures in _lines(result):
        made.add_row(name, *figures)
    whole = total(result.units.values())
    for label, units in result.variants.items():
        less = total(units.values())
        made.add_row(label.replace("`", ""), *(_change(figure(whole), figure(less)) for figure in _KINDS.values()))
    return made


def _change(before: int, after: int) -> str:
    return f"{after - before:+,}" if after != before else "0"


def markdown(results: Sequence[Result], version: str, before: Mapping[str, Result] | None, source: Path | None) -> str:
    """The results as a page of the documentation. before: earlier results by configuration, from the file `source`."""
    options = "".join(f"--config {result.config} " for result in results)
    if any(result.variants for result in results):
        options += "--savings "
    if source is not None:
        options += f"--compare {source} "
    page = _PAGE.format(version=version, options=options, device=_DEVICE)
    for result in results:
        units = grid(["unit", *_KINDS], [[name, *figures] for name, figures in _lines(result)])
        page += f"\n## {result.config}\n\n{units}"
        if result.variants:
            whole = total(result.units.values())
            lines = [
                [label, *(_change(figure(whole), figure(total(units.values()))) for figure in _FIGURES.values())]
                for label, units in result.variants.items()
            ]
            page += f"\nWhat it saves to leave out what may be left out:\n\n{grid(['change', *_FIGURES], lines)}"
        if before and result.config in before:
            page += f"\nBefore and after:\n\n{_compared(before[result.config], result)}"
    return page


def _compared(old: Result, new: Result) -> str:
    olds, news = by_group(old.units), by_group(new.units)
    olds["sum"], news["sum"] = total(olds.values()), total(news.values())
    lines = [
        [group, *(f"{figure(olds[group]):,} → {figure(news[group]):,}" for figure in _FIGURES.values())]
        for group in news
    ]
    return grid(["unit", *_FIGURES], lines)
