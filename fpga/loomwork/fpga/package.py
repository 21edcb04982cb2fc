# SPDX-License-Identifier: Apache-2.0
"""Writes a core as a folder that designs, packaging tools and firmware take as it is."""

import hashlib
import importlib.metadata
import json
import posixpath
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from loomwork.arch.c_header import c_header
from loomwork.arch.config import Config
from loomwork.arch.emit import isa_page, registers_page
from loomwork.arch.registers import CSR_BYTES
from loomwork.rtl.generate import core_description, write_core

VENDOR, LIBRARY = "loomwork", "ip"
SUMS = "SHA256SUMS"
"""File with the SHA-256 of all others, as `sha256sum` writes and checks it; it makes a folder known as a package."""
DRIVER = tuple(
    f"driver/{name}"
    for name in (
        "loomwork_driver.h",
        "loomwork_json.h",
        "loomwork_driver.c",
        "loomwork_json.c",
        "loomwork_program.c",
        "example.c",
    )
)
_PAGES = "docs/driving.md", "docs/reference/isa.md", "docs/reference/registers.md", "docs/reference/program.md"
_PLACES = {
    **{page: page for page in _PAGES},
    "docs/ip.md": "README.md",
    "docs/reference/loomwork.h": "include/loomwork.h",
    **{f"fpga/loomwork/fpga/{name}": name for name in DRIVER},
}
"""Where in a package lies what the pages link to, by its place in the repository."""
_IPXACT_ACCESS = {"r": "read-only", "rw": "read-write", "wp": "write-only", "rw1c": "read-write"}


class PackageError(ValueError):
    """A folder that cannot take a package; one sentence for the user."""


@dataclass(frozen=True)
class Identifier:
    """Vendor, library, name and version of something in IP-XACT (IEEE 1685)."""

    vendor: str
    library: str
    name: str
    version: str


@dataclass(frozen=True)
class BusInterface:
    """Ports that belong together: their names by the logical names of the bus definition."""

    name: str
    type: Identifier
    abstraction: Identifier
    ports: Mapping[str, str]
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


def package_name(config: Config) -> str:
    """The name under which tools know the core."""
    return f"loomwork_{config.name}"


def write_package(config: Config, directory: Path) -> list[Path]:
    """Write the package of a configuration into a folder, which is made where there is none; returns its files.

    The same configuration always gives the same files. A package that was there is replaced; everything is made before
    anything of it is touched. Raises PackageError when the folder holds anything but an unchanged package.
    """
    check_folder(directory)
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    # In the folder itself: what is moved into place must not cross file systems.
    scratch = Path(tempfile.mkdtemp(dir=directory, prefix=".loomwork-"))
    try:
        new = scratch / "new"
        names = _write_files(config, new)
        _replace(directory, new, scratch / "old")
    except BaseException:
        shutil.rmtree(scratch)
        for folder in missing:
            folder.rmdir()
        raise
    shutil.rmtree(scratch)
    return [directory / name for name in names]


def check_folder(directory: Path) -> None:
    """Raise PackageError unless `directory` is no path yet, an empty folder, or a package that nobody has changed."""
    for folder in (directory, *directory.parents):
        if folder.exists() and not folder.is_dir():
            raise PackageError(
                f"cannot write into {directory}: {'it' if folder == directory else folder} is not a folder"
            )
    if not directory.exists():
        return
    found = sorted(path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink())
    sums = directory / SUMS
    known: dict[str, str] = {}
    if sums.is_file():
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
        known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for path in found:
        name = path.relative_to(directory).as_posix()
        if path == sums:
            continue
        if name not in known:
            raise PackageError(f"cannot write into {directory}: {name} is not part of a package, choose another folder")
        if hashlib.sha256(path.read_bytes()).hexdigest() != known[name]:
            raise PackageError(f"cannot write into {directory}: {name} was changed and would be lost")


