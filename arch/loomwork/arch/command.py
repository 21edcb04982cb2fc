# SPDX-License-Identifier: Apache-2.0
"""Commands as values, and their encoding in 32 bytes, both from the table in arch/isa.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from loomwork.arch.isa import (
    BY_MNEMONIC,
    BY_OPCODE,
    COMMAND_BYTES,
    OPCODE_BITS,
    TICKET_BITS,
    TICKET_UNITS,
    Insn,
    IsaError,
    Unit,
)


@dataclass(frozen=True)
class Command:
    """One command: its mnemonic, its operands by name, and the tickets it waits for.

    operands: every operand of the table, nothing else. waits: tickets by unit; absent = does not wait.
    """

    mnemonic: str
    operands: Mapping[str, int] = field(default_factory=dict[str, int])
    waits: Mapping[Unit, int] = field(default_factory=dict[Unit, int])

    @property
    def insn(self) -> Insn:
        """Its row of the table. Raises IsaError for an unknown mnemonic."""
        try:
            return BY_MNEMONIC[self.mnemonic]
        except KeyError:
            raise IsaError(f"no command is called {self.mnemonic!r}; there are {', '.join(BY_MNEMONIC)}") from None

    def __getitem__(self, operand: str) -> int:
        return self.operands[operand]


def encode(command: Command) -> bytes:
    """Encode to COMMAND_BYTES bytes.

    Raises IsaError naming the operand that is missing, unknown or out of its range.
    """
    insn = command.insn
    names = [item.name for item in insn.operands]
    for name in command.operands:
        if name not in names:
            raise IsaError(f"{insn.mnemonic} has no operand {name!r}; it has {', '.join(names) or 'none'}")
    word = insn.opcode
    for item in insn.operands:
        if item.name not in command.operands:
            raise IsaError(f"{insn.mnemonic} needs operand {item.name!r} ({item.doc})")
        value = int(command.operands[item.name])
        if not item.low <= value <= item.high:
            raise IsaError(f"{insn.mnemonic}.{item.name} must be from {item.low} to {item.high}, not {value}")
        word |= (value & (1 << item.bits) - 1) << insn.offsets[item.name]
    for unit, ticket in command.waits.items():
        if unit not in TICKET_UNITS:
            raise IsaError(f"{insn.mnemonic} cannot wait for {unit.name}, which has no tickets")
        name = unit.name.lower()
        word |= 1 << insn.offsets[f"wait_{name}"]
        word |= ticket % (1 << TICKET_BITS) << insn.offsets[f"{name}_ticket"]
    return word.to_bytes(COMMAND_BYTES, "little")


def decode(data: bytes) -> Command:
    """Decode COMMAND_BYTES bytes; the reverse of `encode`.

    Raises IsaError for an unknown opcode, an operand out of range, or a bit set behind the last operand.
    """
    if len(data) != COMMAND_BYTES:
        raise IsaError(f"a command is {COMMAND_BYTES} bytes, not {len(data)}")
    word = int.from_bytes(data, "little")
    opcode = word & (1 << OPCODE_BITS) - 1
    if opcode not in BY_OPCODE:
        raise IsaError(
            f"opcode {opcode} is not one of {', '.join(f'{o} ({i.mnemonic})' for o, i in BY_OPCODE.items())}"
        )
    insn = BY_OPCODE[opcode]
    if word >> insn.bits:
        raise IsaError(f"{insn.mnemonic} has bits set behind its last operand")
    values: dict[str, int] = {}
    for item in insn.fields:
        value = word >> insn.offsets[item.name] & (1 << item.bits) - 1
        if item.signed and value >> (item.bits - 1):
            value -= 1 << item.bits
        values[item.name] = value
    for item in insn.operands:
        if not item.low <= values[item.name] <= item.high:
            raise IsaError(
                f"{insn.mnemonic}.{item.name} must be from {item.low} to {item.high}, not {values[item.name]}"
            )
    waits = {
        unit: values[f"{unit.name.lower()}_ticket"] for unit in TICKET_UNITS if values[f"wait_{unit.name.lower()}"]
    }
    return Command(insn.mnemonic, {item.name: values[item.name] for item in insn.operands}, waits)


def decode_program(data: bytes) -> list[Command]:
    """Decode an array of commands. Raises IsaError with the byte offset of the command that is wrong."""
    if len(data) % COMMAND_BYTES:
        raise IsaError(f"a command stream is a multiple of {COMMAND_BYTES} bytes, not {len(data)}")
    commands: list[Command] = []
    for offset in range(0, len(data), COMMAND_BYTES):
        try:
            commands.append(decode(data[offset : offset + COMMAND_BYTES]))
        except IsaError as error:
            raise IsaError(f"command at byte {offset}: {error}") from None
    return commands
