# SPDX-License-Identifier: Apache-2.0
"""Placement and routing: several seeds side by side, the timing of each, and the bitstream of the best."""

import json
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loomwork.fpga.boards.board import Board
from loomwork.fpga.synthesis import NETLIST, Netlist, unit_of
from loomwork.fpga.tools import Tool, ToolError
from loomwork.fpga.unit_paths import UnitPath, unit_paths

REPORT = "report.json"
DELAYS = "delays.sdf"
UNIT_PATHS = "unit_paths.json"
LOG = "place.log"
_PHASES = (
    (re.compile(r"Packing|Creating"), "packing"),
    (re.compile(r"placer|Placed|iteration"), "placing"),
    (re.compile(r"Routing|Running router"), "routing"),
)


@dataclass(frozen=True, kw_only=True)
class CriticalPath:
    """The slowest path from register to register. start, end: names of cells. Times in ns, levels: cells of logic."""

    start: str
    end: str
    logic: float
    routing: float
    levels: int


@dataclass(frozen=True, kw_only=True)
class Routed:
    """One seed's result. fmax: MHz at which its slowest path still works. unit_paths: the slowest one between each two
    units. folder: of its files.
    """

    seed: int
    fmax: float
    path: CriticalPath
    unit_paths: Sequence[UnitPath]
    utilization: Mapping[str, tuple[int, int]]
    folder: Path


@dataclass(frozen=True)
class Seeds:
    """The results of all seeds that could be routed, and which could not."""

    routed: Sequence[Routed]
    failed: Mapping[int, str]

    @property
    def best(self) -> Routed:
        """The fastest one."""
        return max(self.routed, key=lambda result: result.fmax)

    @property
    def median(self) -> float:
        """Median Fmax in MHz."""
        return statistics.median(result.fmax for result in self.routed)

    @property
    def worst(self) -> float:
        """Lowest Fmax in MHz."""
        return min(result.fmax for result in self.routed)


def place_and_route(
    board: Board,
    netlist: Netlist,
    placer: Tool,
    seeds: Sequence[int],
    clock_mhz: float,
    *,
    workers: int,
    report: Callable[[int, str], None],
) -> Seeds:
    """Run the placer once per seed, `workers` at a time. What was routed before comes from the netlist's folder.

    report: told a seed and what is done for it. Raises ToolError when no seed could be routed.
    """

    def run(seed: int) -> Routed | str:
        result = _route(board, netlist, placer, seed, clock_mhz, report)
        report(seed, "failed" if isinstance(result, str) else f"{result.fmax:.1f} MHz")
        return result

    with ThreadPoolExecutor(workers) as pool:
        results = dict(zip(seeds, pool.map(run, seeds), strict=True))
    routed = [result for result in results.values() if not isinstance(result, str)]
    failed = {seed: result for seed, result in results.items() if isinstance(result, str)}
    if not routed:
        seed, why = next(iter(failed.items()))
        raise ToolError(f"{placer.name} could not place and route the design (seed {seed}): {why}")
    return Seeds(routed, failed)


def _route(
    board: Board, netlist: Netlist, placer: Tool, seed: int, clock_mhz: float, report: Callable[[int, str], None]
) -> Routed | str:
    """Route one seed; a sentence when that fails."""
    family = board.family
    name = re.sub(r"\W+", "-", " ".join([placer.version, *family.place_options]))
    folder = netlist.folder / f"{name}-{clock_mhz:g}-{seed}"
    if not (folder / UNIT_PATHS).is_file():
        option, routed = family.routed
        with tempfile.TemporaryDirectory(dir=netlist.folder, prefix=f".seed-{seed}-") as directory:
            made = Path(directory) / "made"
            made.mkdir()
            for source in (NETLIST, family.constraints_file):
                # A link, because the packaged tools see nothing outside of their folder: hard.
                (made / source).hardlink_to(netlist.folder / source)
            command = [
                *placer.command,
                *board.place_arguments,
                *family.place_options,
                *("--json", NETLIST, *family.constraints, option, routed, "--report", REPORT, "--sdf", DELAYS),
                *("--seed", str(seed), "--freq", f"{clock_mhz:g}", "--timing-allow-fail"),
            ]
            code = _run(command, made, lambda phase: report(seed, phase))
            if code or not all((made / name).is_file() for name in (REPORT, DELAYS)):
                return _last_error(made / LOG, code)
            report(seed, "timing of units")
            with (made / DELAYS).open(encoding="utf-8") as delays:
                paths = unit_paths(delays, unit_of)
            (made / UNIT_PATHS).write_text(json.dumps([asdict(path) for path in paths]), encoding="utf-8")
            (made / DELAYS).unlink()  # large
            (made / NETLIST).unlink()
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
    return _read(seed, folder)


def _run(command: Sequence[str], folder: Path, phase: Callable[[str], None]) -> int:
    """Run the placer, with its output in a log; told the phases that it enters."""
    phase("starting")
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with (folder / LOG).open("w", encoding="utf-8", buffering=1) as log, process:
        assert process.stdout is not None
        now = ""
        for line in process.stdout:
            log.write(line)
            found = next((name for pattern, name in _PHASES if pattern.search(line)), now)
            if found != now:
                now = found
                phase(now)
    return process.returncode


def _last_error(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("ERROR")]
    return lines[-1] if lines else f"exit code {code}"


def _read(seed: int, folder: Path) -> Routed:
    values: Mapping[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    # The system's clock is the one with the most on it; the oscillator's own drives nothing but the PLL.
    inside = [path for path in values["critical_paths"] if path["from"] == path["to"]]
    slowest = max(inside, key=_length)
    clock = slowest["from"].split(" ")[-1]
    return Routed(
        seed=seed,
        fmax=values["fmax"][clock]["achieved"],
        path=_path(slowest["path"]),
        unit_paths=[UnitPath(**path) for path in json.loads((folder / UNIT_PATHS).read_text(encoding="utf-8"))],
        utilization={name: (item["used"], item["available"]) for name, item in values["utilization"].items()},
        folder=folder,
    )


def _length(path: Mapping[str, Any]) -> float:
    return sum(part["delay"] for part in path["path"])


def _path(parts: Sequence[Mapping[str, Any]]) -> CriticalPath:
    def total(*, routing: bool) -> float:
        return sum(part["delay"] for part in parts if (part["type"] == "routing") is routing)

    return CriticalPath(
        start=parts[0]["from"]["cell"],
        end=parts[-1]["to"]["cell"],
        logic=total(routing=False),
        routing=total(routing=True),
        levels=sum(part["type"] == "logic" for part in parts),
    )


def pack(board: Board, packer: Tool, routed: Routed) -> bytes:
    """The bitstream of a routed design. Raises ToolError when the packer fails."""
    done = subprocess.run(
        [*packer.command, *board.family.pack_arguments], cwd=routed.folder, capture_output=True, text=True, check=False
    )
    file = routed.folder / board.family.bitstream
    if done.returncode or not file.is_file():
        last = " / ".join(line for line in (done.stdout + done.stderr).splitlines()[-3:] if line)
        raise ToolError(f"{packer.name} failed with exit code {done.returncode}: {last or 'no message'}")
    return file.read_bytes()
