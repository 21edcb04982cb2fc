# SPDX-License-Identifier: Apache-2.0
"""The tree itself: who may import whom, files that fit in the head."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# arch is the contract: it stands alone, hardware and compiler both stand on it and do not know each other.
ALLOWED = {
    "arch": {"arch"},
    "rtl": {"arch", "rtl"},
    "compiler": {"arch", "compiler"},
    "sim": {"arch", "rtl", "sim"},
    "fpga": {"arch", "rtl", "compiler", "sim", "fpga"},
    "cli": {"arch", "rtl", "compiler", "sim", "fpga", "cli"},
}


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package / "loomwork" / package).rglob("*.py"))
    assert found, f"no sources in {package}"
    return found


def imported_packages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and second part of every import of `loomwork.X`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "loomwork" and len(parts) > 1:
                yield node.lineno, parts[1]


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_they_may(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports loomwork.{other}"
        for path in sources(package)
        for line, other in imported_packages(path)
        if other not in ALLOWED[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ALLOWED)
def test_the_namespace_has_no_init(package: str) -> None:
    assert not (ROOT / package / "loomwork" / "__init__.py").exists()


@pytest.mark.parametrize("package", ALLOWED)
def test_files_fit_in_the_head(package: str) -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(package)}
    assert {name: length for name, length in lengths.items() if length > 420} == {}
