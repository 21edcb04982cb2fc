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


# What calls the functions of the page: a core whose registers are memory. Nothing clears BUSY or sets events there, so
# the values are put in before the call.
CALLER = r"""
#include <stdio.h>

int main(void)
{
    static uint32_t core[0x200 / 4];
    uint8_t header[LOOMWORK_LWB_HEADER_BYTES] = LOOMWORK_LWB_MAGIC;
    struct window windows[5] = {{0x123456000u, 64}, {0x2000, 128}, {0x3000, 8}, {0x4000, 16}, {0x5000, 0}};
    const int8_t tensor[4] = {1, 2, 3, 4};
    uint8_t input[16] = {0};
    uint32_t command = 0;

    core[0] = LOOMWORK_ID;
    core[1] = LOOMWORK_VERSION;
    core[2] = 0x44332211u;
    core[3] = 0xc4c3c2c1u;
    core[4] = 0xc8c7c6c5u;
    header[8] = LOOMWORK_LWB_FORMAT_VERSION;
    for (unsigned place = 0; place < 4; place++)
        header[12 + place] = (uint8_t)(0x11 * (place + 1));
    for (unsigned place = 0; place < 8; place++)
        header[16 + place] = (uint8_t)(0xc1 + place);
    printf("%d", core_accepts(core, header));
    for (unsigned place = 0; place < 24; place++) {
        header[place] ^= 1;
        printf("%d", core_accepts(core, header));
        header[place] ^= 1;
    }
    core_prepare(core, windows);
    printf("\n%x %x %u %x", core[0x40 / 4], core[0x44 / 4], core[0x48 / 4], core[0x80 / 4]);
    place_input(input, tensor, 2, 8, 2, 2);
    printf("\n%d %d %d %d", input[2], input[3], input[10], input[11]);
    core[0x18 / 4] = 4; /* STATUS: ERROR */
    core[0x24 / 4] = LOOMWORK_ERROR_WINDOW;
    core[0x28 / 4] = 96;
    const uint32_t error = core_run(core, &command);
    printf("\n%u %u\n", error, command);
    return 0;
}
"""


def test_driver_example_compiles_and_runs(tmp_path: Path) -> None:
    (source,) = code_blocks(DRIVING, "c")
    (tmp_path / "main.c").write_text(source + CALLER)
    options = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", str(ROOT / "docs" / "reference")]
    result = subprocess.run(
        ["gcc", *options, "main.c", "-o", "a.out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    output = subprocess.run([tmp_path / "a.out"], check=True, capture_output=True, text=True, timeout=10).stdout
    assert output.splitlines() == [
        "1" + "0" * 24,  # any other bit of magic, version or fingerprints: refused
        "23456000 1 64 5000",
        "1 2 3 4",
        "3 96",  # ErrorCode.WINDOW
    ]


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
