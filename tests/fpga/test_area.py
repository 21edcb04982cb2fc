# SPDX-License-Identifier: Apache-2.0
"""Cells of the units: every unit is counted, figures add up, and nothing is synthesized twice."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Fragment, Module, Value
from amaranth.lib.wiring import Component

from loomwork.arch.config import BASE, FORMAL, TINY
from loomwork.fpga import area
from loomwork.fpga.area import GROUPS, UNITS, Cells, by_group, count_cells, measure, total, variants
from loomwork.fpga.yosys import SynthesisError, Yosys, find_yosys
from loomwork.rtl.core import Core
from loomwork.rtl.execute import Execute
from loomwork.rtl.replica import Replica

SOME = ("array", "accumulator", "write_master")
"""Units that take a second or two each."""


def ports(component: Component) -> list[tuple[object, int]]:
    """Path and width of every port."""
    return [(path, len(Value.cast(value))) for path, _, value in component.signature.flatten(component)]


def test_every_part_of_the_core_is_a_unit_and_made_as_the_core_does(monkeypatch: pytest.MonkeyPatch):
    parts: dict[str, Any] = {}

    def keep_parts(whole: type[Component]) -> None:
        """Have an elaboration put its submodules into `parts`, out of the transformers they are wrapped in."""
        elaborate = whole.elaborate

        def elaborate_and_keep(self: Component, platform: object) -> Module:
            module = elaborate(self, platform)
            for name, (part, _) in module._named_submodules.items():
                parts[name] = getattr(part, "_elaboratable_", part)
            return module

        monkeypatch.setattr(whole, "elaborate", elaborate_and_keep)

    keep_parts(Core)
    keep_parts(Execute)
    Fragment.get(Core(FORMAL), None)
    del parts["execute"], parts["tiles"]  # the one is its parts, the other a queue of two bits
    for name in [name for name, part in parts.items() if isinstance(part, Replica)]:
        del parts[name]  # two flip-flops
    parts["weights"] = parts.pop("loader")
    assert set(parts) == {unit.name for unit in UNITS}
    for unit in UNITS:
        made = unit.make(FORMAL)
        Fragment.get(made, None)  # Amaranth warns of components that nobody elaborates
        assert type(made) is type(parts[unit.name])
        assert ports(made) == ports(parts[unit.name]), unit.name


def test_cells_by_hand():
    types = {"LUT4": 100, "CCU2C": 10, "TRELLIS_DPR16X4": 3, "TRELLIS_FF": 7, "MULT18X18D": 2}
    cells = count_cells(types | {"DP16KD": 4, "PDPW16KD": 1, "PFUMX": 50, "L6MUX21": 9, "$scopeinfo": 1})
    assert cells == Cells(lut4=100, ccu2c=10, dpr=3, ff=7, dsp=2, bram=5)
    assert cells.luts == 100 + 20 + 18
    assert total([cells, cells, Cells(ff=1)]) == Cells(lut4=200, ccu2c=20, dpr=6, ff=15, dsp=4, bram=10)


def test_cells_of_an_unknown_type_are_refused():
    with pytest.raises(SynthesisError, match=r"unknown type, which would not be counted: ALU24B, TRELLIS_IO$"):
        count_cells({"LUT4": 1, "TRELLIS_IO": 3, "ALU24B": 1})


def test_groups_hold_every_unit_once():
    units = {unit.name: Cells(lut4=1 << number, ff=3**number) for number, unit in enumerate(UNITS)}
    groups = by_group(units)
    assert tuple(groups) == GROUPS
    assert sum(group.lut4 for group in groups.values()) == (1 << len(UNITS)) - 1
    assert [sum(values) for values in zip(*map(astuple, groups.values()), strict=True)] == list(
        astuple(total(units.values()))
    )


@pytest.fixture
def some_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only SOME of the units, and an empty cache."""
    monkeypatch.setattr(area, "UNITS", tuple(unit for unit in UNITS if unit.name in SOME))
    monkeypatch.setenv("LOOMWORK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_synthesis_gives_the_cells_that_the_units_must_have(some_units: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    units = measure(TINY, find_yosys(), report=told.append)
    assert told == [f"tiny: {name} ({number} of 3)" for number, name in enumerate(SOME, 1)]
    assert tuple(units) == SOME
    # One multiplier and, whatever else, two weights, an activation and a product in each PE.
    pes = TINY.rows * TINY.cols
    assert units["array"].dsp == pes
    assert units["array"].ff >= pes * (8 + 8 + 8 + 16)
    assert units["array"].bram == units["array"].dpr == 0
    # The accumulators: bits in distributed RAM, 16 x 4 each.
    assert units["accumulator"].dpr == 2 * TINY.cols * TINY.accumulator_depth * 32 // (16 * 4)
    assert units["accumulator"].dsp == 0

    def fail(*_: object) -> None:
        pytest.fail("synthesized a second time")

    kept = sorted(path.name for path in some_units.rglob("*") if path.is_file())
    assert len(kept) == len(SOME)
    monkeypatch.setattr(area, "synthesize", fail)
    assert measure(TINY, find_yosys(), report=told.append) == units


def test_another_version_or_another_circuit_is_synthesized_anew(some_units: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []

    def synthesize(yosys: Yosys, rtlil: str, directory: Path) -> dict[str, int]:
        seen.append(yosys.version)
        return {"LUT4": len(seen)}

    monkeypatch.setattr(area, "synthesize", synthesize)
    old, new = Yosys(("yosys",), "0.70"), Yosys(("yosys",), "0.71")
    first = measure(FORMAL, old, report=seen.append)
    assert [cells.lut4 for cells in first.values()] == [2, 4, 6]
    assert measure(FORMAL, old, report=lambda _: None) == first
    assert [cells.lut4 for cells in measure(FORMAL, new, report=lambda _: None).values()] == [7, 8, 9]
    changed = measure(variants(FORMAL)["without `depthwise`"], old, report=lambda _: None)
    # The array differs, the accumulators and the write master do not.
    assert [cells.lut4 for cells in changed.values()] == [10, 4, 6]


def test_a_failure_names_the_unit(some_units: Path, monkeypatch: pytest.MonkeyPatch):
    def synthesize(*_: object) -> None:
        raise SynthesisError("Yosys 0.70 failed")

    monkeypatch.setattr(area, "synthesize", synthesize)
    with pytest.raises(SynthesisError, match=r"^array of formal: Yosys 0\.70 failed$"):
        measure(FORMAL, Yosys(("yosys",), "0.70"), report=lambda _: None)
    assert not list(some_units.rglob("*.json"))


def test_variants_leave_out_one_thing_each():
    smaller = variants(BASE)
    assert list(smaller) == [
        "without `depthwise`",
        "without `residual_add`",
        "without `elementwise_multiply`",
        "without `activation_table`",
        "`requant_lanes` 16 → 4",
        "all of these",
    ]
    fields = ("depthwise", "residual_add", "elementwise_multiply", "activation_table", "requant_lanes")
    assert [tuple(getattr(less, field) for field in fields) for less in smaller.values()] == [
        (False, True, True, True, 16),
        (True, False, True, True, 16),
        (True, True, False, True, 16),
        (True, True, True, False, 16),
        (True, True, True, True, 4),
        (False, False, False, False, 4),
    ]
    assert variants(smaller["all of these"]) == {
        "`requant_lanes` 4 → 1": smaller["all of these"].__class__.from_dict(
            smaller["all of these"].to_dict() | {"requant_lanes": 1}
        )
    }
