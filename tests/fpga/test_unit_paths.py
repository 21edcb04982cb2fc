# SPDX-License-Identifier: Apache-2.0
"""Slowest paths between units, of a network whose times can be added in one's head."""

from collections.abc import Iterator

from loomwork.fpga.unit_paths import UnitPath, unit_paths


def lines() -> Iterator[str]:
    """Registers of two units, 500 ps after the clock, 100 ps of setup; b/y also takes the slower way over the gate."""
    yield "(INTERCONNECT a/x/Q g/A (1000:1000:1000) (1000:1000:1000))"
    yield "(INTERCONNECT g/F b/y/DI (1000:1000:1000) (1000:1000:1000))"
    yield "(INTERCONNECT a/x/Q b/y/CE (1:1:1500) (1:1:1500))"
    yield "(INTERCONNECT a/x/Q b/z/DI (2700:2700:2700) (2700:2700:2700))"
    yield "(INTERCONNECT ram/DO a/x/DI (400:400:400) (400:400:400))"
    yield "(INSTANCE g)"
    yield "(IOPATH A F (250:250:250) (250:250:250))"
    for register in ("a/x", "b/y", "b/z"):
        yield f"(INSTANCE {register})"
        yield "(IOPATH (posedge CLK) Q (500:500:500) (500:500:500))"
        for pin in ("DI", "CE"):
            yield f"(SETUPHOLD (posedge {pin}) (posedge CLK) (100:100:100) (0:0:0))"
    yield "(INSTANCE ram)"
    yield "(IOPATH CLKB DO (2000:2000:2000) (2000:2000:2000))"


def test_the_slowest_path_of_each_pair_and_what_is_near_it() -> None:
    # From a/x: 0.5 + 2.7 + 0.1 to b/z, 0.5 + 1 + 0.25 + 1 + 0.1 over the gate, 0.5 + 1.5 + 0.1, which is not near.
    assert unit_paths(lines(), lambda cell: cell.split("/")[0]) == [
        UnitPath(from_unit="a", to_unit="b", delay=3.3, ends=2, start="a/x", end="b/z"),
        UnitPath(from_unit="ram", to_unit="a", delay=2.5, ends=0, start="ram", end="a/x"),
    ]


def test_nothing_leads_anywhere() -> None:
    assert unit_paths([], str) == []
