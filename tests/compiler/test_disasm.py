# SPDX-License-Identifier: Apache-2.0
"""Commands as text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomwork.arch.command import Command, decode_program, encode
from loomwork.arch.config import SMALL
from loomwork.arch.isa import INSNS, TICKET_UNITS
from loomwork.arch.program import AcceleratorStep
from loomwork.compiler.disasm import AssemblyError, assemble, disassemble, format_command
from loomwork.compiler.driver import compile_model
from tests.layers import random_case


@st.composite
def commands(draw: st.DrawFn) -> Command:
    insn = draw(st.sampled_from(INSNS))
    operands = {field.name: draw(st.integers(field.low, field.high)) for field in insn.operands}
    waits = {unit: draw(st.integers(0, 1023)) for unit in TICKET_UNITS if draw(st.booleans())}
    return Command(insn.mnemonic, operands, waits)


@given(st.lists(commands(), max_size=4))
def test_any_command_survives_the_round_trip(listing: list[Command]) -> None:
    text = "\n".join([".step 3", *map(format_command, listing)])
    assert assemble(text) == {3: b"".join(map(encode, listing))}


def test_a_program_survives_the_round_trip() -> None:
    program = compile_model(random_case(1, "conv_mean_fully_connected_softmax").model_bytes, SMALL, name="net")
    text = disassemble(program)
    commands = {i: step.commands for i, step in enumerate(program.steps) if isinstance(step, AcceleratorStep)}
    assert {step: data for step, data in assemble(text).items() if data} == commands
    first = commands[0]
    lines = [line for line in text.splitlines() if not line.startswith((".", ";"))]
    assert len(lines) == len(first) // 32
    assert [line.split()[0] for line in lines[:3]] == ["000000", "000020", "000040"]
    assert [line.split()[1] for line in lines] == [command.mnemonic for command in decode_program(first)]


def test_layers_and_host_operators_are_comments() -> None:
    program = compile_model(random_case(1, "conv_mean_fully_connected_softmax").model_bytes, SMALL, name="net")
    comments = [line for line in disassemble(program).splitlines() if line.startswith(";")]
    titles = [comment.split("(")[-1].rstrip(")") for comment in comments[:3]]
    assert titles == ["CONV_2D", "MEAN", "FULLY_CONNECTED"]
    assert comments[3].startswith("; host: SOFTMAX")


def test_a_command_reads_like_this() -> None:
    stream = Command("STREAM", {"window": 1, "offset": 64, "words": 9}, {TICKET_UNITS[0]: 2, TICKET_UNITS[2]: 7})
    assert format_command(stream) == "STREAM window=CONSTANTS offset=64 words=9  wait LOAD>=2 DRAIN>=7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("END", "line 1: a command comes before the first '.step'"),
        (".step", "line 1: '.step' takes one number, not ''"),
        (".step x", "line 1: '.step' takes one number, not 'x'"),
        (".step 0\n.step 0", "line 2: step 0 is there already"),
        (".step 0\n\n000000 JUMP", "line 3: no command is called 'JUMP'; there are END, LOAD"),
        (".step 0\n; fine\nEND now", "line 3: END takes operands as name=value, each once, not 'now'"),
        (".step 0\nSTREAM words=1 words=1", "line 2: STREAM takes operands as name=value, each once, not 'words=1'"),
        (".step 0\nSTREAM window=MOON", "line 2: STREAM.window must be one of COMMANDS, .* not 'MOON'"),
        (".step 0\nSTREAM offset=far", "line 2: STREAM.offset must be a number, not 'far'"),
        (".step 0\nSTREAM offset=1", "line 2: STREAM needs operand 'window'"),
        (".step 0\nEND wait CONTROL>=1", "line 2: a wait is UNIT>=TICKET .* not 'CONTROL>=1'"),
        (".step 0\nEND wait LOAD=1", "line 2: a wait is UNIT>=TICKET .* not 'LOAD=1'"),
        (".step 0\nSTREAM window=INPUTS offset=0 words=0", "line 2: STREAM.words must be from 1"),
    ],
)
def test_text_that_is_no_program_is_refused_by_line(text: str, message: str) -> None:
    with pytest.raises(AssemblyError, match=message):
        assemble(text)
