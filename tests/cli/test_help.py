# SPDX-License-Identifier: Apache-2.0
"""`--help`: every command explains itself with an example, quickly."""

import re
import subprocess
import sys

import pytest

from loomwork.cli.main import app

COMMANDS = (
    "compile",
    "quantize",
    "prune",
    "run",
    "info",
    "report",
    "disasm",
    "verilog",
    "package",
    "configs",
    "bench",
    "build",
    "area",
    "asic",
    "regress",
    "onnx-tests",
    "demo",
)
HEAVY = (
    "amaranth",
    "tflite_micro",
    "ai_edge_litert",
    "cocotb",
    "cocotb_tools",
    "matplotlib",
    "jinja2",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "torch",
    "loomwork.compiler",
    "loomwork.rtl",
)


def test_these_are_all_commands():
    assert tuple(command.name for command in app.registered_commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_of_the_command(command: str, loomwork):
    finished = loomwork(command, "--help")
    assert (finished.code, finished.err) == (0, "")
    text = " ".join(finished.out.split())
    assert re.search(rf"Example: loomwork {command}( |$)", text), text


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_use_options_that_exist(command: str, loomwork):
    text = " ".join(loomwork(command, "--help").out.split())
    example = text.split("Example: ", 1)[1].split("╭", 1)[0]
    options = set(re.findall(r"(?<= )--?[a-z]+", example))
    listed = text.split("╭", 1)[1]
    assert all(re.search(rf"{option}\b", listed) for option in options), options


def test_help_lists_every_command(loomwork):
    finished = loomwork("--help")
    assert finished.code == 0
    assert all(f" {command} " in finished.out for command in COMMANDS)


def test_help_loads_neither_compiler_nor_simulators():
    code = (
        "import sys; from loomwork.cli import main; "
        f"print([name for name in {HEAVY} if name in sys.modules]); "
        "sys.argv = ['loomwork', '--help']; main.main()"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[0] == "[]"


def test_a_typing_error_is_explained_and_ends_in_code_2(loomwork):
    finished = loomwork("compil", "net.tflite")
    assert finished.code == 2
    assert "No such command 'compil'" in finished.err
    assert loomwork("compile", "net.tflite").code == 2
    assert "--output" in loomwork("compile", "net.tflite").err
