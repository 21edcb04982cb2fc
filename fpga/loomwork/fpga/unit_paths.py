# SPDX-License-Identifier: Apache-2.0
"""The slowest path between each two units, from the delays that the placer writes as SDF (IEEE 1497).

nextpnr itself names one critical path. When that one is cut the next one limits, so that who wants a faster clock has
to know how many there are, and where.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

NEAR = 0.8
"""A path is near the slowest one when it takes at least this part of its time."""

# Of the rising edge, for which nextpnr writes the same as for the falling one.
_DELAY = r"\((?:-?\d+:-?\d+:)?(-?\d+)\)"  # (minimum:typical:maximum) in ps, or one number
_EDGE = r"(?:\((?:posedge|negedge) (\S+)\)|(\S+))"
_INSTANCE = re.compile(r"\(INSTANCE (\S*)\)")
_WIRE = re.compile(rf"\(INTERCONNECT (\S+) (\S+) {_DELAY}")
_CELL = re.compile(rf"\(IOPATH {_EDGE} (\S+) {_DELAY}")
_CHECK = re.compile(rf"\(SETUPHOLD {_EDGE} \((?:posedge|negedge) \S+\) {_DELAY}")


@dataclass(frozen=True, kw_only=True)
class UnitPath:
    """The slowest path from the registers of one unit to those of another one, or of the same.

    delay: ns, setup time included. ends: registers of `to_unit` whose slowest path comes from `from_unit` and is
    NEAR that of all. start, end: names of cells.
    """

    from_unit: str
    to_unit: str
    delay: float
    ends: int
    start: str
    end: str


class _Network:
    """Pins and what lies between them. Times in ps, the longest ones of SDF."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.onward: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.launched: dict[str, int] = {}  # outputs of registers: the time after the clock
        self.setup: dict[str, int] = {}  # inputs of registers
        clocks: set[str] = set()
        arcs: list[tuple[str, str, int]] = []
        instance = ""
        for line in lines:
            if found := _WIRE.search(line):
                self.onward[found[1]].append((found[2], int(found[3])))
            elif found := _CELL.search(line):
                source, target = f"{instance}/{found[1] or found[2]}", f"{instance}/{found[3]}"
                arcs.append((source, target, int(found[4])))
                if found[1]:
                    clocks.add(source)
            elif found := _CHECK.search(line):
                pin = f"{instance}/{found[1] or found[2]}"
                self.setup[pin] = max(int(found[3]), self.setup.get(pin, 0))
            elif found := _INSTANCE.search(line):
                instance = found[1]
        for source, target, delay in arcs:
            # The clocks of block RAM come without an edge.
            if source in clocks or source.rsplit("/", 1)[1].startswith("CLK"):
                self.launched[target] = max(delay, self.launched.get(target, 0))
            else:
                self.onward[source].append((target, delay))

    def arrivals(self) -> tuple[dict[str, int], dict[str, str]]:
        """When the last change reaches each pin behind a register, and which pin it comes from."""
        waits: dict[str, int] = defaultdict(int)
        for targets in self.onward.values():
            for target, _ in targets:
                waits[target] += 1
        times, before = dict(self.launched), dict[str, str]()
        ready = [pin for pin in {*self.onward, *self.launched} if not waits[pin]]
        while ready:
            pin = ready.pop()
            for target, delay in self.onward.get(pin, ()):
                if pin in times and times[pin] + delay > times.get(target, -1):
                    times[target] = times[pin] + delay
                    before[target] = pin
                waits[target] -= 1
                if not waits[target]:
                    ready.append(target)
        return times, before


def unit_paths(lines: Iterable[str], unit_of: Callable[[str], str]) -> list[UnitPath]:
    """The slowest path between each two units that any leads between, the slowest first.

    lines: of an SDF file. unit_of: the unit of a cell.
    """
    network = _Network(lines)
    times, before = network.arrivals()
    ends = sorted(((times[pin] + setup, pin) for pin, setup in network.setup.items() if pin in times), reverse=True)
    near = NEAR * ends[0][0] if ends else 0.0
    slowest: dict[tuple[str, str], tuple[int, str, str]] = {}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for delay, pin in ends:
        start = pin
        while start in before:
            start = before[start]
        first, last = (one.rsplit("/", 1)[0].replace("\\", "") for one in (start, pin))
        pair = unit_of(first), unit_of(last)
        slowest.setdefault(pair, (delay, first, last))
        counts[pair] += delay >= near
    return [
        UnitPath(from_unit=pair[0], to_unit=pair[1], delay=delay / 1000, ends=counts[pair], start=start, end=end)
        for pair, (delay, start, end) in sorted(slowest.items(), key=lambda item: -item[1][0])
    ]
