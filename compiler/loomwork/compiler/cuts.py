# SPDX-License-Identifier: Apache-2.0
"""Where layers are cut into pieces, by a cost model and a beam search.

A layer's first piece can begin when the rows it needs have left the drain. If these are all rows of the layer before,
the array waits for the last of them; if they come from all but its last piece, the array goes on without a pause while
that one is drained. Many pieces, on the other hand, read the weights many times. The search follows array and drain
through the network, layer by layer, tries a few ways to cut each, and keeps the few that are ahead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from loomwork.arch.config import Config
from loomwork.compiler.bands import pieces
from loomwork.compiler.storage import Storage
from loomwork.compiler.tiling import balanced
from loomwork.compiler.work import Effort, Rows, Work

BEAM = 6
"""Ways to have cut the layers so far that are followed."""

START_CYCLES = 60
"""From `start` to the first command."""
BEGIN_CYCLES = 24
"""From the ticket of an EXECUTE command to its first pixel in the array."""
DRAIN_CYCLES = 36
"""From the launch of a step of the drain to its bytes in the scratchpad, and to the ticket."""
EXTERNAL_CYCLES = 160
"""From a row in the scratchpad to the same row back from external memory."""


@dataclass(frozen=True)
class _Arrival:
    """Rows up to `row` of a map are there at `time`."""

    row: int
    time: float


@dataclass(frozen=True)
class _State:
    """A way to have cut the layers so far, and when its parts are done.

    array, drain: when the unit is free. streamed: cycles of the bus for weights. maps: arrivals of the rows of each
    map, in order.
    """

    cuts: tuple[tuple[Rows, ...], ...]
    array: float
    drain: float
    streamed: int
    maps: dict[str, tuple[_Arrival, ...]]

    @property
    def rank(self) -> tuple[float, int]:
        """The less, the better: when the results are there and the array is free; of equals, the fewest bytes."""
        return self.array + self.drain, self.streamed


def choose_cuts(works: Sequence[Work], storage: Storage, inputs: Sequence[str], config: Config) -> list[list[Rows]]:
    """The pieces of each layer, in order. inputs: maps that are loaded."""
    states = [_State((), START_CYCLES, START_CYCLES, 0, {})]
    for work in works:
        found: dict[tuple[tuple[Rows, ...], ...], _State] = {}
        for state in states:
            for cut in _candidates(work, storage, state):
                following = _after(work, cut, state, storage, inputs, config)
                found.setdefault(following.cuts, following)
        states = sorted(found.values(), key=lambda state: state.rank)[:BEAM]
    return [list(cut) for cut in states[0].cuts]


def _candidates(work: Work, storage: Storage, state: _State) -> Iterator[tuple[Rows, ...]]:
    """Some ways to cut a layer."""
    if work.index in storage.piece_rows:
        yield tuple(pieces(work.height, storage.piece_rows[work.index]))
        return
    fewest = ceil(work.height / work.max_rows)
    for count in dict.fromkeys((fewest, fewest + 1, fewest + 2, 2 * fewest, 4 * fewest)):
        if count <= work.height:
            yield tuple(Rows(first, first + size) for first, size in balanced(work.height, ceil(work.height / count)))
    yield from _aligned(work, state)


def _aligned(work: Work, state: _State) -> Iterator[tuple[Rows, ...]]:
    """Cuts where a piece of the layer before ends: each piece needs whole pieces of it, and one less than there are."""
    ends: set[int] = set()
    for name in work.needs(Rows(0, work.height)):
        for arrival in state.maps.get(name, ())[:-1]:
            end = 0
            while end < work.height and _last_row(work, name, end + 1) <= arrival.row:
                end += 1
            ends.add(end)
    ends -= {0, work.height}
    if not ends:
        return
    for chosen in ([*sorted(ends)], [max(ends)]):
        yield tuple(
            Rows(first + start, first + start + size)
            for first, end in pairwise([0, *chosen, work.height])
            for start, size in balanced(end - first, work.max_rows)
        )


def _last_row(work: Work, name: str, end: int) -> int:
    need = work.needs(Rows(0, end)).get(name)
    return need.end if need else 0


def _after(
    work: Work, cut: tuple[Rows, ...], state: _State, storage: Storage, inputs: Sequence[str], config: Config
) -> _State:
    """The state when a layer, cut like this, has been done."""
    array, drain, streamed = state.array, state.drain, state.streamed
    output = work.maps[work.layer.output]
    # Of a map that comes in parts, the latest one has the last word.
    first_row = output.part.row if output.part else 0
    arrivals: list[_Arrival] = []
    efforts: dict[int, Effort] = {}
    for rows in cut:
        size = rows.end - rows.first
        effort = efforts.setdefault(size, work.effort(rows)) if size not in efforts else efforts[size]
        streamed += effort.stream
        ready = 0.0
        for name, need in work.needs(rows).items():
            ready = max(ready, _arrival(work, name, need.end, state, inputs, config))
        if effort.array:
            begin = max(array, ready + BEGIN_CYCLES)
            array = begin + max(effort.array, effort.stream)
            latency = 2 * config.rows + config.cols
            drain = max(array + latency + effort.tail, max(drain, begin + latency) + effort.drain)
            # The array is ahead of the drain by no more than two accumulator halves.
            array = max(array, drain - 2 * effort.tail - latency)
        else:
            drain = max(drain, ready) + DRAIN_CYCLES + effort.drain
        external = 0 if output.name in storage.whole else EXTERNAL_CYCLES
        arrivals.append(_Arrival(first_row + rows.end, drain + DRAIN_CYCLES + external))
    return replace(
        state,
        cuts=(*state.cuts, cut),
        array=array,
        drain=drain,
        streamed=streamed,
        maps={**state.maps, output.whole: tuple(arrivals)},
    )


def _arrival(work: Work, name: str, end: int, state: _State, inputs: Sequence[str], config: Config) -> float:
    """When the rows in front of `end` of a map are there."""
    feature_map = work.maps[name]
    if feature_map.part:
        name, end = feature_map.whole, feature_map.part.row + end
    if name in inputs and name not in state.maps:
        return START_CYCLES + end * ceil(work.maps[name].row_bytes / config.bus_bytes)
    return next((arrival.time for arrival in state.maps[name] if arrival.row >= end), 0.0)