def _write_files(config: Config, directory: Path) -> list[str]:
    """Write all files of a package; returns their names, in order."""
    write_core(config, directory)
    for name, text in {**_copied_files(), **_made_files(config)}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    lines = (f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (directory / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
    return [*names, SUMS]


def _replace(directory: Path, new: Path, old: Path) -> None:
    """Move what is in `directory` to `old` and what is in `new` into it; all or nothing."""
    old.mkdir()
    moves = [(path, old / path.name) for path in directory.iterdir() if path != new.parent]
    moves += [(path, directory / path.name) for path in sorted(new.iterdir())]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def _copied_files() -> dict[str, str]:
    """Files that are the same for every configuration, by name."""
    package = files("loomwork.fpga")

    def text(name: str) -> str:
        return package.joinpath(name).read_text(encoding="utf-8")

    pages = text("pages/driving.md"), isa_page(), registers_page(), text("pages/program.md")
    return {
        "LICENSE": text("pages/LICENSE"),
        "include/loomwork.h": c_header(),
        **{name: text(name) for name in DRIVER},
        **{name: with_links(page, name) for name, page in zip(_PAGES, pages, strict=True)},
    }


def with_links(page: str, name: str) -> str:
    """A page of the repository, `name` there, with its links as they are in a package.

    Raises KeyError for a link to what a package does not have.
    """
    folder = posixpath.dirname(name)

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if not target or ":" in target:
            return match[0]
        place = _PLACES[posixpath.normpath(posixpath.join(folder, target))]
        return f"]({posixpath.relpath(place, folder)}{'' if place == 'README.md' else anchor})"

    return re.sub(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", moved, page)


def _made_files(config: Config) -> dict[str, str]:
    """Files from the templates, by name."""
    description = core_description(config)
    reset = {"CONFIG_HASH_LOW": config.hash & 0xFFFF_FFFF, "CONFIG_HASH_HIGH": config.hash >> 32}
    name = package_name(config)
    values: dict[str, Any] = {
        "vendor": VENDOR,
        "library": LIBRARY,
        "name": name,
        "version": importlib.metadata.version("loomwork"),
        "summary": (
            f"int8 neural-network accelerator, {config.rows} x {config.cols} array, {config.scratchpad_kib} KiB "
            f"scratchpad, {8 * config.bus_bytes}-bit AXI4."
        ),
        "config": config,
        "config_hash": description["config_hash"],
        "isa_hash": description["isa_hash"],
        "module": description["module"],
        "ports": description["ports"],
        "buses": bus_interfaces([port["name"] for port in description["ports"]]),
        "registers": [
            {**register, "reset": reset.get(register["name"], register["reset"])}
            for register in description["registers"]
        ],
        "register_bytes": CSR_BYTES,
        "access": _IPXACT_ACCESS,
        "driver": list(DRIVER),
    }
    return {
        "config.json": json.dumps(config.to_dict(), indent=2) + "\n",
        f"{name}.core": _render("fusesoc.core", values),
        "component.xml": _render("component.xml", values, autoescape=True),
        "package_ip.tcl": _render("package_ip.tcl", values),
        "README.md": _render("README.md", values),
    }


def _render(template: str, values: Mapping[str, Any], *, autoescape: bool = False) -> str:
    environment = Environment(
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    source = files("loomwork.fpga").joinpath(f"templates/{template}").read_text(encoding="utf-8")
    return environment.from_string(source).render(values)


def bus_interfaces(ports: list[str]) -> list[BusInterface]:
    """The bus interfaces that the ports make, each port in one of them.

    Bus definitions: Arm's for AMBA 4, and those of Vivado, which other tools know too, for single signals.
    """

    def amba(name: str, definition: str) -> BusInterface:
        members = [port for port in ports if port.startswith(f"{name}_")]
        return BusInterface(
            name,
            Identifier("amba.com", "AMBA4", definition, "r0p0_0"),
            Identifier("amba.com", "AMBA4", f"{definition}_rtl", "r0p0_0"),
            {port.removeprefix(f"{name}_").upper(): port for port in members},
        )

    def signal(name: str, definition: str, logical: str, **parameters: str) -> BusInterface:
        return BusInterface(
            name,
            Identifier("xilinx.com", "signal", definition, "1.0"),
            Identifier("xilinx.com", "signal", f"{definition}_rtl", "1.0"),
            {logical: name},
            parameters,
        )

    buses = [
        amba("m_axi", "AXI4"),
        amba("s_axil", "AXI4-Lite"),
        signal("clk", "clock", "CLK", ASSOCIATED_BUSIF="m_axi:s_axil", ASSOCIATED_RESET="rst"),
        signal("rst", "reset", "RST", POLARITY="ACTIVE_HIGH"),
        signal("irq", "interrupt", "INTERRUPT", SENSITIVITY="LEVEL_HIGH"),
    ]
    mapped = [port for bus in buses for port in bus.ports.values()]
    if sorted(mapped) != sorted(ports):
        raise ValueError(f"ports {sorted(set(ports) ^ set(mapped))} belong to no bus interface")
    return buses
