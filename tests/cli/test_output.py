# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from loomwork.cli import output
from loomwork.cli.output import UsageError, check_destination, print_table, write_file, write_json


def test_text_and_bytes_are_written(tmp_path: Path):
    write_file(tmp_path / "a", "größe\n")
    write_file(tmp_path / "b", b"\0\xff")
    assert (tmp_path / "a").read_bytes() == "größe\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\0\xff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_json_is_readable_by_people_and_machines(tmp_path: Path):
    write_json(tmp_path / "a.json", {"z": [1, 2.5], "a": None})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"z": [1, 2.5], "a": None}
    assert text.startswith('{\n  "z"')
    assert text.endswith("}\n")


def test_an_existing_file_is_replaced(tmp_path: Path):
    (tmp_path / "a").write_text("old and longer")
    write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_permissions_are_those_of_any_new_file(tmp_path: Path):
    mask = os.umask(0o027)
    try:
        write_file(tmp_path / "a", "x")
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["chmod", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "/some/temporary/name")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(UsageError, match=f"^cannot write {tmp_path}/a: No space left on device$"):
        write_file(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_symbolic_link_stays_one(tmp_path: Path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(tmp_path / "pipe", "through the pipe")
        assert os.read(reader, 100) == b"through the pipe"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(UsageError, match=r"^cannot write /dev/full: No space left on device$"):
        write_file(Path("/dev/full"), "x")


def test_destinations_are_checked_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_destination(tmp_path / "a", None)
    with pytest.raises(UsageError, match=f"^cannot write {tmp_path}: it is a folder$"):
        check_destination(None, tmp_path)
    with pytest.raises(UsageError, match=f"^cannot write {tmp_path}/b/c: there is no folder {tmp_path}/b$"):
        check_destination(tmp_path / "a", tmp_path / "b" / "c")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"^cannot write {tmp_path}/a: the folder {tmp_path} is read-only$"):
        check_destination(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_no_output_may_be_an_input_or_another_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("precious")
    Path("folder").mkdir()
    Path("link").symlink_to("a")
    Path("later").symlink_to("new")
    Path("hard").hardlink_to("a")
    for name in ("a", "folder/../a", "link", "hard", tmp_path / "a"):
        with pytest.raises(UsageError, match=f"^cannot write {name}: it is the same file as an input, "):
            check_destination(Path("new"), Path(name), inputs=[Path("none"), Path("a")])
    for names in (("new", "new"), ("new", "folder/../new"), ("later", "new"), ("a", "link"), ("x", "new", "later")):
        with pytest.raises(UsageError, match=f"^cannot write {names[-2]} and {names[-1]}: two results need two files$"):
            check_destination(*map(Path, names))
    check_destination(Path("new"), Path("newer"), None, None, inputs=[Path("a")])
    check_destination(Path("/dev/null"), Path("/dev/null"), inputs=[Path("/dev/null")])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_shorten_names_and_never_numbers(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(output, "console", Console(width=width, soft_wrap=True))
    table = Table("layer")
    table.add_column("cycles", justify="right")
    table.add_row("a name that is " + "very " * 30 + "long", "1,234,567,890,123")
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert any("1,234,567,890,123" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_what_is_not_a_terminal_gets_wide_lines():
    code = "from loomwork.cli.output import console; print(console.width)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "160\n"
