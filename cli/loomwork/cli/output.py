"""Writing files so that a failure leaves nothing half-written, and talking to the user."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
"""Results, on standard output."""
status = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and errors, on standard error."""


class UsageError(ValueError):
    """A mistake in how a command was called; one sentence for the user."""


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all: under another name first, then renamed.

    Raises UsageError when the folder does not exist, OSError when it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write_file(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
