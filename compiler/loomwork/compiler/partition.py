# SPDX-License-Identifier: Apache-2.0
"""Dividing a network between accelerator and host, in as few parts as a greedy order finds.

Any order in which each operator follows those it reads from computes the same. So all operators of one side that can
run are taken before the other side has its turn: a branch left to the host does not cut the accelerator's work in two.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from loomwork.compiler.graph import CompileError

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Node(Generic[Item]):
    """One operator to be placed. reads, writes: identities of tensors, constants left out."""

    item: Item
    reads: frozenset[int]
    writes: frozenset[int]
    accelerated: bool


@dataclass(eq=False)
class Group(Generic[Item]):
    """Operators that become one part, in order of execution."""

    accelerated: bool
    nodes: list[Node[Item]] = field(default_factory=list[Node[Item]])

    @property
    def reads(self) -> list[int]:
        """Tensors that come from outside, in order of use."""
        written = {tensor for node in self.nodes for tensor in node.writes}
        return list(dict.fromkeys(t for node in self.nodes for t in sorted(node.reads) if t not in written))

    @property
    def writes(self) -> list[int]:
        """Tensors it computes, in order."""
        return [tensor for node in self.nodes for tensor in sorted(node.writes)]


Admission = Callable[[Item], bool]


def divide(
    nodes: Sequence[Node[Item]], available: Collection[int], new_admission: Callable[[], Admission[Item]]
) -> list[Group[Item]]:
    """Group nodes into parts.

    nodes: in an order in which they could run. available: tensors that are there from the start. new_admission: called
    once per accelerator group; what it returns is asked for each operator whether it can join the group, and notes that
    it did. Of a new group, it must take the first. Raises CompileError when operators wait for each other.
    """
    attempts = [_divide(nodes, available, new_admission, first) for first in (True, False)]
    return min(attempts, key=len)


def _divide(
    nodes: Sequence[Node[Item]],
    available: Collection[int],
    new_admission: Callable[[], Admission[Item]],
    accelerated: bool,
) -> list[Group[Item]]:
    present, waiting = set(available), list(nodes)
    groups: list[Group[Item]] = []
    turns_without_work = 0
    while waiting:
        group = Group[Item](accelerated)
        admission = new_admission() if accelerated else None
        # Nodes are in a possible order, so that one sweep finds everything that can run, unless a node was turned away.
        rest: list[Node[Item]] = []
        for node in waiting:
            ready = node.accelerated == accelerated and node.reads <= present
            if ready and (admission is None or admission(node.item)):
                group.nodes.append(node)
                present |= node.writes
            else:
                rest.append(node)
        waiting = rest
        if group.nodes:
            groups.append(group)
            turns_without_work = 0
        else:
            turns_without_work += 1
            if turns_without_work == 2:
                raise CompileError("the model's operators wait for each other's results")
        accelerated = not accelerated
    return groups
