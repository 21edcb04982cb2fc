# SPDX-License-Identifier: Apache-2.0
"""What is generated from the tables: a C header that works, and pages that are up to date."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from loomwork.arch import emit
from loomwork.arch.command import Command, decode
from loomwork.arch.config import PRESETS, Config
from loomwork.arch.isa import INSNS, Unit, isa_hash
from loomwork.arch.registers import REGISTERS, ErrorCode

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

PROGRAM = r"""
#include <stdio.h>
#include "loomwork.h"

int main(void)
{
    uint8_t command[LOOMWORK_COMMAND_BYTES] = {0};
    LOOMWORK_SET(command, CONVOLVE, OPCODE, LOOMWORK_OPCODE_CONVOLVE);
    LOOMWORK_SET(command, CONVOLVE, WAIT_LOAD, 1);
    LOOMWORK_SET(command, CONVOLVE, LOAD_TICKET, 777);
    LOOMWORK_SET(command, CONVOLVE, BASE, 65535);
    LOOMWORK_SET(command, CONVOLVE, HEIGHT, 5);
    LOOMWORK_SET(command, CONVOLVE, ROW_BYTES, 300);
    LOOMWORK_SET(command, CONVOLVE, X_START, -3);
    LOOMWORK_SET(command, CONVOLVE, Y_START, -1);
    LOOMWORK_SET(command, CONVOLVE, TAP_COUNT, 1);
    LOOMWORK_SET(command, CONVOLVE, ROW_STEP, 1);
    LOOMWORK_SET(command, CONVOLVE, LENGTH, 9);
    LOOMWORK_SET(command, CONVOLVE, KERNEL_ROWS, 3);
    LOOMWORK_SET(command, CONVOLVE, TILE_WIDTH, 4);
    LOOMWORK_SET(command, CONVOLVE, TILE_HEIGHT, 2);
    LOOMWORK_SET(command, CONVOLVE, BLOCKS, 1);
    LOOMWORK_SET(command, CONVOLVE, PAD, -128);
    LOOMWORK_SET(command, CONVOLVE, PARAMS, LOOMWORK_PARAMS_PER_CHANNEL);
    LOOMWORK_SET(command, CONVOLVE, RING, 17);
    for (unsigned place = 0; place < LOOMWORK_COMMAND_BYTES; place++)
        printf("%02x", command[place]);
    printf("\n%x %x %x %d\n", LOOMWORK_ISA_HASH, LOOMWORK_REG_COUNT_WRITE_BEATS, LOOMWORK_CONTROL_RESET,
           LOOMWORK_ERROR_WATCHDOG);
    printf("%llx\n", (unsigned long long)LOOMWORK_CONFIG_HASH_BASE);
    printf("%x %u %x\n", LOOMWORK_ID, LOOMWORK_VERSION, LOOMWORK_REG_WINDOW_SIZE(LOOMWORK_WINDOW_WORKSPACE));
    printf("%s %u %u %u\n", LOOMWORK_LWB_MAGIC, LOOMWORK_LWB_BODY_CRC_OFFSET, LOOMWORK_LWB_LENGTH_BYTES,
           LOOMWORK_LWB_HEADER_BYTES);
    return 0;
}
"""


@pytest.mark.parametrize(("language", "standard"), [("c", "c99"), ("c++", "c++17")])
def test_header_compiles_and_encodes(language: str, standard: str, tmp_path: Path):
    (tmp_path / "loomwork.h").write_text(emit.c_header())
    (tmp_path / "main").write_text(PROGRAM)
    options = ["-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    result = subprocess.run(
        ["g++", *options, "main", "-o", "a.out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    output = subprocess.run([tmp_path / "a.out"], check=True, capture_output=True, text=True).stdout.split()
    zero = dict.fromkeys(("pitch", "x_step", "y_step", "tap_step", "block_step"), 0)
    assert decode(bytes.fromhex(output[0])) == Command(
        "CONVOLVE",
        {
            "base": 65535,
            "height": 5,
            "row_bytes": 300,
            "x_start": -3,
            "y_start": -1,
            "tap_count": 1,
            "row_step": 1,
            "length": 9,
            "kernel_rows": 3,
            "tile_width": 4,
            "tile_height": 2,
            "blocks": 1,
            "pad": -128,
            "params": 2,
            "ring": 17,
            **zero,
        },
        {Unit.LOAD: 777},
    )
    assert output[1:6] == [f"{isa_hash():x}", "104", "2", "7", f"{PRESETS['base'].hash:x}"]
    assert output[6:] == ["4c4f4f4d", "1", "88", "LOOMWORK", "32", "8", "48"]


@pytest.mark.parametrize("name", emit.reference_files())
def test_reference_is_up_to_date(name: str):
    text = (REFERENCE / name).read_text(encoding="utf-8")
    assert text == emit.reference_files()[name], "run `python -m loomwork.arch.emit docs/reference`"


def test_pages_name_everything():
    isa, registers, configurations = emit.isa_page(), emit.registers_page(), emit.configurations_page()
    for insn in INSNS:
        section = isa.split(f"\n## {insn.mnemonic}\n")[1].split("\n## ")[0]
        assert insn.doc in section
        assert all(f"| `{field.name}` |" in section for field in insn.operands)
    for register in REGISTERS:
        assert f"\n## {register.name}\n" in registers
        assert all(f"| {bits.name} | {bits.doc} |" in registers for bits in register.bits)
    assert all(code.name in registers for code in ErrorCode)
    assert all(f"| `{name}` |" in configurations for name in PRESETS)


def test_registers_page_says_what_they_reset_to():
    page = emit.registers_page()
    assert "| `0x000` | [ID](#id) | read only | `0x4c4f4f4d` |" in page
    assert "| `0x004` | [VERSION](#version) | read only | `0x00000001` |" in page
    assert f"| [ISA_HASH](#isa_hash) | read only | `{isa_hash():#010x}` |" in page
    assert "| [CONFIG_HASH_LOW](#config_hash_low) | read only | by configuration |" in page
    assert "| [WATCHDOG](#watchdog) | read, write | `0x00000000` |" in page


def test_header_comments_say_what_registers_reset_to():
    lines = {line.split()[1]: line for line in emit.c_header().splitlines() if line.startswith("#define LOOMWORK_REG")}
    assert lines["LOOMWORK_REG_ID"].endswith("After reset 0x4c4f4f4d. */")
    assert lines["LOOMWORK_REG_WATCHDOG"].endswith("After reset 0x0. */")
    assert "After reset" not in lines["LOOMWORK_REG_CONFIG_HASH_HIGH"]


def test_configurations_page_lists_every_field():
    page = emit.configurations_page()
    rows = [line.split("|")[1:-1] for line in page.split("## Fields")[1].splitlines() if line.startswith("| `")]
    table = {
        name.strip(" `"): (meaning.strip(), legal.strip(), default.strip()) for name, meaning, legal, default in rows
    }
    assert list(table) == [field.name for field in fields(Config)]
    assert all(meaning for meaning, _, _ in table.values())
    assert table["cols"][1:] == ("power of two, 2 to 64, not more than `rows`", "")
    assert table["scratchpad_kib"][1] == "1 to 1024"
    assert table["residual_add"][1:] == ("true, false", "true")
    assert table["elementwise_multiply"][1:] == ("true, false", "true")
    assert table["depthwise"][1:] == ("true, false", "true")
    assert table["activation_table"][1:] == ("true, false", "true")
    assert table["block_sparsity"][1:] == ("true, false", "false")
    assert table["deep_pipeline"][1:] == ("true, false", "false")


def test_isa_page_explains_the_rules_behind_the_operands():
    """Ticket arithmetic, scratchpad addresses, windows and the bytes behind the weights."""
    page = " ".join(emit.isa_page().split())
    assert "`(finished - t) mod 1024 < 512`" in page
    assert "byte `j` of image row `y` of a tensor lies in bank `y % 4`" in page
    assert "`cols` int32 biases, then (PER_CHANNEL) `cols` int32 multipliers and `cols` int8 shifts" in page
    assert "| 2 | PER_CHANNEL | 9 * `cols` |" in page
    assert "| 2 | INPUTS | yes | no | | 3 | OUTPUTS | yes | yes |" in page


def test_tables_are_json():
    table = json.loads(json.dumps(emit.command_table()))
    fields = {field["name"]: field for field in table[0]["fields"]}
    assert table[0]["mnemonic"] == "END"
    assert (fields["load_ticket"]["low"], fields["load_ticket"]["width"]) == (5, 10)
    assert json.loads(json.dumps(emit.register_map()))[0]["name"] == "ID"


def test_command_line(tmp_path: Path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "loomwork.arch.emit", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    assert run(str(tmp_path / "new")).returncode == 0
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == emit.reference_files()
    refused = run()
    assert refused.returncode == 2
    assert refused.stderr.startswith("usage: ")
