# SPDX-License-Identifier: Apache-2.0
"""What the accelerator asks of an operator: conditions that each carry their sentence.

The same sentence is the reason in the compile report, when an operator stays on the host, and a line of
docs/reference/operators.md.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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


def render_page(title: str, operators: Sequence[Supported[Op]], free: Sequence[str], host: Iterable[str]) -> str:
    """The reference page of an importer, in Markdown. free: operators that cost nothing. host: those of the host."""
    lines = [
        f"# {title}",
        "",
        "Generated from the compiler's own conditions; an operator that does not meet one stays on the host, and the",
        "compile report gives the sentence below as the reason.",
        "",
        "## On the accelerator",
    ]
    for operator in operators:
        lines += ["", f"### {operator.code}", "", f"Becomes {operator.layers}. Needs:", ""]
        lines += [f"- {condition.phrase}" for condition in operator.constraints]
    lines += [
        "",
        "## Free",
        "",
        f"{', '.join(free)}: the bytes stay as they are. Where the rows of an image change, the tensor passes through",
        "external memory, between two accelerator steps.",
        "",
        "## On the host",
        "",
        "Executed by tflite-micro, in the same run:",
        "",
        f"{', '.join(sorted(host))}.",
        "",
        "Every operator above that does not meet its conditions joins them. A model that holds any other operator is",
        "refused, and so is one of which no operator runs on the accelerator.",
        "",
    ]
    return "\n".join(lines)
