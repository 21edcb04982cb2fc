# SPDX-License-Identifier: Apache-2.0
"""What each unit of the core costs on an ECP5, synthesized by itself.

By itself: nothing is simplified across the borders of units, and the wiring of `Core` and `Execute` between them is
left out, with each unit's copies of `clear` and `halt`. What a unit costs thus depends on that unit only, so that two
versions or configurations can be compared.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from amaranth.back import rtlil
from amaranth.lib.wiring import Component

from loomwork.arch.config import Config
from loomwork.fpga.yosys import SCRIPT, TOP, SynthesisError, Yosys, synthesize
from loomwork.rtl.accumulator import TAG, Accumulator
from loomwork.rtl.array import SystolicArray
from loomwork.rtl.control import Control
from loomwork.rtl.counters import Counters
from loomwork.rtl.csr import Csr
from loomwork.rtl.decoder import Decoder
from loomwork.rtl.dispatch import ENGINES, Dispatch
from loomwork.rtl.drain import Drain
from loomwork.rtl.feed import Feed
from loomwork.rtl.fetch import Fetch
from loomwork.rtl.load import Load
from loomwork.rtl.read_master import ReadMaster
from loomwork.rtl.scratchpad import Scratchpad
from loomwork.rtl.sequencer import PassSequencer
from loomwork.rtl.store import Store
from loomwork.rtl.stream_reader import StreamReader
from loomwork.rtl.weights import WeightLoader
from loomwork.rtl.write_master import WriteMaster
from loomwork.sim.toolchain import cache_directory

Figure = TypeVar("Figure")


@dataclass(frozen=True)
class Cells:
    """Cells of an ECP5.

    lut4: LUT4 of logic. ccu2c: carry cells of two bits. dpr: distributed RAM, 16 x 4 bits each (TRELLIS_DPR16X4).
    ff: flip-flops. dsp: 18 x 18 multipliers. bram: block RAMs of 18 kbit, DP16KD or PDPW16KD.
    """

    lut4: int = 0
    ccu2c: int = 0
    dpr: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0

    def __add__(self, other: "Cells") -> "Cells":
        mine, its = asdict(self), asdict(other)
        return Cells(**{name: mine[name] + its[name] for name in mine})

    @property
    def luts(self) -> int:
        """LUTs that all this occupies: a carry cell two, a distributed RAM four and two more for its write port, as
        nextpnr-ecp5 counts them ("Total LUT4s").
        """
        return self.lut4 + 2 * self.ccu2c + 6 * self.dpr


_KINDS = {
    "LUT4": "lut4",
    "CCU2C": "ccu2c",
    "TRELLIS_DPR16X4": "dpr",
    "TRELLIS_FF": "ff",
    "MULT18X18D": "dsp",
    "DP16KD": "bram",
    "PDPW16KD": "bram",
}
_FREE = {"PFUMX", "L6MUX21", "$scopeinfo"}
"""Multiplexers that come with every slice, and a note for debuggers."""


@dataclass(frozen=True)
class UnitOfCore:
    """name, and group in the report, of one component of the core, and how to make it as the core does."""

    name: str
    group: str
    make: Callable[[Config], Component]


# As many as `Core._faults` lists: of decoder, fetch, each engine, and of the scratchpad for the four that access it.
_FAULTS = 2 + len(ENGINES) + 4

UNITS: tuple[UnitOfCore, ...] = (
    UnitOfCore("array", "array", lambda config: SystolicArray(config, TAG)),
    UnitOfCore("feed", "feed", Feed),
    UnitOfCore("accumulator", "accumulators", Accumulator),
    UnitOfCore("drain", "drain", Drain),
    UnitOfCore("scratchpad", "scratchpad", Scratchpad),
    UnitOfCore("load", "dma", Load),
    UnitOfCore("stream", "dma", StreamReader),
    UnitOfCore("store", "dma", Store),
    UnitOfCore("fetch", "dma", Fetch),
    UnitOfCore("read_master", "dma", lambda config: ReadMaster(config, readers=3)),
    UnitOfCore("write_master", "dma", WriteMaster),
    UnitOfCore("sequencer", "control", PassSequencer),
    UnitOfCore("weights", "control", WeightLoader),
    UnitOfCore("decoder", "control", lambda _: Decoder()),
    UnitOfCore("dispatch", "control", Dispatch),
    UnitOfCore("csr", "control", lambda config: Csr(address_bits=config.address_bits)),
    UnitOfCore("control", "control", lambda _: Control(_FAULTS)),
    UnitOfCore("counters", "control", lambda _: Counters()),
)
"""Every component of the core, the largest first."""
GROUPS = tuple(dict.fromkeys(unit.group for unit in UNITS))
"""The lines of the report, in order."""


def count_cells(types: Mapping[str, int]) -> Cells:
    """Sort Yosys's cells by what they occupy. Raises SynthesisError for a type that this does not know."""
    unknown = sorted(set(types) - set(_KINDS) - _FREE)
    if unknown:
        raise SynthesisError(f"Yosys made cells of an unknown type, which would not be counted: {', '.join(unknown)}")
    return total(Cells(**{_KINDS[name]: count}) for name, count in types.items() if name in _KINDS)


