# SPDX-License-Identifier: Apache-2.0
"""Writes the core as Verilog, with a description for the tools that use it."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Shape
from amaranth.lib.wiring import Flow

from loomwork.arch.config import Config
from loomwork.arch.emit import register_map
from loomwork.arch.isa import isa_hash
from loomwork.rtl.core import Core, core_signature

MODULE_NAME = "loomwork_core"


def generate_verilog(config: Config, *, trace: bool = False) -> str:
    """Verilog of the whole core, top module MODULE_NAME: the same text for the same configuration.

    trace: with the trace ports (`loomwork.rtl.core.trace_members`), for simulation.
    """
    text = verilog.convert(Core(config, trace=trace), name=MODULE_NAME, emit_src=False, strip_internal_attrs=True)
    header = (
        "// SPDX-License-Identifier: Apache-2.0\n"
        f"// Loomwork core, configuration {config.name}: {config.rows} x {config.cols} array, "
        f"{config.scratchpad_kib} KiB scratchpad, {8 * config.bus_bytes}-bit AXI4.\n"
        f"// Configuration {config.hash:016x}, command set {isa_hash():08x}. Generated; do not edit.\n"
    )
    return header + text


def core_description(config: Config, *, trace: bool = False) -> dict[str, Any]:
    """What a tool needs to know of the core, as JSON values: configuration, hashes, ports, register map."""
    ports = {"clk": ("input", 1), "rst": ("input", 1)}
    for name, member in core_signature(config, trace=trace).members.items():
        ports[name] = ("input" if member.flow is Flow.In else "output", Shape.cast(member.shape).width)
    return {
        "module": MODULE_NAME,
        "config": config.to_dict(),
        "config_hash": f"{config.hash:016x}",
        "isa_hash": f"{isa_hash():08x}",
        "ports": [{"name": name, "direction": flow, "width": width} for name, (flow, width) in ports.items()],
        "registers": register_map(),
    }


def write_core(config: Config, directory: Path, *, trace: bool = False) -> tuple[Path, Path]:
    """Write `core.v` and `core.json` into `directory`, which is made where there is none. Returns their paths.

    A file is complete from the moment it can be seen; what was there before stays until then.
    """
    description = json.dumps(core_description(config, trace=trace), indent=2) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    paths = directory / "core.v", directory / "core.json"
    for path, text in zip(paths, (generate_verilog(config, trace=trace), description), strict=True):
        _write_atomically(path, text)
    return paths


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        scratch.chmod(0o644)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
