# SPDX-License-Identifier: Apache-2.0
"""The results of `loomwork bench` as a table, as a page of the documentation, and as recorded cycles."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from loomwork.cli.benchmark import Row
from loomwork.cli.markdown import grid
from loomwork.cli.output import UsageError

_PAGE = """\
# Benchmarks

Every network is compiled and run on the RTL in Verilator, with weights, input and program in external memory
({latency} cycles of read latency). Made by

```
loomwork bench {configs}--markdown docs/benchmarks.md
```

- **cycles**: from `start` to `done`. They do not depend on the machine, nor on the image.
- **bound**: max(executed MACs / MACs per cycle, weight bytes / bus bytes), which no accelerator of that size can beat.
- **utilization**: executed MACs per cycle, of those that the array can do. MACs of channels that no output depends on
  are not executed.
- **bytes**: moved on the bus, with program, padding of rows and feature maps that do not fit the scratchpad, beside the
  compulsory ones: weights and parameters once, inputs and outputs.
- **exact**: every output equal to tflite-micro's, for random inputs.
- `resnet50_shaped`: ResNet-50 (version 1.5) with random weights, made by the command itself.
"""

_CAUSES = """\
The three largest causes, as far as the performance counters tell.
"""


SHORT = 2
"""Host operators that are named; of more than that, the first."""


def done(rows: Sequence[Row]) -> list[Row]:
    """The rows with figures: neither refused nor failed."""
    return [row for row in rows if "cycles" in row]


def table(rows: Sequence[Row]) -> Table:
    """The benchmark for the terminal; `host`: operators on the host, `target`: which one is reached."""
    result = Table("network", "config")
    for heading in ("MACs", "bound", "cycles", "util.", "read", "written", "compulsory", "host"):
        result.add_column(heading, justify="right")
    result.add_column("target")
    result.add_column("exact")
    for row in rows:
        if "cycles" not in row:
            what = "refused" if "refused" in row else "FAILED"
            result.add_row(row["name"], row["config"], *[""] * 9, what)
            continue
        result.add_row(
            row["name"],
            row["config"],
            f"{row['macs']:,}",
            f"{row['bound']:,}",
            f"{row['cycles']:,}",
            f"{row['utilization']:.1%}",
            *(f"{row[key]:,}" for key in ("read_bytes", "write_bytes", "compulsory_bytes")),
            str(len(row["host_operators"]) or ""),
            _verdict(row) if row["required"] else "",
            "yes" if row["exact"] else "NO",
        )
    return result


def _on_host(row: Row) -> str:
    names = row["host_operators"]
    return ", ".join(names) if len(names) <= SHORT else f"{names[0]} and {len(names) - 1} more"


def markdown(rows: Sequence[Row], latency: int) -> str:
    """The benchmark as a page of the documentation: exact figures only, nothing that depends on the machine."""
    configs = list(dict.fromkeys(row["config"] for row in rows))
    page = _PAGE.format(configs="".join(f"--config {name} " for name in configs), latency=latency)
    measured = done(rows)
    for config in configs:
        page += f"\n## {config}\n\n{_figures([row for row in measured if row['config'] == config])}"
    if any(row["required"] for row in measured):
        page += f"\n## Targets\n\n{_targets(measured)}"
    if measured:
        page += f"\n## Where the cycles above the bound go\n\n{_CAUSES}\n{_causes(measured)}"
    for what in ("refused", "failed"):
        if any(what in row for row in rows):
            page += f"\n## {what.capitalize()}\n\n{_reasons(rows, what)}"
    return page


def _figures(rows: Sequence[Row]) -> str:
    headings = ("network", "on the host", "exact", "MACs", "bound", "cycles", "utilization")
    lines = [
        (
            row["name"],
            _on_host(row),
            "yes" if row["exact"] else "NO",
            *(f"{row[key]:,}" for key in ("macs", "bound", "cycles")),
            f"{row['utilization']:.1%}",
            *(f"{row[key]:,}" for key in ("read_bytes", "write_bytes", "compulsory_bytes")),
        )
        for row in rows
    ]
    return grid((*headings, "bytes read", "bytes written", "compulsory"), lines, names=3)


def _targets(rows: Sequence[Row]) -> str:
    lines = [
        (
            row["name"],
            row["config"],
            *(f"{row[key]:,}" for key in ("bound", "aim", "required", "cycles")),
            _verdict(row),
        )
        for row in rows
        if row["required"]
    ]
    return grid(("network", "configuration", "bound", "aim", "required", "cycles", "reached"), lines, names=2)


def _verdict(row: Row) -> str:
    if row["cycles"] <= row["aim"]:
        return "aim"
    return "required" if row["cycles"] <= row["required"] else "NO"


def _causes(rows: Sequence[Row]) -> str:
    """The three largest causes of each network, from the performance counters."""
    text = ""
    for row in rows:
        above = row["cycles"] - row["bound"]
        causes = "; ".join(f"{entry['cycles']:,} {entry['cause']}" for entry in row["causes"])
        text += f"- {row['name']}, {row['config']}: {above:,} cycles: {causes}\n"
    return text


def _reasons(rows: Sequence[Row], what: str) -> str:
    """Why networks have no figures, with the configurations to which the same reason applies."""
    configs: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if what in row:
            configs.setdefault((row["name"], row[what]), []).append(row["config"])
    return "".join(f"- {name} on {', '.join(where)}: {reason}\n" for (name, reason), where in configs.items())


def record(path: Path, rows: Sequence[Row], latency: int) -> dict[str, Any]:
    """Recorded cycles with those measured now put in: `{"latency": n, "cycles": {config: {network: n}}}`.

    Networks and configurations that were not measured stay as they are in the file, if there is one. Raises UsageError
    when the file holds something else, or cycles for another latency.
    """
    recorded: dict[str, Any] = read_record(path) if path.exists() else {"latency": latency, "cycles": {}}
    if recorded["latency"] != latency:
        raise UsageError(f"{path} holds cycles for a latency of {recorded['latency']}, these are for {latency}")
    cycles: dict[str, dict[str, int]] = recorded["cycles"]
    for row in done(rows):
        cycles.setdefault(row["config"], {})[row["name"]] = row["cycles"]
    return {"latency": latency, "cycles": {config: dict(sorted(cycles[config].items())) for config in sorted(cycles)}}


def read_record(path: Path) -> dict[str, Any]:
    """A file written by `--record`. Raises UsageError when it is something else."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        figures = [count for networks in recorded["cycles"].values() for count in networks.values()]
        whole = all(isinstance(figure, int) for figure in (recorded["latency"], *figures))
    except (ValueError, TypeError, KeyError, AttributeError):
        whole, recorded = False, {}
    if not whole:
        raise UsageError(f"{path} does not hold recorded cycles, as `loomwork bench --record` writes them")
    return recorded
