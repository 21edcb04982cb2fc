# SPDX-License-Identifier: Apache-2.0
"""The page of all boards, from the reports that `loomwork build` keeps of each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loomwork.cli.build_page import PATHS_SHOWN
from loomwork.cli.output import UsageError, write_file, write_json
from loomwork.fpga.boards.board import Board
from loomwork.fpga.boards.catalog import BOARDS
from loomwork.fpga.capacity import CapacityError, check_capacity, estimate
from loomwork.fpga.unit_paths import NEAR

_PAGE = """\
# Boards

What `loomwork build` makes of each board with open tools: Yosys, nextpnr, and the packer of the family. Made by
`make fpga`, which builds each board and writes this page.

- Everything is in the numbers: core, memory, host link, clock and reset. **Fmax** is nextpnr's, of the slowest path
  between two registers after routing, at the device's own speed grade and worst corner. It depends on the seed of the
  placement: median, best and worst of those that were tried. The bitstream is that of the best.
- **LUTs** of four inputs, carry cells and distributed RAM included, on Gowin and iCE40 also those whose place a
  flip-flop takes that has none of its own; **FF** flip-flops; **DSP** multiplier cells (Gowin: of 9 x 9 bits); **block
  RAM** of 18 kbit (iCE40: 4 kbit). All units are mapped together; cells are counted by their names. On the ECP5 the
  multipliers and block RAMs have got their sites by a floorplan (decisions/0020-floorplan.md), and flip-flops that only
  stand behind block RAM are the block RAM's own and not counted (decisions/0022-a-bus-of-half-the-width.md).
- **Slowest paths** are those between two units, of the best seed; `report.json` has all. Near the slowest of all are
  registers at the end of a path that takes {near:.0%} of its time or more.
"""

_KINDS = {"luts": "LUTs", "registers": "FF", "multipliers": "DSP", "blocks": "block RAM"}


def records_folder(page: Path) -> Path:
    """Where the reports behind a page lie."""
    return page.parent / "records"


def write_page(page: Path, report: Mapping[str, Any]) -> None:
    """Keep one board's report and write the page of all that are kept."""
    folder = records_folder(page)
    folder.mkdir(exist_ok=True)
    write_json(folder / f"board_{report['board']}.json", report)
    write_file(page, boards_page(read_records(page)))


def read_records(page: Path) -> list[dict[str, Any]]:
    """The reports behind a page, in the order of the boards. Raises UsageError for a file that is none."""
    records: list[dict[str, Any]] = []
    for name in BOARDS:
        path = records_folder(page) / f"board_{name}.json"
        if path.is_file():
            try:
                records.append(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise UsageError(f"{path} is no report of a board: {error}") from None
    return records


def boards_page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page as Markdown."""
    built = {record["board"]: record for record in records}
    sections = (_section(built[name]) if name in built else _without(board) for name, board in BOARDS.items())
    return "\n".join([_PAGE.format(near=NEAR), *([_summary(records)] if records else []), *sections])


def _summary(records: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| board | array | clock MHz | Fmax median | best | worst | seeds | LUTs | DSP | block RAM |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for record in records:
        config, fmax, total, capacity = (record[name] for name in ("config", "fmax_mhz", "total", "capacity"))
        shares = " | ".join(f"{100 * total[kind] / capacity[kind]:.0f}%" for kind in ("luts", "multipliers", "blocks"))
        speeds = " | ".join(f"{fmax[name]:.1f}" for name in ("median", "best", "worst"))
        lines.append(
            f"| {record['board']} | {config['rows']} x {config['cols']} | {record['clock_mhz']:g} | {speeds} | "
            f"{len(fmax['seeds'])} | {shares} |"
        )
    return "\n".join(lines) + "\n"


def _section(record: Mapping[str, Any]) -> str:
    config, path, total, capacity = (record[name] for name in ("config", "critical_path", "total", "capacity"))
    board = BOARDS[record["board"]]
    changes = ", ".join(f"{name} {value}" for name, value in config.items() if name not in ("name", "rows", "cols"))
    verdict = "meets it" if record["meets_timing"] else "**misses it**"
    tools = ", ".join(dict.fromkeys(record["tools"]))
    lines = [
        f"## {board.title}",
        "",
        (
            f"`{_command(board, record)}`: {record['device']}, "
            f"{config['rows']} x {config['cols']} array ({changes}), {record['memory_kib']} KiB for programs and "
            f"tensors. Clock {record['clock_mhz']:g} MHz; the best seed {verdict}. {tools}."
        ),
        "",
        (
            f"Critical path: {path['logic'] + path['routing']:.2f} ns, of which {path['logic']:.2f} ns logic in "
            f"{path['levels']} levels and {path['routing']:.2f} ns routing, from `{path['start']}` to `{path['end']}`."
        ),
        "",
        "| from | to | slowest path, ns | ends near the slowest |",
        "| --- | --- | ---: | ---: |",
        *(
            f"| {one['from_unit']} | {one['to_unit']} | {one['delay']:.2f} | {one['ends']:,} |"
            for one in record["unit_paths"][:PATHS_SHOWN]
        ),
        "",
        "| unit | " + " | ".join(_KINDS.values()) + " |",
        "| --- |" + " ---: |" * len(_KINDS),
        *(f"| {name} | {_counts(unit)} |" for name, unit in record["units"].items()),
        f"| sum | {_counts(total)} |",
        f"| of the device | {' | '.join(f'{100 * total[kind] / capacity[kind]:.0f}%' for kind in _KINDS)} |",
    ]
    return "\n".join(lines) + "\n"


def _command(board: Board, record: Mapping[str, Any]) -> str:
    """What has made a report, with the options that differ from the board's own."""
    options = {
        "--config": (record["config"]["name"], board.config.name),
        "--memory": (record["memory_kib"], board.memory_kib),
        "--clock": (record["clock_mhz"], board.clock_mhz),
        "--seeds": (len(record["fmax_mhz"]["seeds"]) + len(record["fmax_mhz"]["failed"]), 1),
    }
    changed = [f" {name} {str(value).removesuffix('.0')}" for name, (value, own) in options.items() if value != own]
    return f"loomwork build {board.name}{''.join(changed)}"


def _without(board: Board) -> str:
    """What is said of a board that was not built."""
    try:
        check_capacity(board, board.config, estimate(board, board.config, board.memory_kib))
    except CapacityError as error:
        return f"## {board.title}\n\nNot built. {error}.\n"
    return f"## {board.title}\n\n`loomwork build {board.name}` has not been run to its end for this page.\n"


def _counts(resources: Mapping[str, int]) -> str:
    return " | ".join(f"{resources[kind]:,}" for kind in _KINDS)
