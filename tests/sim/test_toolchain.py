# SPDX-License-Identifier: Apache-2.0
"""The Verilator that `toolchain` finds or prepares."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loomwork.sim.toolchain import MINIMUM_VERSION, Toolchain, ToolchainError, cache_directory, verilator

COUNTER = """\
module counter(input clk, input rst, output reg [7:0] count);
  always @(posedge clk) count <= rst ? 8'd0 : count + 8'd1;
endmodule
"""

MAIN = """\
#include <cstdio>
#include "Vcounter.h"
#if VERILATOR_VERSION_INTEGER < 5036000
#error "the version number is missing"
#endif
int main() {
    VerilatedContext context;
    Vcounter top{&context};
    for (int cycle = 0; cycle < 301; ++cycle) {
        top.rst = cycle == 0;
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
    }
    std::printf("count=%d\\n", top.count);
}
"""

NEEDED = ("g++", "make")


def only(directory: Path, *tools: str) -> str:
    """A PATH on which nothing but the named tools is found."""
    directory.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        assert found is not None, tool
        (directory / tool).symlink_to(found)
    return str(directory)


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, and a PATH without Verilator: the one of the Python package has to be prepared."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("LOOMWORK_CACHE", str(cache))
    monkeypatch.setenv("PATH", only(tmp_path / "tools", *NEEDED))
    return cache


@pytest.mark.parametrize("origin", ["path", "package"])
def test_builds_and_runs_a_counter(origin: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    env = dict(os.environ)
    if origin == "package":
        request.getfixturevalue("packaged")
    elif shutil.which("verilator") is None:
        pytest.skip("PATH has no Verilator; the packaged one is tested")
    toolchain = verilator()
    assert tuple(int(part) for part in toolchain.version.split(".")) >= MINIMUM_VERSION

    (tmp_path / "counter.v").write_text(COUNTER)
    (tmp_path / "main.cpp").write_text(MAIN)
    command = [str(toolchain.executable), "--cc", "--exe", "--build", "--timing", "--trace", "-Wall"]
    command += ["--Mdir", "obj", "-MAKEFLAGS", "OPT_GLOBAL=-O0", "counter.v", "main.cpp"]
    env["VERILATOR_ROOT"] = toolchain.env["VERILATOR_ROOT"]
    built = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    ran = subprocess.run([tmp_path / "obj" / "Vcounter"], capture_output=True, text=True, check=True)
    assert ran.stdout == "count=44\n"  # 300 cycles after reset, modulo 256


def test_packaged_verilator_is_prepared_once(packaged: Path) -> None:
    first = verilator()
    assert first.root.is_relative_to(packaged)
    stamp = first.root.stat().st_mtime_ns
    assert verilator() is first

    # Another process has no memory of it and finds the copy.
    code = "from loomwork.sim.toolchain import verilator; print(verilator().root)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(first.root)
    assert first.root.stat().st_mtime_ns == stamp
    assert [entry.name for entry in first.root.parent.iterdir()] == [first.root.name]


def test_cocotb_would_find_the_packaged_verilator(packaged: Path) -> None:
    toolchain = verilator()
    assert shutil.which("verilator", path=toolchain.env["PATH"]) == str(toolchain.executable)
    assert toolchain.env["VERILATOR_ROOT"] == str(toolchain.root)


def test_processes_that_start_at_once_share_one_copy(packaged: Path) -> None:
    code = "from loomwork.sim.toolchain import verilator; print(verilator().root)"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    assert {error for _, error in answers} == {""}
    assert {root.strip() for root, _ in answers} == {str(verilator().root)}
    assert len(list((packaged / "verilator").iterdir())) == 1


@pytest.mark.parametrize("tool", ["g++", "make"])
def test_missing_tool_is_named_with_its_remedy(
    tool: str, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = [other for other in NEEDED if other != tool]
    monkeypatch.setenv("PATH", only(tmp_path / "fewer", *rest))
    name = tool.replace("+", r"\+")
    with pytest.raises(ToolchainError, match=rf"^`{name}` was not found on PATH; .*`apt install {name}`"):
        verilator()


def test_new_enough_verilator_on_the_path_is_preferred(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root" / "include").mkdir(parents=True)
    (tmp_path / "root" / "include" / "verilated.mk").touch()
    found = script(
        tmp_path / "tools" / "verilator",
        f'case $1 in --version) echo "Verilator 5.040 2025-08-30 rev v5.040";; *) echo {tmp_path}/root;; esac',
    )
    # Left over from elsewhere: Verilator's own launcher refuses to start with it.
    monkeypatch.setenv("VERILATOR_ROOT", "/nowhere")
    toolchain = verilator()
    assert toolchain == Toolchain(executable=found, root=tmp_path / "root", version="5.040")
    assert toolchain.env == {"PATH": os.environ["PATH"], "VERILATOR_ROOT": str(tmp_path / "root")}
    assert not packaged.exists()


@pytest.mark.parametrize("answer", ['echo "Verilator 5.006 2023-01-22 rev v5.006"', "exit 1", "echo"])
def test_old_or_broken_verilator_on_the_path_is_passed_over(answer: str, packaged: Path, tmp_path: Path) -> None:
    script(tmp_path / "tools" / "verilator", answer)
    toolchain = verilator()
    assert toolchain.root.is_relative_to(packaged)
    assert toolchain.env["PATH"].split(os.pathsep)[0] == str(toolchain.executable.parent)


def test_cache_that_cannot_be_written(packaged: Path) -> None:
    packaged.write_text("a file where the folder should be")
    with pytest.raises(ToolchainError, match=r"could not be prepared: .*LOOMWORK_CACHE"):
        verilator()


def test_cache_with_a_space_in_its_path(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOMWORK_CACHE", f"{packaged} too")
    with pytest.raises(ToolchainError, match=r"spaces: .*cache too\. Set LOOMWORK_CACHE"):
        verilator()


def test_damaged_copy_is_reported(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain = verilator()
    toolchain.executable.unlink()
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{tmp_path}")  # forgets the remembered answer
    with pytest.raises(ToolchainError, match=rf"{toolchain.root} is damaged\. Delete that folder"):
        verilator()


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOMWORK_CACHE", "/a/cache")
    assert cache_directory() == Path("/a/cache")
    monkeypatch.delenv("LOOMWORK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_directory() == Path("/b/loomwork")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_directory() == Path("/home/somebody/.cache/loomwork")
