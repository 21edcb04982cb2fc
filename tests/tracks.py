# SPDX-License-Identifier: Apache-2.0
"""What the Trace Event Format asks of complete events, checked on a trace."""

from collections import defaultdict
from itertools import pairwise
from typing import Any

Slice = tuple[int, int]


def overlapping(trace: dict[str, Any]) -> list[tuple[int, Slice, Slice]]:
    """Slices `(start, end)` that overlap on one track (`tid`): viewers draw them wrong, or drop them."""
    tracks: dict[int, list[Slice]] = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            tracks[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    return [
        (tid, before, after)
        for tid, spans in tracks.items()
        for before, after in pairwise(sorted(spans))
        if after[0] < before[1]
    ]
