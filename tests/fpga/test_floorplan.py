# SPDX-License-Identifier: Apache-2.0
"""Floorplans: what the wires pull, how logic is spread, which site each multiplier and block RAM gets."""

import itertools
import json
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from loomwork.fpga import synthesis
from loomwork.fpga.boards.catalog import ICEBREAKER, ULX3S_85F
from loomwork.fpga.boards.fabric import BLOCK_RAM, DSP, LFE5U_85F, Fabric, FloorplanError, Site
from loomwork.fpga.floorplan import fix_blocks, floorplan, plan, recipe_of_floorplan
from loomwork.fpga.floorplan.graph import MAX_PINS, Graph
from loomwork.fpga.floorplan.plan import BEGINNINGS
from loomwork.fpga.floorplan.sites import Sites
from loomwork.fpga.floorplan.spreading import DENSITY, Spreading
from loomwork.fpga.tools import find_tool


def cells_of(*nets: tuple[str, ...], kinds: dict[str, str] | None = None) -> dict[str, Any]:
    """A netlist in which each net connects some cells; those that `kinds` does not name are lookup tables."""
    names = dict.fromkeys(name for net in nets for name in net)
    cells: dict[str, Any] = {
        name: {"type": (kinds or {}).get(name, "LUT4"), "attributes": {}, "connections": {}} for name in names
    }
    for bit, net in enumerate(nets, 2):
        for name in net:
            cells[name]["connections"].setdefault("A", []).append(bit)
    return cells


def small_fabric(width: int = 40, height: int = 30, enables: int = 3) -> Fabric:
    """Two blocks of two multipliers, and four block RAMs."""
    return Fabric(
        width=width,
        height=height,
        tile_luts=8,
        sites={
            DSP: tuple(Site(f"dsp{x}", x, y, str(y)) for x, y in ((5, 10), (6, 10), (30, 24), (31, 24))),
            BLOCK_RAM: tuple(Site(f"ram{x}", x, y, str(x)) for x, y in ((3, 20), (13, 4), (23, 20), (33, 4))),
        },
        kinds={"PDPW16KD": BLOCK_RAM},
        enables=enables,
    )


def test_wires_are_half_the_perimeters_of_the_nets():
    graph = Graph(cells_of(("a", "b", "c"), ("c", "d"), ("d",)))
    x = np.array([0.0, 4.0, 1.0, 9.0])
    y = np.array([2.0, 2.0, 7.0, 7.5])
    assert graph.wires(x, y) == (4 + 5) + (8 + 0.5)


def test_constants_single_pins_and_wide_nets_pull_nothing():
    many = tuple(f"cell{number}" for number in range(MAX_PINS + 1))
    cells = cells_of(("a", "b"), many, ("c",))
    cells["a"]["connections"]["B"] = ["0", "x"]
    assert [len(net) for net in Graph(cells).nets_of(0)] == [1]
    assert Graph(cells).wires(np.zeros(len(cells)), np.zeros(len(cells))) == 0


def test_springs_come_to_rest_where_their_forces_are_equal():
    graph = Graph(cells_of(("left", "middle"), ("middle", "right"), ("left", "other", "right")))
    places = np.array([0.0, 1.0, 10.0, 2.0])
    held = np.array([1e6, 0, 1e6, 0])
    solved = graph.solve(places, np.array([0.0, 0, 10, 0]), held, tolerance=1e-9)
    # A spring has the inverse of its length, in a net of three pins half of it.
    middle = 10 * (1 / 9) / (1 / 1 + 1 / 9)
    other = 10 * (0.5 / 8) / (0.5 / 2 + 0.5 / 8)
    assert solved == pytest.approx([0, middle, 10, other], abs=1e-3)


def test_an_anchor_pulls_against_the_wires():
    graph = Graph(cells_of(("held", "pulled")))
    solved = graph.solve(np.array([0.0, 5.0]), np.array([0.0, 10.0]), np.array([1e6, 0.5]), tolerance=1e-9)
    # The spring of the net has 1 / 5.
    assert solved == pytest.approx([0, 0.5 * 10 / (0.5 + 0.2)], abs=1e-3)


