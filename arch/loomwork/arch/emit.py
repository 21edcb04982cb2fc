# SPDX-License-Identifier: Apache-2.0
"""Writes the contract in other languages: a C header for drivers, Markdown for people, JSON for tools.

`python -m loomwork.arch.emit DIRECTORY` writes the reference pages and the header there; a test compares them with
those in `docs/reference/`.
"""

import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from loomwork.arch import isa, reduction
from loomwork.arch.c_header import c_header, reset_value
from loomwork.arch.config import LIMITS, MAX_BANK_WORDS, PRESETS, Config
from loomwork.arch.isa import (
    HEADER,
    INSNS,
    READABLE_WINDOWS,
    TICKET_BITS,
    WRITABLE_WINDOWS,
    Field,
    Insn,
    Params,
    Unit,
    Window,
    isa_hash,
    params_words,
)
from loomwork.arch.registers import CSR_BYTES, REGISTERS, Access, ErrorCode, Register

_REGENERATE = "python -m loomwork.arch.emit docs/reference"
_ACCESS = {
    Access.READ: "read only",
    Access.READ_WRITE: "read, write",
    Access.WRITE_PULSE: "write 1 to act, reads as 0",
    Access.STICKY: "read, write 1 to clear",
}


def register_map() -> list[dict[str, Any]]:
    """The registers as JSON values."""
    return [
        {
            "name": register.name,
            "offset": register.offset,
            "access": register.access.value,
            "reset": register.reset,
            "doc": register.doc,
            "bits": [
                {"name": bits.name, "low": bits.low, "width": bits.width, "doc": bits.doc} for bits in register.bits
            ],
        }
        for register in REGISTERS
    ]


def command_table() -> list[dict[str, Any]]:
    """The command set as JSON values."""
    return [
        {
            "mnemonic": insn.mnemonic,
            "opcode": insn.opcode,
            "unit": insn.unit.name,
            "doc": insn.doc,
            "fields": [
                {
                    "name": field.name,
                    "low": insn.offsets[field.name],
                    "width": field.bits,
                    "signed": field.signed,
                    "minimum": field.low,
                    "maximum": field.high,
                    "doc": field.doc,
                }
                for field in insn.fields
            ],
        }
        for insn in INSNS
    ]


def _table(titles: Sequence[str], rows: Iterator[Sequence[object]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [
        f"| {' | '.join(titles)} |",
        f"|{'---|' * len(titles)}",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_on_hyphens=False)


def _page(title: str, lines: list[str]) -> str:
    return "\n".join([f"# {title}", "", f"<!-- Generated. To renew it: {_REGENERATE} -->", "", *lines]) + "\n"


def _range(field: Field) -> str:
    if field.choices is not None:
        return ", ".join(f"{member.value} = {member.name}" for member in field.choices)
    return f"{field.low} .. {field.high}"


def _bit_range(low: int, width: int) -> str:
    return str(low) if width == 1 else f"{low + width - 1}..{low}"


def _fields(insn: Insn, fields: Sequence[Field]) -> list[str]:
    rows = (
        (_bit_range(insn.offsets[field.name], field.bits), f"`{field.name}`", _range(field), field.doc)
        for field in fields
    )
    return _table(("bits", "operand", "values", "meaning"), rows)


def _docstring(thing: object) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(thing) or "").split("\n\n")]


def _window_row(window: Window) -> tuple[object, ...]:
    reads, writes = ("yes" if window in windows else "no" for windows in (READABLE_WINDOWS, WRITABLE_WINDOWS))
    return window.value, window.name, reads, writes


def isa_page() -> str:
    """The command set."""
    units = ", ".join(unit.name for unit in Unit if unit is not Unit.CONTROL)
    count = 1 << TICKET_BITS
    _, program, scratchpad = _docstring(isa)
    _, *passes = _docstring(reduction)
    _, parameters = _docstring(Params)
    lines = [
        *_paragraph(program),
        "",
        *_paragraph(
            f"The program lies in window COMMANDS, up to END. The units are {units}; those with a ticket in the header "
            "count the commands they have finished since start. A wait for ticket `t` is over when "
            f"`(finished - t) mod {count} < {count // 2}`: a ticket may be at most {count // 2} commands ahead of its "
            f"unit, and at most {count // 2 - 1} behind. "
            "Bits behind the last operand are 0."
        ),
        "",
        f"Fingerprint of this command set: `{isa_hash():08x}`.",
        "",
        "## Windows",
        "",
        *_paragraph(
            "External memory is reached through windows only; a command holds an offset into one. A transfer that "
            "leaves its window, or writes into one that is read-only, stops the engine."
        ),
        "",
        *_table(("number", "window", "LOAD and STREAM may read it", "STORE may write it"), map(_window_row, Window)),
        "",
        "## Scratchpad",
        "",
        *_paragraph(f"{scratchpad} Tensors are dense: `width * channels` bytes per image row (NHWC)."),
        "",
        "## Weights and parameters",
        "",
        *(line for paragraph in passes for line in (*_paragraph(paragraph), "")),
        *_paragraph(
            "The weight tile of a pass is `rows` words of `cols` bytes, array row 0 first; unused rows are zero. "
            f"{parameters} All numbers are little-endian, channel 0 of the block first, without gaps."
        ),
        "",
        *_table(
            ("number", "`params`", "bytes per block behind its weights"),
            ((params.value, params.name, f"{params_words(params)} * `cols`") for params in Params),
        ),
        "",
        "## Header",
        "",
        "The first bits of every command. END waits for every unit, whatever its header says.",
        "",
        *_fields(INSNS[0], HEADER),
    ]
    for insn in INSNS:
        lines += ["", f"## {insn.mnemonic}", "", f"Opcode {insn.opcode}, unit {insn.unit.name}. {insn.doc}"]
        if insn.operands:
            lines += ["", *_fields(insn, insn.operands)]
    return _page("Commands", lines)


