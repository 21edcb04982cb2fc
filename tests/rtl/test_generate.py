# SPDX-License-Identifier: Apache-2.0
"""The generated Verilog: the same text every time, clean, and with the ports that `core.json` names."""

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loomwork.arch.config import FORMAL, TINY, Config
from loomwork.arch.isa import isa_hash
from loomwork.arch.registers import REGISTERS
from loomwork.rtl import generate
from loomwork.rtl.dispatch import ENGINES
from loomwork.rtl.generate import MODULE_NAME, core_description, generate_verilog, write_core
from loomwork.sim.toolchain import verilator

UNUSUAL = Config(
    name="unusual",
    rows=8,
    cols=4,
    scratchpad_kib=3,
    accumulator_depth=16,
    bus_bytes=8,
    requant_lanes=1,
    address_bits=40,
    queue_depth=2,
    stream_beats=32,
    residual_add=False,
)
"""As unlike the presets as possible."""

WAIVED = (
    "ASCRANGE",  # Yosys declares memories [0:n]
    "CASEINCOMPLETE",  # a default comes before the case
    "CMPCONST",  # a ticket's distance is compared with what its width allows
    "DECLFILENAME",  # one file holds all modules
    "PROCASSINIT",  # registers have initial values and a reset
    "UNUSEDSIGNAL",  # parts of structures that nobody reads
    "VARHIDDEN",  # a signal is called like a module
    "WIDTHEXPAND",  # Amaranth extends operands itself
    "WIDTHTRUNC",  # and truncates at assignments
)
"""What Verilator says about the way Yosys writes Verilog. All other warnings are errors, such as LATCH, MULTIDRIVEN,
UNDRIVEN, UNOPTFLAT (a combinational loop)."""


@functools.cache
def verilog(config: Config, *, trace: bool = False) -> str:
    return generate_verilog(config, trace=trace)


@pytest.mark.parametrize("config", [FORMAL, UNUSUAL], ids=lambda config: config.name)
def test_verilator_finds_nothing_wrong(config: Config, tmp_path: Path):
    source = tmp_path / "core.v"
    source.write_text(verilog(config))
    tool = verilator()
    command = [
        tool.executable,
        "--lint-only",
        "-Wall",
        *(f"-Wno-{name}" for name in WAIVED),
        "--top",
        MODULE_NAME,
        source,
    ]
    result = subprocess.run(command, env=os.environ | tool.env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[:4000]


@pytest.mark.parametrize("trace", [False, True])
def test_ports_are_those_of_the_description(trace: bool):
    text = verilog(FORMAL, trace=trace)
    top = re.search(rf"^module {MODULE_NAME}\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    assert top
    declared = {
        name: (direction, int(high or 0) + 1)
        for direction, high, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", top[0], re.MULTILINE)
    }
    ports = core_description(FORMAL, trace=trace)["ports"]
    assert declared == {port["name"]: (port["direction"], port["width"]) for port in ports}
    assert declared["m_axi_wdata"] == ("output", 8 * FORMAL.bus_bytes)
    assert declared["s_axil_araddr"] == ("input", 9)
    assert declared["irq"] == ("output", 1)
    assert ("trace_execute_start" in declared) == trace


def test_text_depends_on_nothing_but_the_configuration():
    program = (
        "import hashlib; from loomwork.arch.config import FORMAL; from loomwork.rtl.generate import generate_verilog;"
        "print(hashlib.sha256(generate_verilog(FORMAL).encode()).hexdigest())"
    )
    expected = hashlib.sha256(verilog(FORMAL).encode()).hexdigest()
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected


def test_no_source_paths_and_no_tool_attributes():
    text = verilog(FORMAL)
    assert ".py" not in text
    assert str(Path(generate.__file__).parents[3]) not in text
    assert "(* generator" not in text
    assert "amaranth.hierarchy" not in text


def test_modules_are_named_after_the_units():
    modules = set(re.findall(r"^module \\?([\w.]+)", verilog(FORMAL), re.MULTILINE))
    parts = {"csr", "control", "counters", "fetch", "decoder", "dispatch", "read_master", "write_master", "scratchpad"}
    units = {unit.name.lower() for unit in ENGINES}
    assert {f"{MODULE_NAME}.{name}" for name in parts | units} < modules


def test_description():
    description = core_description(TINY)
    json.dumps(description)
    assert Config.from_dict(description["config"]) == TINY
    assert int(description["config_hash"], 16) == TINY.hash
    assert int(description["isa_hash"], 16) == isa_hash()
    assert [(register["name"], register["offset"]) for register in description["registers"]] == [
        (register.name, register.offset) for register in REGISTERS
    ]


def test_files(tmp_path: Path):
    source, description = write_core(FORMAL, tmp_path / "new" / "folder")
    assert source.read_text() == verilog(FORMAL)
    assert json.loads(description.read_text()) == core_description(FORMAL)
    assert sorted(path.name for path in source.parent.iterdir()) == ["core.json", "core.v"]


def test_a_failure_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "core.v").write_text("old")

    def fail(*arguments: object, **options: object) -> str:
        raise RuntimeError("no Verilog today")

    monkeypatch.setattr(generate, "generate_verilog", fail)
    with pytest.raises(RuntimeError, match="no Verilog today"):
        write_core(replace(FORMAL, name="other"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["core.v"]
    assert (tmp_path / "core.v").read_text() == "old"
