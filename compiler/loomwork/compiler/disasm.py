# SPDX-License-Identifier: Apache-2.0
"""Programs as text, one command per line, and back.

    .step 0
    ; conv1 (CONV_2D)
    000020  CONVOLVE base=0 pitch=12 ... params=PER_CHANNEL  wait LOAD>=1

A line holds the command's byte offset (for the reader only), mnemonic, operands by name, selections by their names, and
the tickets it waits for. `;` begins a comment; `.step N` begins the commands of the program's step N.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum

from loomwork.arch.command import Command, decode_program, encode
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, TICKET_UNITS, IsaError, Unit
from loomwork.arch.program import AcceleratorStep, Program


class AssemblyError(ValueError):
    """Text that is no program; the message names the line."""


def disassemble(program: Program) -> str:
    """All accelerator steps of a program as text; `assemble` reverses it.

    Host steps appear as comments. Raises IsaError for a command that cannot be decoded.
    """
    lines: list[str] = []
    layers = [layer for layer in program.report.get("layers", ()) if layer["where"] == "accelerator"]
    for index, step in enumerate(program.steps):
        lines.append(f".step {index}")
        if isinstance(step, AcceleratorStep):
            titles = {
                layer["commands"][0]: f"{layer['name']} ({layer['operator']})"
                for layer in layers
                if layer["step"] == index
            }
            lines += _step_lines(step.commands, titles)
        else:
            lines += [f"; host: {operator} ({reason})" for operator, reason in step.operators]
    return "\n".join(lines) + "\n"


def _step_lines(commands: bytes, titles: Mapping[int, str]) -> Iterator[str]:
    for number, command in enumerate(decode_program(commands)):
        if number in titles:
            # A name from a model file may hold anything; a comment is one line.
            yield "; " + " ".join(titles[number].split())
        yield f"{number * COMMAND_BYTES:06x}  {format_command(command)}"


def format_command(command: Command) -> str:
    """One command as text, without its offset."""
    words = [command.mnemonic]
    for field in command.insn.operands:
        value = command[field.name]
        words.append(f"{field.name}={field.choices(value).name if field.choices else value}")
    if command.waits:
        words.append(" wait")
        words += [f"{unit.name}>={ticket}" for unit, ticket in command.waits.items()]
    return " ".join(words)


def assemble(text: str) -> dict[int, bytes]:
    """Encode a text; returns the commands of each `.step` by its number.

    Raises AssemblyError naming the line that is wrong.
    """
    steps: dict[int, bytearray] = {}
    current: bytearray | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        try:
            if words[0] == ".step":
                current = _begin_step(steps, words[1:])
            elif current is None:
                raise AssemblyError("a command comes before the first '.step'")
            else:
                current += encode(_parse_command(words))
        except (AssemblyError, IsaError) as error:
            raise AssemblyError(f"line {number}: {error}") from None
    return {step: bytes(commands) for step, commands in steps.items()}


def _begin_step(steps: dict[int, bytearray], words: list[str]) -> bytearray:
    if len(words) != 1 or not words[0].isdecimal():
        raise AssemblyError(f"'.step' takes one number, not {' '.join(words)!r}")
    step = int(words[0])
    if step in steps:
        raise AssemblyError(f"step {step} is there already")
    steps[step] = bytearray()
    return steps[step]


def _parse_command(words: list[str]) -> Command:
    """A command from its words, of which the first may be an offset."""
    if words[0] not in BY_MNEMONIC and len(words) > 1:
        words = words[1:]
    mnemonic, *rest = words
    if mnemonic not in BY_MNEMONIC:
        raise AssemblyError(f"no command is called {mnemonic!r}; there are {', '.join(BY_MNEMONIC)}")
    at = rest.index("wait") if "wait" in rest else len(rest)
    choices = {field.name: field.choices for field in BY_MNEMONIC[mnemonic].operands}
    operands: dict[str, int] = {}
    for word in rest[:at]:
        name, equals, value = word.partition("=")
        if not equals or name not in choices or name in operands:
            raise AssemblyError(f"{mnemonic} takes operands as name=value, each once, not {word!r}")
        operands[name] = _parse_value(f"{mnemonic}.{name}", value, choices[name])
    return Command(mnemonic, operands, dict(_parse_wait(word) for word in rest[at + 1 :]))


def _parse_value(name: str, text: str, choices: type[IntEnum] | None) -> int:
    if choices is not None and text in choices.__members__:
        return choices[text]
    try:
        return int(text, 0)
    except ValueError:
        expected = "a number" if choices is None else f"one of {', '.join(choices.__members__)}"
        raise AssemblyError(f"{name} must be {expected}, not {text!r}") from None


def _parse_wait(word: str) -> tuple[Unit, int]:
    unit, _, ticket = word.partition(">=")
    if unit not in [item.name for item in TICKET_UNITS] or not ticket.isdecimal():
        raise AssemblyError(f"a wait is UNIT>=TICKET with a UNIT of LOAD, EXECUTE, DRAIN, STORE, not {word!r}")
    return Unit[unit], int(ticket)
