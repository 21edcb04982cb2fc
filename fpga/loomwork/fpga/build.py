# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a board's bitstream: the steps in their order."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from loomwork.arch.config import Config
from loomwork.arch.isa import isa_hash
from loomwork.fpga.boards.board import Board
from loomwork.fpga.boards.top import Top
from loomwork.fpga.capacity import check_capacity, estimate
from loomwork.fpga.place_route import Seeds, pack, place_and_route
from loomwork.fpga.synthesis import Netlist, synthesize
from loomwork.fpga.tools import ToolError, find_tool
from loomwork.fpga.yosys import find_yosys


class TimingError(ToolError):
    """The design is slower than its clock with every seed."""


class Progress(Protocol):
    """Who is told what goes on."""

    def step(self, what: str) -> None:
        """A step begins."""
        ...

    def seed(self, seed: int, what: str) -> None:
        """Something happens to one seed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Build:
    """A board's bitstream and what is known of it. clock_mhz: what it runs at. tools: their versions."""

    board: Board
    config: Config
    memory_kib: int
    clock_mhz: float
    netlist: Netlist
    seeds: Seeds
    tools: Sequence[str]
    bitstream: bytes

    @property
    def meets_timing(self) -> bool:
        """Whether the best seed works at the clock."""
        return self.seeds.best.fmax >= self.clock_mhz

    def to_dict(self) -> dict[str, Any]:
        """Everything but the bitstream, as JSON values."""
        best = self.seeds.best
        return {
            "board": self.board.name,
            "device": self.board.device,
            "config": self.config.to_dict(),
            "config_hash": f"{self.config.hash:016x}",
            "isa_hash": f"{isa_hash():08x}",
            "memory_kib": self.memory_kib,
            "clock_mhz": round(self.clock_mhz, 3),
            "meets_timing": self.meets_timing,
            "fmax_mhz": {
                "best": round(best.fmax, 2),
                "median": round(self.seeds.median, 2),
                "worst": round(self.seeds.worst, 2),
                "seeds": {str(result.seed): round(result.fmax, 2) for result in self.seeds.routed},
                "failed": {str(seed): why for seed, why in self.seeds.failed.items()},
            },
            "critical_path": asdict(best.path),
            "unit_paths": [asdict(path) for path in best.unit_paths],
            "capacity": asdict(self.board.capacity),
            "total": asdict(self.netlist.total),
            "units": {name: asdict(unit) for name, unit in self.netlist.units.items()},
            "placed": {name: list(counts) for name, counts in best.utilization.items() if counts[0]},
            "tools": list(self.tools),
        }


def build(
    board: Board,
    config: Config,
    *,
    memory_kib: int,
    clock_mhz: float,
    seeds: Sequence[int],
    workers: int,
    allow_slow: bool,
    progress: Progress,
) -> Build:
    """Make a bitstream with the fastest of some seeds.

    seeds: of the placer. workers: how many run side by side. allow_slow: a bitstream that misses its clock is made too.
    Raises ToolError when a tool is missing or fails, TimingError when every seed is slower than the clock,
    CapacityError when the board is too small, ClockError when its PLL cannot make the clock, FloorplanError when its
    floorplan is none.
    """
    # Whatever can go wrong at once does so before the work begins.
    board.floorplan()
    placer, packer, yosys = find_tool(board.family.placer), find_tool(board.family.packer), find_yosys()
    top = Top(board, config, memory_kib, clock_mhz)
    check_capacity(board, config, estimate(board, config, memory_kib))
    netlist = synthesize(board, top, yosys, report=progress.step)
    check_capacity(board, config, netlist.total)
    progress.step("placement and routing")
    results = place_and_route(board, netlist, placer, seeds, top.clock_mhz, workers=workers, report=progress.seed)
    if results.best.fmax < top.clock_mhz and not allow_slow:
        raise TimingError(
            f"the design misses {top.clock_mhz:g} MHz: the best of {len(seeds)} seeds reaches {results.best.fmax:.1f} "
            f"MHz, limited by the path from {results.best.path.start} to {results.best.path.end}; choose a slower "
            "--clock, more --seeds, or --allow-slow for a bitstream that may compute wrong results"
        )
    progress.step("packing the bitstream")
    return Build(
        board=board,
        config=config,
        memory_kib=memory_kib,
        clock_mhz=top.clock_mhz,
        netlist=netlist,
        seeds=results,
        tools=(f"Yosys {yosys.version}", placer.version, packer.version),
        bitstream=pack(board, packer, results.best),
    )
