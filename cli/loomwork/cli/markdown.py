# SPDX-License-Identifier: Apache-2.0
"""Markdown that commands write as pages of the documentation."""

from collections.abc import Sequence


def grid(headings: Sequence[str], lines: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """A Markdown table; all columns but the first `names` are aligned to the right."""
    rule = ["---"] * names + ["---:"] * (len(headings) - names)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, rule, *lines))
