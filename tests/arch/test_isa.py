# SPDX-License-Identifier: Apache-2.0
"""The command set: encoding, decoding and their errors."""

import contextlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomwork.arch import isa
from loomwork.arch.command import Command, decode, decode_program, encode
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, HEADER, INSNS, TICKET_UNITS, Field, Insn, IsaError, Unit

OPERANDS = [(insn, field) for insn in INSNS for field in insn.operands]
every_insn = pytest.mark.parametrize("insn", INSNS, ids=lambda insn: insn.mnemonic)
every_operand = pytest.mark.parametrize(
    ("insn", "field"), OPERANDS, ids=[f"{insn.mnemonic}.{field.name}" for insn, field in OPERANDS]
)


def lowest(insn: Insn) -> dict[str, int]:
    return {field.name: field.low for field in insn.operands}


@st.composite
def commands(draw: Callable) -> Command:
    insn = draw(st.sampled_from(INSNS))
    operands = {field.name: draw(st.integers(field.low, field.high)) for field in insn.operands}
    return Command(insn.mnemonic, operands, draw(st.dictionaries(st.sampled_from(TICKET_UNITS), st.integers(0, 1023))))


def independent_encoding(command: Command) -> bytes:
    """The same bits, put together as a string from the last field to the first."""
    insn = command.insn
    text = ""
    for field in reversed(insn.fields):
        unit, _, kind = field.name.partition("_")
        if field.name == "opcode":
            value = insn.opcode
        elif field in HEADER and unit == "wait":
            value = Unit[kind.upper()] in command.waits
        elif field in HEADER:
            value = command.waits.get(Unit[unit.upper()], 0)
        else:
            value = command[field.name]
        text += format(value % 2**field.bits, f"0{field.bits}b")
    return int(text, 2).to_bytes(COMMAND_BYTES, "little")


def test_what_convolutions_have_in_common_lies_at_the_same_bits():
    dense, depthwise = BY_MNEMONIC["CONVOLVE"], BY_MNEMONIC["DEPTHWISE"]
    shared = [field for field in dense.fields if field in depthwise.fields]
    assert dense.fields == (*shared, dense.operands[-1])
    assert depthwise.fields == (*shared, *depthwise.operands[-3:])
    assert dense.unit is depthwise.unit
    assert dense.bits >= depthwise.bits


@given(commands())
def test_round_trip(command: Command):
    data = encode(command)
    assert data == independent_encoding(command)
    assert decode(data) == command


@given(st.binary(min_size=COMMAND_BYTES, max_size=COMMAND_BYTES))
def test_what_decodes_encodes_to_itself_but_for_idle_tickets(data: bytes):
    """A ticket without its wait bit means nothing; every other bit means something or is refused."""
    word = int.from_bytes(data, "little") & ~0xF | INSNS[data[0] % len(INSNS)].opcode
    word &= (1 << 80) - 1  # else bits behind the last operand refuse nearly everything
    try:
        command = decode(word.to_bytes(COMMAND_BYTES, "little"))
    except IsaError:
        return
    for unit in TICKET_UNITS:
        if unit not in command.waits:
            place = command.insn.offsets[f"{unit.name.lower()}_ticket"]
            word &= ~(1023 << place)
    assert encode(command) == word.to_bytes(COMMAND_BYTES, "little")


@given(st.binary(min_size=COMMAND_BYTES, max_size=COMMAND_BYTES))
def test_any_bytes_decode_or_are_refused(data: bytes):
    with contextlib.suppress(IsaError):
        assert encode(decode(data))[0] & 0xF == data[0] & 0xF


@every_operand
def test_limits_are_accepted_and_what_lies_beyond_is_refused(insn: Insn, field: Field):
    for value in (field.low, field.high):
        command = Command(insn.mnemonic, lowest(insn) | {field.name: value})
        assert decode(encode(command)) == command
    for value in (field.low - 1, field.high + 1):
        text = f"{insn.mnemonic}.{field.name} must be from {field.low} to {field.high}, not {value}"
        with pytest.raises(IsaError, match=f"^{re.escape(text)}$"):
            encode(Command(insn.mnemonic, lowest(insn) | {field.name: value}))