def test_the_largest_part_is_the_main_one():
    graph = Graph(cells_of(("a", "b"), ("b", "c"), ("d", "e")))
    assert graph.main_part().tolist() == [True, True, True, False, False]


def test_crowded_logic_is_spread_and_what_has_room_stays():
    fabric = small_fabric()
    rng = random.Random(20260101)
    crowd = [(20 + rng.gauss(0, 0.5), 15 + rng.gauss(0, 0.5)) for _ in range(2000)]
    lonely = [(2.0, 2.0), (37.0, 27.0)]
    x, y = (np.array(values) for values in zip(*crowd, *lonely, strict=True))
    area = np.ones(len(x))
    to_x, to_y = Spreading(fabric, area).spread(np.arange(len(x)), x, y)
    assert [(float(to_x[cell]), float(to_y[cell])) for cell in (-2, -1)] == lonely
    assert ((to_x >= 1) & (to_x <= fabric.width - 1) & (to_y >= 1) & (to_y <= fabric.height - 1)).all()
    regions = Counter(zip((to_x // 8).astype(int).tolist(), (to_y // 8).astype(int).tolist(), strict=True))
    # Cuts do not lie just between these regions.
    assert max(regions.values()) <= 8 * 8 * fabric.tile_luts * DENSITY * 1.1
    west = np.flatnonzero(x < 19.5)
    east = np.flatnonzero(x > 20.5)
    assert np.median(to_x[west]) < np.median(to_x[east])


def test_a_device_that_is_too_full_is_filled_evenly():
    fabric = small_fabric()
    count = 2 * fabric.width * fabric.height * fabric.tile_luts
    places = np.full(count, 12.0)
    to_x, to_y = Spreading(fabric, np.ones(count)).spread(np.arange(count), places, places)
    for place, size in ((to_x, fabric.width), (to_y, fabric.height)):
        assert abs(int((place <= size // 2).sum()) - count // 2) < count / 10


def test_the_nearest_sites_are_the_best_of_all_assignments():
    rng = random.Random(20260102)
    fabric = small_fabric()
    kinds = {"p": DSP, "q": DSP, "r": DSP, "s": BLOCK_RAM, "t": "PDPW16KD"}
    graph = Graph(cells_of(tuple(kinds), kinds=kinds))
    sites = Sites(fabric, graph)
    for _ in range(20):
        x = np.array([rng.uniform(0, 40) for _ in kinds])
        y = np.array([rng.uniform(0, 30) for _ in kinds])
        sites.nearest(x, y)
        for kind, cells in ((DSP, (0, 1, 2)), (BLOCK_RAM, (3, 4))):

            def distance(chosen: Any, cells: Any = cells, x: Any = x, y: Any = y) -> float:
                return sum(abs(s.x - x[c]) + abs(s.y - y[c]) for c, s in zip(cells, chosen, strict=True))

            best = min(map(distance, itertools.permutations(fabric.sites[kind], len(cells))))
            assert distance([sites.chosen[cell] for cell in cells]) == pytest.approx(best)


def test_improved_sites_have_the_shortest_wires_of_all_assignments():
    rng = random.Random(20260103)
    fabric = small_fabric()
    kinds = {"p": DSP, "q": DSP, "r": DSP}
    logic = [f"cell{number}" for number in range(6)]
    for _ in range(20):
        owners = [*kinds, *rng.choices(list(kinds), k=5)]
        graph = Graph(cells_of(tuple(logic), *((owner, *rng.sample(logic, 2)) for owner in owners), kinds=kinds))
        multipliers = [graph.names.index(name) for name in kinds]
        x = np.array([rng.uniform(0, 40) for _ in graph.names])
        y = np.array([rng.uniform(0, 30) for _ in graph.names])
        sites = Sites(fabric, graph)
        sites.improve(x, y)

        def wires(chosen: Any, graph: Graph = graph, multipliers: Any = multipliers, places: Any = (x, y)) -> float:
            x, y = (place.copy() for place in places)
            for cell, site in zip(multipliers, chosen, strict=True):
                x[cell], y[cell] = site.x, site.y
            return graph.wires(x, y)

        best = min(map(wires, itertools.permutations(fabric.sites[DSP], 3)))
        assert wires([sites.chosen[cell] for cell in multipliers]) == pytest.approx(best)


def enabled(count: int) -> dict[str, Any]:
    """Multipliers with a clock enable of their own each, and constants at their other ones."""
    names = [f"m{number}" for number in range(count)]
    cells = cells_of(tuple(names), kinds=dict.fromkeys(names, DSP))
    for number, name in enumerate(names):
        cells[name]["connections"] |= {"CE0": ["1"], "CE1": [100 + number]}
    return cells


def test_multipliers_change_places_when_a_block_has_too_many_enables():
    fabric = small_fabric(enables=1)
    cells = enabled(2)
    sites = Sites(fabric, Graph(cells))
    sites.nearest(np.array([5.0, 6.0]), np.array([10.0, 10.0]))
    assert [sites.chosen[cell].bel for cell in (0, 1)] == ["dsp5", "dsp6"]
    sites.share_enables(cells)
    # One of them goes to the nearest site of the other block.
    assert {sites.chosen[cell].bel for cell in (0, 1)} == {"dsp5", "dsp30"}


def test_multipliers_with_the_same_enable_may_stay_together():
    fabric = small_fabric(enables=1)
    cells = enabled(2)
    cells["m1"]["connections"]["CE1"] = cells["m0"]["connections"]["CE1"]
    sites = Sites(fabric, Graph(cells))
    sites.nearest(np.array([5.0, 6.0]), np.array([10.0, 10.0]))
    sites.share_enables(cells)
    assert [sites.chosen[cell].bel for cell in (0, 1)] == ["dsp5", "dsp6"]


def test_too_many_enables_are_an_error():
    cells = enabled(3)
    sites = Sites(small_fabric(enables=1), Graph(cells))
    sites.nearest(np.zeros(3), np.zeros(3))
    with pytest.raises(FloorplanError, match="clock enables"):
        sites.share_enables(cells)


def test_too_many_cells_are_an_error():
    kinds = {f"m{number}": DSP for number in range(5)}
    with pytest.raises(FloorplanError, match=f"has 5 {DSP} for 4 sites"):
        floorplan(cells_of(tuple(kinds), kinds=kinds), small_fabric())


@pytest.mark.parametrize(("enables", "blocks"), [(2, 1), (1, 2)])
def test_a_floorplan_has_no_block_with_too_many_enables(enables: int, blocks: int):
    fabric = small_fabric(enables=enables)
    block_of = {site.bel: site.block for site in fabric.sites[DSP]}
    assert len({block_of[bel] for bel in floorplan(enabled(2), fabric).values()}) == blocks


def test_a_netlist_of_logic_alone_needs_no_floorplan():
    assert floorplan(cells_of(("a", "b")), small_fabric()) == {}


def test_nor_does_what_is_connected_to_nothing():
    assert floorplan(cells_of(("m",), kinds={"m": DSP}), small_fabric()) == {}


def mesh(rows: int, columns: int) -> dict[str, Any]:
    """Multipliers in a grid, each connected to its neighbours through four lookup tables in a row."""
    kinds = {f"m{row}_{column}": DSP for row in range(rows) for column in range(columns)}
    nets: list[tuple[str, ...]] = []
    for row, column in itertools.product(range(rows), range(columns)):
        for name, other in (("down", (row + 1, column)), ("right", (row, column + 1))):
            if other[0] < rows and other[1] < columns:
                chain = [f"m{row}_{column}", *(f"{name}{row}_{column}_{place}" for place in range(4))]
                nets += itertools.pairwise([*chain, f"m{other[0]}_{other[1]}"])
    return cells_of(*nets, kinds=kinds)


def test_neighbours_in_a_mesh_are_neighbours_on_the_device(monkeypatch: pytest.MonkeyPatch):
    cells = mesh(8, 8)
    sites = floorplan(cells, LFE5U_85F)
    places = {site.bel: (site.x, site.y) for site in LFE5U_85F.sites[DSP]}
    assert len(set(sites.values())) == len(sites) == 64
    assert set(sites.values()) <= set(places)

    def length(chosen: dict[str, str]) -> int:
        total = 0
        for row, column in itertools.product(range(8), range(8)):
            for other in ((row + 1, column), (row, column + 1)):
                if max(other) < 8:
                    (a, b), (c, d) = (places[chosen[f"m{r}_{k}"]] for r, k in ((row, column), other))
                    total += abs(a - c) + abs(b - d)
        return total

    rng = random.Random(20260104)
    by_chance = [length(dict(zip(sites, rng.sample(list(places), 64), strict=True))) for _ in range(20)]
    assert length(sites) < min(by_chance) / 2
    assert floorplan(cells, LFE5U_85F) == sites, "the same netlist gives the same floorplan"
    monkeypatch.setattr("loomwork.fpga.floorplan.plan._POLISHES", 0)
    polished, settled = length(sites), length(floorplan(cells, LFE5U_85F))
    monkeypatch.setattr("loomwork.fpga.floorplan.plan._FINAL_ROUNDS", 0)
    rough = length(floorplan(cells, LFE5U_85F))
    assert polished < settled < rough, "the last rounds make wires shorter, and those behind them again"


def test_logic_settles_between_its_sites_and_they_stay():
    fabric = small_fabric()
    chain = ["p", *(f"cell{number}" for number in range(9)), "q"]
    graph = Graph(cells_of(*itertools.pairwise(chain), kinds={"p": DSP, "q": DSP}))
    sites = Sites(fabric, graph)
    first, last = fabric.sites[DSP][0], fabric.sites[DSP][-1]
    sites.chosen = {graph.names.index("p"): first, graph.names.index("q"): last}
    settling = plan._Settling(graph, sites, fabric)
    settling.spread(plan._SETTLING_ROUNDS)
    order = [graph.names.index(name) for name in chain]
    for places, ends in ((settling.to_x, (first.x, last.x)), (settling.to_y, (first.y, last.y))):
        assert (places[order[0]], places[order[-1]]) == ends
        assert (np.diff(places[order]) >= -1e-6).all()
    # As short as wires between the two can be, but for what the last pull has kept.
    shortest = last.x - first.x + last.y - first.y
    assert graph.wires(settling.to_x, settling.to_y) == pytest.approx(shortest, abs=0.5)


def test_a_floorplan_is_made_by_one_thread(monkeypatch: pytest.MonkeyPatch):
    def look(*_: object) -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    monkeypatch.setattr(plan, "_plan_alone", look)
    assert plan._plan(Graph({}), small_fabric(), 1) == {1}


def test_of_several_floorplans_that_with_the_shortest_wires_is_taken():
    cells = mesh(4, 4)
    graph = Graph(cells)
    made = [plan._plan(graph, LFE5U_85F, seed) for seed in (1, 2, 3)]
    wires = [length for length, _ in made]
    assert wires.index(min(wires)) > 0, "were the first one the best, this would test nothing"
    for beginnings in (1, 3):
        _, chosen = min(made[:beginnings], key=lambda one: one[0])
        expected = {graph.names[cell]: site.bel for cell, site in chosen.items()}
        assert floorplan(cells, LFE5U_85F, beginnings) == expected


def test_an_earlier_floorplan_is_kept_and_completed():
    cells = mesh(4, 4)
    sites = floorplan(cells, LFE5U_85F)
    places = {site.bel: (site.x, site.y) for site in LFE5U_85F.sites[DSP]}
    earlier = dict(zip(sites, reversed(sites.values()), strict=True))
    assert floorplan(cells, LFE5U_85F, earlier=earlier | {"gone": "X9/Y9"}) == earlier
    # One of sixteen is new: it comes near its neighbours, and hardly any other one moves.
    known = {name: site for name, site in sites.items() if name != "m1_1"}
    completed = floorplan(cells, LFE5U_85F, earlier=known)
    assert set(completed) == set(cells) & set(sites)
    assert len(set(completed.values())) == len(completed)
    assert sum(completed[name] != site for name, site in known.items()) <= 3
    distances = [
        abs(places[completed["m1_1"]][axis] - places[completed[name]][axis])
        for name in ("m0_1", "m1_0", "m2_1", "m1_2")
        for axis in (0, 1)
    ]
    assert sum(distances) / 4 < 40


def test_a_floorplan_of_another_netlist_is_ignored():
    cells = mesh(4, 4)
    sites = floorplan(cells, LFE5U_85F)
    few = dict(list(zip(sites, reversed(sites.values()), strict=True))[:12])
    assert floorplan(cells, LFE5U_85F, earlier=few) == sites
    nowhere = dict.fromkeys(sites, "X1/Y1")
    assert floorplan(cells, LFE5U_85F, earlier=nowhere) == sites


def test_no_two_cells_have_the_same_known_site():
    cells = mesh(2, 2)
    sites = Sites(LFE5U_85F, Graph(cells))
    one = LFE5U_85F.sites[DSP][0]
    assert list(sites.known(dict.fromkeys(cells, one.bel)).values()) == [one]
    assert not sites.known(dict.fromkeys(cells, LFE5U_85F.sites[BLOCK_RAM][0].bel))


def test_the_wires_of_a_floorplan_end_at_its_sites():
    cells = mesh(1, 2)
    length, chosen = plan._plan(graph := Graph(cells), LFE5U_85F, 1)
    one, other = (chosen[graph.names.index(name)] for name in ("m0_0", "m0_1"))
    assert length >= abs(one.x - other.x) + abs(one.y - other.y)


def test_the_sites_stand_in_the_netlist_and_nothing_else_changes(tmp_path: Path):
    cells = mesh(2, 2)
    before = {"creator": "x", "modules": {"top": {"cells": cells}, "other": {"cells": {}}}}
    netlist, planned = tmp_path / "netlist.json", tmp_path / "planned.json"
    netlist.write_text(json.dumps(before))
    fix_blocks(netlist, planned, "top", LFE5U_85F)
    assert json.loads(netlist.read_text()) == before
    after = json.loads(planned.read_text())
    sites = {
        name: cell["attributes"].pop("BEL")
        for name, cell in after["modules"]["top"]["cells"].items()
        if "BEL" in cell["attributes"]
    }
    assert sites == floorplan(cells, LFE5U_85F, BEGINNINGS)
    assert after == before


def test_the_planned_netlist_is_made_once_and_leaves_the_other_one_alone(tmp_path: Path):
    cells = mesh(2, 2)
    text = json.dumps({"modules": {synthesis.TOP: {"cells": cells}}})
    (tmp_path / synthesis.NETLIST).write_text(text)
    (tmp_path / ULX3S_85F.family.constraints_file).write_text("pins")
    said: list[str] = []
    planned = synthesis._planned(ULX3S_85F, tmp_path, said.append)
    assert said == ["floorplan"]
    assert (tmp_path / synthesis.NETLIST).read_text() == text
    after = json.loads((planned / synthesis.NETLIST).read_text())["modules"][synthesis.TOP]["cells"]
    sites = {name: cell["attributes"]["BEL"] for name, cell in after.items() if cell["type"] == DSP}
    assert sites == floorplan(cells, LFE5U_85F, BEGINNINGS)
    assert (planned / ULX3S_85F.family.constraints_file).read_text() == "pins"
    assert synthesis._planned(ULX3S_85F, tmp_path, said.append) == planned
    assert said == ["floorplan"]
    assert synthesis._planned(ICEBREAKER, tmp_path, said.append) == tmp_path


def test_nextpnr_has_every_site(tmp_path: Path):
    cells = {
        site.bel: {"type": kind, "attributes": {"BEL": site.bel}, "port_directions": {}, "connections": {}}
        for kind, sites in LFE5U_85F.sites.items()
        for site in sites
    }
    assert Counter(cell["type"] for cell in cells.values()) == {DSP: 156, BLOCK_RAM: 208}
    (tmp_path / "netlist.json").write_text(
        json.dumps({"modules": {"top": {"attributes": {"top": "1"}, "ports": {}, "cells": cells, "netnames": {}}}})
    )
    placer = find_tool("nextpnr-ecp5")
    finished = subprocess.run(
        [*placer.command, *ULX3S_85F.place_arguments, "--json", "netlist.json", "--no-route"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert f"Placed {len(cells)} cells based on constraints" in finished.stderr + finished.stdout


def test_another_floorplanner_is_another_recipe():
    assert "def floorplan(" in recipe_of_floorplan()
    assert "def solve(" in recipe_of_floorplan()
