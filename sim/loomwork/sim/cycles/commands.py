# SPDX-License-Identifier: Apache-2.0
"""Encoded commands as the cycle model needs them: by unit, with absolute tickets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loomwork.arch.isa import (
    BY_OPCODE,
    COMMAND_BYTES,
    INSNS,
    OPCODE_BITS,
    TICKET_BITS,
    TICKET_UNITS,
    IsaError,
    Unit,
)

TICKETS = 1 << TICKET_BITS


@dataclass(frozen=True, slots=True)
class Step:
    """One command. index: its place in the program. operands: by name.

    waits: of each unit it waits for, how many commands since `start` must be finished.
    """

    index: int
    mnemonic: str
    unit: Unit
    operands: Mapping[str, int]
    waits: tuple[tuple[Unit, int], ...]


# Of every operand: name, lowest bit, mask, and 1 << bits where it is signed, else 0.
_OPERANDS = {
    insn.opcode: tuple(
        (item.name, insn.offsets[item.name], (1 << item.bits) - 1, item.signed << item.bits) for item in insn.operands
    )
    for insn in INSNS
}
_END = next(insn for insn in INSNS if insn.unit is Unit.CONTROL)
_WAITS = tuple(
    (unit, _END.offsets[f"wait_{unit.name.lower()}"], _END.offsets[f"{unit.name.lower()}_ticket"])
    for unit in TICKET_UNITS
)
_WAIT_BITS = sum(1 << flag for _, flag, _ in _WAITS)


def read_commands(data: bytes) -> list[Step]:
    """The commands of a program up to its END. Their operands are taken to be legal.

    Raises IsaError for an unknown opcode, and when there is no END.
    """
    issued = dict.fromkeys(Unit, 0)
    commands: list[Step] = []
    for index in range(len(data) // COMMAND_BYTES):
        word = int.from_bytes(data[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES], "little")
        opcode = word & (1 << OPCODE_BITS) - 1
        if opcode not in BY_OPCODE:
            raise IsaError(f"command at byte {index * COMMAND_BYTES}: opcode {opcode} is not one of the command set")
        insn = BY_OPCODE[opcode]
        operands: dict[str, int] = {}
        for name, low, mask, modulus in _OPERANDS[opcode]:
            value = word >> low & mask
            operands[name] = value - modulus if modulus and value << 1 >= modulus else value
        waits = _absolute_waits(word, issued) if word & _WAIT_BITS else ()
        commands.append(Step(index, insn.mnemonic, insn.unit, operands, waits))
        issued[insn.unit] += 1
        if insn.unit is Unit.CONTROL:
            return commands
    raise IsaError("a program must end with END")


def _absolute_waits(word: int, issued: Mapping[Unit, int]) -> tuple[tuple[Unit, int], ...]:
    """Tickets count modulo TICKETS; the one that is meant is the latest among the commands issued before."""
    waits: list[tuple[Unit, int]] = []
    for unit, flag, low in _WAITS:
        if word >> flag & 1:
            ticket = word >> low & TICKETS - 1
            count = issued[unit] - (issued[unit] - ticket) % TICKETS
            if count > 0:
                waits.append((unit, count))
    return tuple(waits)


def by_unit(commands: Sequence[Step]) -> dict[Unit, list[Step]]:
    """The commands of each unit, in order."""
    lists: dict[Unit, list[Step]] = {unit: [] for unit in Unit}
    for command in commands:
        lists[command.unit].append(command)
    return lists
