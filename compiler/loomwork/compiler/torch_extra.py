# SPDX-License-Identifier: Apache-2.0
"""Packages that only some uses of the compiler need, and what to say where they are not installed."""

from importlib.util import find_spec

from loomwork.compiler.graph import CompileError


def require_torch(*others: str) -> None:
    """Find out whether PyTorch is there, and other packages by the names they are imported by.

    Raises CompileError that says what to install. Nothing is imported: it takes seconds, and is the caller's business.
    """
    _require("PyTorch modules", "torch", *others)


def require_onnx() -> None:
    """Find out whether onnx is there; raises CompileError that says what to install."""
    _require("ONNX models", "onnx")


def _require(what: str, *names: str) -> None:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise CompileError(f"{what} need {' and '.join(missing)}, not installed here: pip install 'loomwork[torch]'")
