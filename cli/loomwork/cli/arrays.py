# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of `loomwork run` as NumPy files."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from loomwork.cli.output import UsageError, write_file

Array = NDArray[np.generic]

SUFFIXES = (".npy", ".npz")
_MAGICS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of an array, of an archive of arrays and of an empty archive."""


def check_suffix(path: Path) -> None:
    """Raises UsageError unless the path ends as a NumPy file does."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} must be a .npy or .npz file")


def load_arrays(path: Path, names: Sequence[str], *, of: str = "program") -> dict[str, Array]:
    """Read `.npy` (one input) or `.npz` (by tensor name).

    names: of the inputs. of: what has them. Raises UsageError with what was expected, OSError when the file cannot be
    read.
    """
    check_suffix(path)
    with path.open("rb") as file:
        start = file.read(6)
        if not start.startswith(_MAGICS):
            raise UsageError(f"{path} is not a NumPy file: it begins with the bytes {start.hex(' ') or '(none)'}")
        file.seek(0)
        try:
            loaded = _load(file)
        except Exception as error:  # a damaged file makes NumPy and zipfile raise almost anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"{path} cannot be read as a NumPy file: {reason}") from None
    if isinstance(loaded, dict):
        return loaded
    if len(names) != 1:
        raise UsageError(f"the {of} has inputs {', '.join(names)}: give them by name in a .npz file, not in {path}")
    return {names[0]: loaded}


def _load(file: BinaryIO) -> Array | dict[str, Array]:
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `.npy` (the one output) or `.npz` (by tensor name), whole or not at all."""
    check_suffix(path)
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        (array,) = arrays.values()
        np.save(buffer, array, allow_pickle=False)
    else:
        # `np.savez` takes names as keywords, some of which mean something else to it.
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    write_file(path, buffer.getvalue())
