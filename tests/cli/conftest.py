# SPDX-License-Identifier: Apache-2.0
"""The command line, called in this process, and files to call it with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.program_file import write_program
from loomwork.cli import main
from tests.programs import copy_program, network, quantize_copy_program, two_input_program


@dataclass(frozen=True)
class Finished:
    """A command that is over: exit code, and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def loomwork(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Call `loomwork` with arguments; anything but an orderly exit fails the test."""
    monkeypatch.setenv("COLUMNS", "200")  # for the text of typer's own errors
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: object) -> Finished:
        monkeypatch.setattr("sys.argv", ["loomwork", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main.main()
        out, err = capsys.readouterr()
        return Finished(int(exit_.value.code or 0), out, err)

    return call


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with good inputs: programs made by hand, their inputs, and a small network.

    copy.lwb: int8 x [1, 3, 5, 1] to y. real.lwb: the same from float32 `real`. two.lwb: a to c and b to d.
    """
    monkeypatch.chdir(tmp_path)
    for name, program in (("copy", copy_program()), ("real", quantize_copy_program()), ("two", two_input_program())):
        (tmp_path / f"{name}.lwb").write_bytes(write_program(program))
    images = np.arange(-45, 45, dtype=np.int8).reshape(6, 3, 5, 1)
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "two.npz", a=images[:3], b=images[3:])
    (tmp_path / "net.tflite").write_bytes(network())
    return tmp_path
