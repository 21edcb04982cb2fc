# SPDX-License-Identifier: Apache-2.0
"""Where the cycles above the bound went, as far as the performance counters tell."""

from collections.abc import Mapping

PARTIAL = "unused rows and columns of the array"
WEIGHTS = "waiting for weights"
ACCUMULATORS = "waiting for the drain to free accumulators"
TICKETS = "waiting for a load or the layer before"
NO_WORK = "start, end and layers without weights"
REFILL = "refilling the array between passes and commands"


def lost_cycles(counters: Mapping[str, int], *, array_bound: int, bound: int) -> dict[str, int]:
    """Cycles above the bound by cause; they add up to `cycles - bound`, and only PARTIAL or WEIGHTS can be negative.

    counters: of one image, by name (arch.registers.COUNTERS). array_bound: cycles of a full array. bound: the larger of
    that and the cycles in which the weights pass the bus; where it is the latter, waiting for weights is what the bound
    consists of, and what the array does besides takes nothing away from it.

    A unit's command may wait for its ticket while the one before still runs, so that tickets are blamed for no more
    than the cycles in which EXECUTE runs no command.
    """
    cycles, active = counters["cycles"], counters["array_active"]
    weights, accumulators = counters["execute_wait_weights"], counters["execute_wait_accumulator"]
    idle_array = cycles - active - weights - accumulators
    # The last pixels of a command enter the array when EXECUTE has no command any more: they are no idle cycles.
    idle = min(idle_array, cycles - counters["execute_busy"])
    tickets = min(idle, counters["execute_wait_ticket"])
    by_weights = bound > array_bound
    return {
        PARTIAL: 0 if by_weights else active - bound,
        WEIGHTS: weights + (active - bound if by_weights else 0),
        ACCUMULATORS: accumulators,
        TICKETS: tickets,
        NO_WORK: idle - tickets,
        REFILL: idle_array - idle,
    }


def largest(lost: Mapping[str, int], count: int = 3) -> list[dict[str, str | int]]:
    """The causes that cost most, the largest first; those that cost nothing are left out."""
    ordered = sorted(lost.items(), key=lambda item: -item[1])
    return [{"cause": cause, "cycles": cycles} for cause, cycles in ordered[:count] if cycles > 0]