def total(cells: Iterable[Cells]) -> Cells:
    """The sum of all."""
    return sum(cells, Cells())


def by_group(units: Mapping[str, Cells]) -> dict[str, Cells]:
    """The cells of each group of units, from those of each unit."""
    return {
        group: total(units[unit.name] for unit in UNITS if unit.group == group and unit.name in units)
        for group in GROUPS
    }


def measure(config: Config, yosys: Yosys, *, report: Callable[[str], None]) -> dict[str, Cells]:
    """Synthesize every unit of a configuration: its cells by the name of the unit.

    One after the other, the large ones for minutes. report: told before each. What was synthesized before, as the same
    RTLIL by the same version of Yosys, comes from the cache.
    Raises SynthesisError when Yosys fails, OSError when the cache directory cannot be written.
    """
    return for_each_unit(config, lambda unit: count_cells(_synthesize_once(unit, config, yosys)), report=report)


def for_each_unit(
    config: Config, synthesize_unit: Callable[[UnitOfCore], Figure], *, report: Callable[[str], None]
) -> dict[str, Figure]:
    """What `synthesize_unit` gives, by the name of the unit. report: told before each.

    Raises the SynthesisError of a unit with its name and that of the configuration.
    """
    result: dict[str, Figure] = {}
    for number, unit in enumerate(UNITS, 1):
        report(f"{config.name}: {unit.name} ({number} of {len(UNITS)})")
        try:
            result[unit.name] = synthesize_unit(unit)
        except SynthesisError as error:
            raise SynthesisError(f"{unit.name} of {config.name}: {error}") from error
    return result


def _synthesize_once(unit: UnitOfCore, config: Config, yosys: Yosys) -> Mapping[str, int]:
    """Cells of one unit by Yosys's types, from the cache or from Yosys."""
    source = rtlil.convert(unit.make(config), name=TOP, emit_src=False)
    key = hashlib.sha256(f"{yosys.version}\n{SCRIPT}\n{source}".encode()).hexdigest()[:32]
    folder = cache_directory() / "area"
    kept = folder / f"{unit.name}-{key}.json"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{unit.name}-") as directory:
            types = synthesize(yosys, source, Path(directory))
            # A file is complete from the moment it can be seen.
            new = Path(directory) / "kept.json"
            new.write_text(json.dumps(types), encoding="utf-8")
            new.replace(kept)
    cells: dict[str, int] = json.loads(kept.read_text(encoding="utf-8"))
    return cells


def variants(config: Config) -> dict[str, Config]:
    """The same configuration with less in it, by what is left out."""
    result: dict[str, Config] = {}
    smaller: dict[str, Any] = {}
    if config.depthwise:
        result["without `depthwise`"] = replace(config, depthwise=False)
        smaller["depthwise"] = False
    if config.residual_add:
        result["without `residual_add`"] = replace(config, residual_add=False)
        smaller["residual_add"] = False
    if config.elementwise_multiply:
        result["without `elementwise_multiply`"] = replace(config, elementwise_multiply=False)
        smaller["elementwise_multiply"] = False
    if config.activation_table:
        result["without `activation_table`"] = replace(config, activation_table=False)
        smaller["activation_table"] = False
    if config.requant_lanes > 1:
        lanes = max(1, config.requant_lanes // 4)
        result[f"`requant_lanes` {config.requant_lanes} → {lanes}"] = replace(config, requant_lanes=lanes)
        smaller["requant_lanes"] = lanes
    if len(smaller) > 1:
        result["all of these"] = replace(config, **smaller)
    return result
