# SPDX-License-Identifier: Apache-2.0
"""The library of the verilated core: built once for each content, by one process, or not at all."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from loomwork.arch.config import FORMAL, TINY
from loomwork.sim import library
from loomwork.sim.backend import RunError
from loomwork.sim.library import build_library, design_fingerprint, hash_sources

CONFIG = TINY


def test_the_library_is_built_once(monkeypatch: pytest.MonkeyPatch):
    first = build_library(CONFIG)
    stamp = first.stat().st_mtime_ns

    def fail(*_, **__):
        pytest.fail("built or generated a second time")

    monkeypatch.setattr(library, "_build", fail)
    monkeypatch.setattr(library, "generate_verilog", fail)
    assert build_library(CONFIG, report=fail) == first
    assert first.stat().st_mtime_ns == stamp


def test_every_configuration_and_every_change_has_a_library_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built: list[str] = []

    def build(tool, simulation, directory):
        built.append(source := simulation.verilog())
        (directory / "core.so").write_text(source)
        return directory / "core.so"

    told: list[str] = []
    monkeypatch.setattr(library, "_build", build)
    monkeypatch.setattr(library, "generate_verilog", lambda config, trace: f"{config} {trace}")
    monkeypatch.setattr(library, "cache_directory", lambda: tmp_path)
    other = replace(FORMAL, queue_depth=8)
    paths = [build_library(config, report=told.append) for config in (FORMAL, other, FORMAL, other)]
    assert built == [f"{FORMAL} True", f"{other} True"]
    assert told == ["building the simulation of 'formal' (once per configuration)"] * 2
    assert paths[:2] == paths[2:]
    assert paths[0] != paths[1]
    assert paths[1].read_text() == f"{other} True"
    monkeypatch.setattr(library, "CXX_FLAGS", ("-O0",))
    assert build_library(FORMAL) not in paths
    assert sorted(path.suffix for path in (tmp_path / "simulations").iterdir()) == [".so"] * 3


def test_processes_that_start_at_once_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built: list[str] = []

    def build(tool, simulation, directory):
        built.append(simulation.name)
        time.sleep(0.2)
        (directory / "core.so").touch()
        return directory / "core.so"

    monkeypatch.setattr(library, "_build", build)
    monkeypatch.setattr(library, "generate_verilog", lambda config, trace: "")
    monkeypatch.setattr(library, "cache_directory", lambda: tmp_path)
    with ThreadPoolExecutor() as pool:
        paths = set(pool.map(lambda _: build_library(FORMAL), range(4)))
    assert (len(paths), built) == (1, ["formal"])


def test_the_fingerprint_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    roots = {}
    for package in ("loomwork.arch", "loomwork.rtl"):
        roots[package] = tmp_path / package
        shutil.copytree(str(library.files(package)), roots[package])
    monkeypatch.setattr(library, "files", roots.__getitem__)
    hashes = [hash_sources(), hash_sources()]
    for path in (roots["loomwork.arch"] / "isa.py", roots["loomwork.rtl"] / "drain" / "new.py"):
        with path.open("a") as file:
            file.write("# changed\n")
        hashes.append(hash_sources())
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    fingerprints = set()
    for sources in hashes[1:3]:
        monkeypatch.setattr(library, "SOURCES_HASH", sources)
        fingerprints |= {design_fingerprint(CONFIG), design_fingerprint(FORMAL)}
    assert len(fingerprints) == 4


def test_a_build_that_fails_names_its_log_and_leaves_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = library.verilator()
    monkeypatch.setattr(library, "verilator", lambda: tool)
    monkeypatch.setattr(library, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(library, "generate_verilog", lambda config, trace: "module loomwork_core; nonsense endmodule")
    log = tmp_path / "formal-build.log"
    with pytest.raises(RunError, match=f"^building the simulation of 'formal' failed in verilator.*; see {log}$"):
        build_library(FORMAL)
    assert "syntax error" in log.read_text()
    assert list((tmp_path / "simulations").iterdir()) == []
