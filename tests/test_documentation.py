# SPDX-License-Identifier: Apache-2.0
"""What the pages say: links lead somewhere, examples compile and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loomwork.arch.config import PRESETS
from loomwork.compiler.disasm import disassemble
from loomwork.compiler.driver import compile_model

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DRIVING = ROOT / "docs" / "driving.md"
MICROARCHITECTURE = ROOT / "docs" / "microarchitecture.md"


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language; there must be one at least."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    blocks = [text for name, text in found if name == language]
    assert blocks, f"{page} has no {language or 'plain'} block"
    return blocks


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links whose file or heading does not exist."""
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One *two*\n[a](page.md#one-two) [b](none.md) [c](#three) [d](https://x.y) `[e](code.md)`\n")
    assert broken_links(page) == ["none.md", "#three"]


def test_driver_example_is_the_drivers(tmp_path: Path) -> None:
    """tests/fpga/test_driver.py compiles and runs it."""
    example, system = code_blocks(DRIVING, "c")
    driver = ROOT / "fpga" / "loomwork" / "fpga" / "driver"
    assert example == (driver / "example.c").read_text(encoding="utf-8")
    call = "return (int)loomwork_accepts(&core, &(struct loomwork_program){.isa_hash = memory.length != 0});"
    (tmp_path / "main.c").write_text(f'#include "loomwork_driver.h"\nint main(void)\n{{\n{system}{call}\n}}\n')
    options = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", ROOT / "docs" / "reference", "-I", driver]
    result = subprocess.run(
        ["gcc", *options, "-c", "main.c"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_readme_example_runs() -> None:
    (source,) = code_blocks(ROOT / "README.md", "python")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert re.match(r"\[(\d ?){4}\] ", result.stdout), result.stdout


def test_worked_convolve_is_what_the_compiler_makes() -> None:
    program = compile_model(ROOT / "examples" / "digits" / "digits_int8.tflite", PRESETS["small"])
    (line,) = [block.strip() for block in code_blocks(MICROARCHITECTURE, "") if block.startswith("CONVOLVE")]
    assert line in disassemble(program)
