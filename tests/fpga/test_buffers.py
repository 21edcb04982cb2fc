# SPDX-License-Identifier: Apache-2.0
"""Buffer trees: nothing drives more than it may, and every cell still gets what it got."""

import copy
from typing import Any

import pytest

from loomwork.fpga.buffers import FANOUT, WEAK_FANOUT, add_buffers
from loomwork.fpga.liberty import Buffer

BUFFER = Buffer("BUF", "A", "Y", frozenset({"WEAK"}))


def cell(kind: str, output: str, **connections: list[int | str]) -> dict[str, Any]:
    directions = {pin: "output" if pin == output else "input" for pin in connections}
    return {"type": kind, "port_directions": directions, "connections": connections}


def module(loads: int) -> dict[str, Any]:
    """A flip-flop (net 3), a gate (net 4) and a port (net 5), each of which drives so many gates."""
    cells = {"reg": cell("DFF", "Q", C=[2], D=[4], Q=[3]), "gate": cell("INV", "Y", A=[3], Y=[4])}
    for number in range(loads):
        cells[f"load_{number}"] = cell("NAND4", "Y", A=[3], B=[4], C=[5], D=["1"], Y=[100 + number])
    ports = {"clk": {"direction": "input", "bits": [2]}, "i": {"direction": "input", "bits": [5]}}
    return {"ports": {**ports, "o": {"direction": "output", "bits": [3]}}, "cells": cells}


def source(cells: dict[str, Any], net: int) -> int:
    """The net that a net comes from, before the buffers."""
    above = {one["connections"]["Y"][0]: one["connections"]["A"][0] for one in cells.values() if one["type"] == "BUF"}
    while net in above:
        net = above[net]
    return net


def fanout(cells: dict[str, Any], net: int) -> int:
    return sum(
        bit == net
        for one in cells.values()
        for pin, bits in one["connections"].items()
        if one["port_directions"][pin] == "input"
        for bit in bits
    )


@pytest.mark.parametrize("loads", [0, FANOUT - 1, FANOUT, 5 * FANOUT, FANOUT**2 + 1])
def test_a_tree_keeps_every_connection_and_the_limit(loads):
    made = module(loads)
    before = copy.deepcopy(made)
    added = add_buffers(made, BUFFER, "clk")
    assert len(made["cells"]) == len(before["cells"]) + added
    assert made["ports"] == before["ports"]
    nets = {bits[0] for one in made["cells"].values() for bits in one["connections"].values()} - {"1"}
    for name, one in before["cells"].items():
        for pin, bits in one["connections"].items():
            assert [source(made["cells"], bit) for bit in made["cells"][name]["connections"][pin]] == bits
    assert all(fanout(made["cells"], net) <= FANOUT for net in nets)


def test_how_many_buffers_it_takes():
    # The port drives 17 gates, the flip-flop and the gate one more: two leaves each.
    assert add_buffers(module(FANOUT + 1), BUFFER, "clk") == 3 * 2
    # 257 and 258 gates: 17 leaves of 16, which are too many too: two above them.
    assert add_buffers(module(FANOUT**2 + 1), BUFFER, "clk") == 3 * (17 + 2)


def test_the_clock_is_left_alone():
    made = module(0)
    for number in range(FANOUT + 1):
        made["cells"][f"more_{number}"] = cell("DFF", "Q", C=[2], D=[5], Q=[200 + number])
    del made["ports"]["i"]
    assert add_buffers(made, BUFFER, "clk") == 0
    assert add_buffers(made, BUFFER, "other") == 2


@pytest.mark.parametrize(("loads", "kind"), [(WEAK_FANOUT, "WEAK"), (WEAK_FANOUT + 1, "BUF")])
def test_a_weak_buffer_that_drives_many_becomes_a_stronger_one(loads, kind):
    made = module(loads)
    made["cells"]["gate"]["type"] = "WEAK"
    made["cells"]["reg"]["connections"]["D"] = ["0"]
    assert add_buffers(made, BUFFER, "clk") == 0
    assert made["cells"]["gate"] == cell(kind, "Y", A=[3], Y=[4])