def registers_page() -> str:
    """The register map."""

    def row(register: Register) -> tuple[object, ...]:
        value = reset_value(register)
        return (
            f"`0x{register.offset:03x}`",
            f"[{register.name}](#{register.name.lower()})",
            _ACCESS[register.access],
            "by configuration" if value is None else f"`0x{value:08x}`",
        )

    lines = [
        *_paragraph(
            f"32-bit registers behind AXI4-Lite, in a space of {CSR_BYTES} bytes. Addresses without a register read as "
            "0 and ignore writes, answered OKAY. Byte enables are honoured. In registers with named bits, the others "
            "read as 0 and ignore writes. The low 12 bits of the base of a window are always 0. A soft reset leaves "
            "windows, WATCHDOG and IRQ_ENABLE as they are."
        ),
        "",
        *_table(("offset", "register", "access", "after reset"), (row(register) for register in REGISTERS)),
    ]
    for register in REGISTERS:
        lines += [
            "",
            f"## {register.name}",
            "",
            f"`0x{register.offset:03x}`, {_ACCESS[register.access]}. {register.doc}",
        ]
        if register.bits:
            rows = ((_bit_range(bits.low, bits.width), bits.name, bits.doc) for bits in register.bits)
            lines += ["", *_table(("bits", "name", "meaning"), rows)]
    lines += ["", "## Error codes", "", "Values of ERROR_CODE.", ""]
    lines += _table(("code", "name"), ((code.value, code.name) for code in ErrorCode))
    return _page("Registers", lines)


def configurations_page() -> str:
    """The presets, and what each field may be."""
    rows = (
        (
            f"`{name}`",
            f"{config.rows} x {config.cols}",
            config.macs_per_cycle,
            config.scratchpad_kib,
            config.accumulator_depth,
            8 * config.bus_bytes,
            config.requant_lanes,
            config.queue_depth,
            config.stream_beats,
            "yes" if config.residual_add else "no",
            "yes" if config.elementwise_multiply else "no",
            "yes" if config.depthwise else "no",
            "yes" if config.activation_table else "no",
            "yes" if config.block_sparsity else "no",
            "yes" if config.deep_pipeline else "no",
            f"`{config.hash:016x}`",
        )
        for name, config in PRESETS.items()
    )
    titles = (
        "name",
        "array",
        "MAC/cycle",
        "scratchpad KiB",
        "accumulator pixels",
        "bus bits",
        "requantization lanes",
        "queue",
        "stream beats",
        "residual add",
        "elementwise multiply",
        "depthwise",
        "activation table",
        "block sparsity",
        "read register",
        "fingerprint",
    )
    intro = [
        *_paragraph(
            "The presets; `array` is rows (bytes of the reduction) x columns (output channels). Any other shape is a "
            "JSON file of the same fields, which may name a preset to start from: "
            '`{"base": "small", "scratchpad_kib": 96}`.'
        ),
        "",
    ]
    limits = [
        "",
        "## Fields",
        "",
        *_table(
            ("field", "meaning", "legal values", "default"),
            (
                (f"`{field.name}`", meaning, _legal(field.name), _default(field.default))
                for field, meaning in zip(fields(Config), _meanings(), strict=True)
            ),
        ),
        "",
        *_paragraph(
            f"A bank, a quarter of the scratchpad, must not have more than {MAX_BANK_WORDS} words of `rows` bytes. The "
            "fingerprint covers every field but `name`; `block_sparsity` and `deep_pipeline` only where they are true."
        ),
    ]
    return _page("Configurations", intro + _table(titles, rows) + limits)


def _meanings() -> list[str]:
    """What the docstring of `Config` says about each field, in their order."""
    text = inspect.getdoc(Config) or ""
    lines = [line for line in text.splitlines() if line.split(":")[0] in Config.__dataclass_fields__]
    return [line.split(": ", 1)[1].rstrip(".") for line in lines]


def _default(value: object) -> str:
    return "" if value is MISSING else json.dumps(value)


def _legal(name: str) -> str:
    """The legal values of a field of `Config`, in words."""
    if name not in LIMITS:
        return "an identifier" if name == "name" else "true, false"
    limit = LIMITS[name]
    kind = "power of two, " if limit.power_of_two else ""
    most = f", not more than `{limit.at_most}`" if limit.at_most else ""
    return f"{kind}{limit.low} to {limit.high}{most}"


def reference_files() -> dict[str, str]:
    """Everything in `docs/reference/` that is generated, by file name."""
    return {
        "isa.md": isa_page(),
        "registers.md": registers_page(),
        "configurations.md": configurations_page(),
        "loomwork.h": c_header(),
    }


def main(arguments: Sequence[str]) -> int:
    """Write the reference files into the directory named by the only argument."""
    if len(arguments) != 1:
        sys.stderr.write(f"usage: {_REGENERATE}\n")
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in reference_files().items():
        (directory / name).write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
