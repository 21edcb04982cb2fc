# SPDX-License-Identifier: Apache-2.0
"""What the accelerator asks of an operator: conditions that each carry their sentence.

The same sentence is the reason in the compile report, when an operator stays on the host, and a line of
docs/reference/operators.md. The page of ONNX operators has the same form.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Generic, TypeVar

Op = TypeVar("Op")


@dataclass(frozen=True)
class Constraint(Generic[Op]):
    """One condition. phrase: what the accelerator needs. check: what is the case instead, None when it is met."""

    phrase: str
    check: Callable[[Op], str | None]


def constraint(phrase: str) -> Callable[[Callable[[Op], str | None]], Constraint[Op]]:
    """Decorator that makes a `Constraint` of its check."""
    return lambda check: Constraint(phrase, check)


def violation(constraints: Iterable[Constraint[Op]], operator: Op) -> str | None:
    """Why the operator stays on the host: the first condition it does not meet, None when it meets all."""
    for condition in constraints:
        found = condition.check(operator)
        if found is not None:
            return f"{found}; the accelerator needs {condition.phrase}"
    return None


@dataclass(frozen=True)
class Supported(Generic[Op]):
    """One kind of operator that the accelerator executes. layers: what becomes of it."""

    code: str
    layers: str
    constraints: Sequence[Constraint[Op]]


def paragraph(text: str) -> list[str]:
    """Lines of a page."""
    return wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def render_page(
    title: str,
    operators: Iterable[tuple[str, str, Sequence[str]]],
    *,
    always: Sequence[str] = (),
    free: Sequence[str],
    host: Sequence[str],
) -> str:
    """The reference page of an importer, in Markdown.

    operators: name, what becomes of it, and what it needs. always, free, host: lines about what every operator needs,
    about operators that cost nothing, and about those of the host.
    """
    lines = [
        f"# {title}",
        "",
        "Generated from the compiler's own conditions; an operator that does not meet one stays on the host, and the",
        "compile report gives the sentence below as the reason.",
        "",
        "## On the accelerator",
        *(["", *always] if always else []),
    ]
    for name, layers, needs in operators:
        lines += ["", f"### {name}", "", f"Becomes {layers}.{' Needs:' if needs else ''}"]
        lines += ["", *(f"- {phrase}" for phrase in needs)] if needs else []
    return "\n".join([*lines, "", "## Free", "", *free, "", "## On the host", "", *host, ""])
