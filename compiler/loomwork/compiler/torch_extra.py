# SPDX-License-Identifier: Apache-2.0
"""What of Loomwork needs PyTorch, and what to say where it is not installed."""

from importlib.util import find_spec

from loomwork.compiler.graph import CompileError


def require_torch(*others: str) -> None:
    """Find out whether PyTorch is there, and other packages by the names they are imported by.

    Raises CompileError that says what to install. Nothing is imported: it takes seconds, and is the caller's business.
    """
    missing = [name for name in ("torch", *others) if find_spec(name) is None]
    if missing:
        raise CompileError(
            f"PyTorch modules need {' and '.join(missing)}, not installed here: pip install 'loomwork[torch]'"
        )
