# SPDX-License-Identifier: Apache-2.0
"""Writing files so that a failure leaves nothing half-written, and talking to the user."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDE = 160
"""Columns of output that goes to a file or a pipe, and from which on a table has room for lines around its cells."""

# Names of tensors and files may look like rich's markup or like an emoji code, and are printed as they are.
console = Console(
    highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE
)
"""Results, on standard output."""
status = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
"""Progress and errors, on standard error."""


class UsageError(ValueError):
    """A mistake in how a command was called; one sentence for the user."""


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal allows. Numbers (right-justified columns) are never cut, names may be."""
    for column in table.columns:
        column.no_wrap = column.justify == "right"
    if console.width < _WIDE:
        table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)
    console.print(table)


def check_destination(*paths: Path | None, inputs: Sequence[Path] = ()) -> None:
    """Find out before long work whether files can be written there; None is passed over.

    inputs: files that are read and must survive. Raises UsageError when a path is a folder, lies in a folder that does
    not exist or cannot be written, is one of the inputs, or is the same file as another path, however it is spelled.
    """
    outputs = [path for path in paths if path is not None]
    for path in outputs:
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder")
        if not path.parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK):
            raise UsageError(f"cannot write {path}: the folder {path.parent} is read-only")
        if any(_same_file(path, source) for source in inputs):
            raise UsageError(f"cannot write {path}: it is the same file as an input, which would be lost")
    for first, second in combinations(outputs, 2):
        if _same_file(first, second):
            raise UsageError(f"cannot write {first} and {second}: two results need two files")


def _same_file(first: Path, second: Path) -> bool:
    """Whether writing one changes the other; a device or a pipe is no file, and takes any number of writes."""
    if not (first.exists() and second.exists()):
        return os.path.realpath(first) == os.path.realpath(second)
    return first.is_file() and first.samefile(second)


def make_folder(path: Path) -> None:
    """Make a folder with those above it, unless it is there. Raises UsageError when a file is in the way."""
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            where = "it" if folder == path else folder
            raise UsageError(f"cannot write into {path}: {where} is not a folder")
    path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all: under another name first, then renamed.

    Raises UsageError when it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    check_destination(path)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a pipe, such as /dev/stdout, which must not be replaced
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(0o666 & ~mask)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write_file(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