@every_operand
def test_decoder_refuses_what_the_encoder_refuses(insn: Insn, field: Field):
    """Where the bits of an operand can hold more than it may be."""
    mask = (1 << field.bits) - 1
    smallest = -(1 << field.bits - 1) if field.signed else 0
    for value in (field.low - 1, field.high + 1):
        if not smallest <= value <= smallest + mask:
            continue
        place = insn.offsets[field.name]
        word = int.from_bytes(encode(Command(insn.mnemonic, lowest(insn))), "little")
        word = word & ~(mask << place) | (value & mask) << place
        with pytest.raises(IsaError, match=re.escape(f"{insn.mnemonic}.{field.name} must be from")):
            decode(word.to_bytes(COMMAND_BYTES, "little"))


@every_insn
def test_bits_behind_the_last_operand_are_refused(insn: Insn):
    word = int.from_bytes(encode(Command(insn.mnemonic, lowest(insn))), "little")
    for place in range(insn.bits, 8 * COMMAND_BYTES):
        with pytest.raises(IsaError, match=f"^{insn.mnemonic} has bits set behind its last operand$"):
            decode((word | 1 << place).to_bytes(COMMAND_BYTES, "little"))


@every_insn
def test_missing_and_unknown_operands_are_named(insn: Insn):
    with pytest.raises(IsaError, match=f"^{insn.mnemonic} has no operand 'colour'; it has "):
        encode(Command(insn.mnemonic, lowest(insn) | {"colour": 1}))
    for field in insn.operands:
        rest = {name: value for name, value in lowest(insn).items() if name != field.name}
        with pytest.raises(IsaError, match=f"^{insn.mnemonic} needs operand '{field.name}' "):
            encode(Command(insn.mnemonic, rest))


def test_unknown_mnemonic():
    with pytest.raises(IsaError, match=r"^no command is called 'JUMP'; there are END, LOAD, "):
        encode(Command("JUMP"))


@pytest.mark.parametrize("opcode", sorted(set(range(16)) - {insn.opcode for insn in INSNS}))
def test_unknown_opcode(opcode: int):
    with pytest.raises(IsaError, match=rf"^opcode {opcode} is not one of 1 \(END\), "):
        decode(bytes([opcode]) + bytes(COMMAND_BYTES - 1))


def test_tickets_count_modulo_1024():
    assert decode(encode(Command("END", waits={Unit.DRAIN: 1024 * 7 + 5}))).waits == {Unit.DRAIN: 5}


@pytest.mark.parametrize("unit", sorted(set(Unit) - set(TICKET_UNITS)))
def test_units_without_tickets(unit: Unit):
    with pytest.raises(IsaError, match=f"^END cannot wait for {unit.name}, which has no tickets$"):
        encode(Command("END", waits={unit: 1}))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_wrong_length(length: int):
    with pytest.raises(IsaError, match=f"^a command is 32 bytes, not {length}$"):
        decode(bytes(length))


def test_programs():
    commands = [Command("STREAM", {"window": 1, "offset": 64, "words": 3}), Command("END")]
    data = b"".join(map(encode, commands))
    assert decode_program(data) == commands
    assert decode_program(b"") == []
    with pytest.raises(IsaError, match=r"^a command stream is a multiple of 32 bytes, not 63$"):
        decode_program(data[:-1])
    with pytest.raises(IsaError, match=r"^command at byte 64: opcode 0 is not one of "):
        decode_program(data + bytes(32))


@every_insn
def test_table_is_consistent(insn: Insn):
    names = [field.name for field in insn.fields]
    assert len(set(names)) == len(names)
    assert insn.bits <= 8 * COMMAND_BYTES
    assert 0 < insn.opcode < 16
    for field in insn.operands:
        assert field.bits > 0
        assert field.doc
        assert field.low <= field.high
        smallest = -(1 << field.bits - 1) if field.signed else 0
        assert smallest <= field.low
        assert field.high < smallest + (1 << field.bits)


def test_opcodes_and_mnemonics_are_unique():
    assert len(isa.BY_OPCODE) == len(BY_MNEMONIC) == len(INSNS)


def test_zeroed_and_erased_memory_is_no_program():
    for byte in (b"\x00", b"\xff"):
        with pytest.raises(IsaError):
            decode(byte * COMMAND_BYTES)


def test_hash_changes_with_the_table(monkeypatch: pytest.MonkeyPatch):
    before = isa.isa_hash()
    assert 0 < before < 1 << 32
    monkeypatch.setattr(isa, "INSNS", INSNS[:-1])
    assert isa.isa_hash() != before
