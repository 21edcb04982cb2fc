# SPDX-License-Identifier: Apache-2.0
"""The order of commands: layer by layer, inputs loaded just before their use, outputs stored just behind."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from loomwork.arch.command import Command
from loomwork.arch.isa import Window
from loomwork.arch.program import Placement
from loomwork.compiler.allocate import Allocation
from loomwork.compiler.task import Task

SETTINGS = ("REQUANT", "COMBINE")


def schedule(
    layers: Sequence[Sequence[Task]],
    allocation: Allocation,
    inputs: Sequence[Placement],
    outputs: Sequence[Placement],
) -> list[Task]:
    """Put the tasks of all layers into program order, with LOAD, STORE and END.

    Rows of an input are loaded one tile ahead of the task that needs them; rows of an output are stored when the last
    task that writes them has been issued.
    """
    tasks: list[Task] = []
    sources = {placement.tensor: placement for placement in inputs}
    targets = {placement.tensor: placement for placement in outputs}
    loaded = dict.fromkeys(sources, 0)
    for layer in layers:
        for task, ahead in _with_next_reader(layer):
            for region in (*task.reads, *ahead.reads):
                start = loaded.get(region.map, region.end_row)
                if start < region.end_row:
                    tasks.append(_load(sources[region.map], start, region.end_row, allocation, task.layer))
                    loaded[region.map] = region.end_row
            tasks.append(task)
        for name in sorted({region.map for task in layer for region in task.writes} & targets.keys()):
            _insert_stores(tasks, targets[name], allocation)
    return [*_without_repeated_settings(tasks), Task(command=Command("END"), layer=len(layers) - 1)]


def _with_next_reader(layer: Sequence[Task]) -> Iterator[tuple[Task, Task]]:
    """Each task with the next one that reads the scratchpad (itself at the end)."""
    ahead = layer[-1]
    pairs: list[tuple[Task, Task]] = []
    for task in reversed(layer):
        pairs.append((task, ahead))
        if task.reads:
            ahead = task
    return reversed(pairs)


def _insert_stores(tasks: list[Task], placement: Placement, allocation: Allocation) -> None:
    """Behind the last task that writes some rows of an output, store them."""
    last_writer: dict[int, int] = {}
    for position, task in enumerate(tasks):
        for region in task.writes:
            if region.map == placement.tensor:
                last_writer.update(dict.fromkeys(range(region.row, region.end_row), position))
    starts = [0, *(row for row in range(1, placement.rows) if last_writer[row] != last_writer[row - 1]), placement.rows]
    # From the back, so that positions in front stay what they are.
    chunks = sorted(pairwise(starts), key=lambda chunk: last_writer[chunk[0]], reverse=True)
    for start, end in chunks:
        position = last_writer[start]
        tasks.insert(position + 1, _store(placement, start, end, allocation, tasks[position].layer))


def _load(placement: Placement, start: int, end: int, allocation: Allocation, layer: int) -> Task:
    command = _transfer("LOAD", Window.INPUTS, placement, start, end, allocation)
    return Task(command=command, layer=layer, writes=(allocation.region(placement.tensor, start, end - start),))


def _store(placement: Placement, start: int, end: int, allocation: Allocation, layer: int) -> Task:
    command = _transfer("STORE", Window.OUTPUTS, placement, start, end, allocation)
    return Task(command=command, layer=layer, reads=(allocation.region(placement.tensor, start, end - start),))


def _transfer(
    mnemonic: str, window: Window, placement: Placement, start: int, end: int, allocation: Allocation
) -> Command:
    pitch = allocation.pitch(placement.tensor)
    return Command(
        mnemonic,
        {
            "window": window,
            "offset": placement.offset + start * placement.row_stride,
            "row_stride": placement.row_stride,
            "base": allocation.base[placement.tensor],
            "pitch": pitch,
            "row": start,
            "rows": end - start,
            "words": pitch,
        },
    )


def _without_repeated_settings(tasks: Sequence[Task]) -> Iterator[Task]:
    """Leave out a REQUANT or COMBINE that sets what is already set."""
    current: dict[str, Command] = {}
    for task in tasks:
        if task.command.mnemonic in SETTINGS:
            if current.get(task.command.mnemonic) == task.command:
                continue
            current[task.command.mnemonic] = task.command
        yield task
