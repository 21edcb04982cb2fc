# SPDX-License-Identifier: Apache-2.0
"""`loomwork package`: a folder with everything, or one sentence."""

import json
from pathlib import Path

from loomwork.arch.config import FORMAL


def test_a_package_is_written(loomwork, tmp_path: Path):
    target = tmp_path / "new" / "formal"
    finished = loomwork("package", "--config", "formal", "-o", target)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out == f"wrote 20 files into {target}; begin with {target / 'README.md'}\n"
    assert len([path for path in target.rglob("*") if path.is_file()]) == 20
    assert json.loads((target / "config.json").read_text()) == FORMAL.to_dict()
    assert "int8 neural-network accelerator, 2 x 2 array, 1 KiB scratchpad, 16-bit AXI4." in (
        target / "README.md"
    ).read_text().replace("\n", " ")


def test_a_folder_with_other_files_is_refused_before_long_work(loomwork, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    finished = loomwork("package", "--config", "large", "-o", tmp_path)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == (
        f"error: cannot write into {tmp_path}: notes.txt is not part of a package, choose another folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_mistakes_end_in_one_sentence(loomwork, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    finished = loomwork("package", "--config", "formal", "-o", tmp_path / "file")
    assert (finished.code, finished.err) == (2, f"error: cannot write into {tmp_path / 'file'}: it is not a folder\n")
    finished = loomwork("package", "--config", "formal", "-o", tmp_path / "file" / "below")
    assert finished.code == 2
    below = tmp_path / "file" / "below"
    assert finished.err == f"error: cannot write into {below}: {below.parent} is not a folder\n"
    finished = loomwork("package", "--config", "nothing", "-o", tmp_path / "new")
    assert finished.code == 2
    assert "nothing" in finished.err
    assert not (tmp_path / "new").exists()
