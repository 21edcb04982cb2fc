# SPDX-License-Identifier: Apache-2.0
"""Compiles the firmware of a compact core."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from loomwork.arch.c_header import c_header
from loomwork.arch.config import BANKS
from loomwork.arch.isa import (
    BY_MNEMONIC,
    ENTRIES_PER_COMMAND,
    INSNS,
    MASK_PASSES,
    TABLE_ENTRIES,
    TICKET_UNITS,
    WRITABLE_WINDOWS,
    Field,
    Params,
    Unit,
    Window,
    params_words,
)
from loomwork.arch.numerics import ADD_LEFT_SHIFT
from loomwork.arch.registers import BY_NAME, COUNTERS, COUNTERS_OFFSET, CSR_BYTES, WINDOWS_OFFSET
from loomwork.rtl.compact.layout import (
    DATA_BYTES,
    ENGINE_BASE,
    GROUP_BITS,
    MAILBOX_BASE,
    MEMORY_BASE,
    PARTS,
    ROM_BYTES,
    ROM_STEP_BYTES,
    ROW_BITS,
    SIZE_BITS,
    STEP_BITS,
    X_BITS,
    Layout,
    Mailbox,
    Register,
    Result,
)

STACK_BYTES = 1024
NO_MAXIMUM = 127
"""In the table of limits: as far as the bits go."""
WINDOW_ALIGNMENT = 4096
"""Of the windows' bases (arch/registers.py)."""
_SIGNED = 64
"""In the table of fields: beside the width."""


class FirmwareError(RuntimeError):
    """The firmware cannot be compiled, or is too large."""


def build_firmware(layout: Layout) -> tuple[int, ...]:
    """The firmware for a compact core, as words from address 0 on. Raises FirmwareError."""
    sources = files("loomwork.rtl.compact").joinpath("firmware")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for source in sources.iterdir():
            (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        (folder / "loomwork.h").write_text(c_header(), encoding="utf-8")
        (folder / "layout.h").write_text(layout_header(layout), encoding="utf-8")
        script = folder / "link.ld"
        text = script.read_text(encoding="utf-8").replace("DATA_BASE", f"{MEMORY_BASE + layout.data:#x}")
        script.write_text(text.replace("DATA_ROOM", str(DATA_BYTES - CSR_BYTES - STACK_BYTES)), encoding="utf-8")
        zig = (sys.executable, "-m", "ziglang")
        names = sorted(path.name for path in folder.glob("*.c"))
        _run(
            [
                *(*zig, "cc", "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+c"),
                *("-std=c11", "-Oz", "-flto", "-ffreestanding", "-fno-builtin", "-nostdlib", "-fno-sanitize=all"),
                *("-ffunction-sections", "-Wl,--gc-sections", "-Wall", "-Wextra", "-Werror", "-T", "link.ld"),
                *("-o", "firmware.elf", *names),
            ],
            folder,
        )
        _run([*zig, "objcopy", "-O", "binary", "--only-section=.text", "firmware.elf", "firmware.bin"], folder)
        image = (folder / "firmware.bin").read_bytes()
    if len(image) > ROM_BYTES:
        raise FirmwareError(f"the firmware has {len(image)} bytes, there is room for {ROM_BYTES}")
    image += bytes(-len(image) % ROM_STEP_BYTES)
    return tuple(int.from_bytes(image[at : at + 4], "little") for at in range(0, len(image), 4))


def _run(command: Sequence[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise FirmwareError(f"the firmware cannot be compiled:\n{result.stderr.strip()}")


def layout_header(layout: Layout) -> str:
    """`layout.h`: sizes, addresses, and the ranges of operands."""
    config = layout.config
    operands = {
        f"{insn.mnemonic}_{item.name.upper()}": index for insn in INSNS for index, item in enumerate(insn.fields)
    }
    numbers = {
        "ROW_SHIFT": (config.rows - 1).bit_length(),
        "ARRAY_ROWS": config.rows,
        "ALL_LANES": (1 << config.rows) - 1,
        "BUS_BYTES": config.bus_bytes,
        "BANK_WORDS": config.bank_words,
        "ACCUMULATOR_DEPTH": config.accumulator_depth,
        "QUEUE_DEPTH": config.queue_depth,
        "HAS_DEPTHWISE": int(config.depthwise),
        "TAPS_PER_GROUP": config.depthwise_taps,
        "KERNEL_GROUPS": config.depthwise_groups,
        "HAS_SKIP": int(config.block_sparsity),
        "HAS_ADD": int(config.residual_add),
        "HAS_MULTIPLY": int(config.elementwise_multiply),
        "HAS_TABLE": int(config.activation_table),
        "TABLE_ENTRIES": TABLE_ENTRIES,
        "ENTRIES_PER_COMMAND": ENTRIES_PER_COMMAND,
        "MASK_PASSES": MASK_PASSES,
        "MAX_PASSES": (1 << SIZE_BITS) - 1,
        "LAST_ROW": (1 << (ROW_BITS - 1)) - 1,
        "LAST_BYTE": (1 << (X_BITS - 1)) - 1,
        "LAST_STEP": (1 << STEP_BITS) - 1,
        "ROWS_LEFT_NEVER": (1 << GROUP_BITS) - 1,
        "ADD_LEFT_SHIFT": ADD_LEFT_SHIFT,
        "WRITABLE_WINDOWS": sum(1 << window for window in WRITABLE_WINDOWS),
        "FIRST_WINDOW": WINDOWS_OFFSET,
        "WINDOWS": len(Window),
        "WINDOW_BYTES": BY_NAME["CONSTANTS_SIZE"].offset - BY_NAME["COMMANDS_SIZE"].offset,
        "FIRST_COUNTER": COUNTERS_OFFSET,
        "COUNTERS": len(COUNTERS),
        "BANKS": BANKS,
        "REGISTER_BYTES": CSR_BYTES,
        "OPCODES": max(insn.opcode for insn in INSNS) + 1,
        "NO_MAXIMUM": NO_MAXIMUM,
        "FIELD_WIDTH": _SIGNED - 1,
        "FIELD_SIGNED": _SIGNED,
        "MAX_OPERANDS": max(len(insn.fields) for insn in INSNS),
        "COMBINE_OPERANDS": len(BY_MNEMONIC["COMBINE"].fields),
        "TICKET_UNITS": len(TICKET_UNITS),
        "UNITS": Unit.CONTROL.value,
    }
    addresses = {
        "MEMORY_BASE": MEMORY_BASE,
        "ENGINE_BASE": ENGINE_BASE,
        "MAILBOX_BASE": MAILBOX_BASE,
        "EXTERNAL_BYTES": layout.external,
        "REGISTERS": MEMORY_BASE + layout.registers,
        "SCRATCHPAD_WORD": layout.scratchpad // config.rows,
        "CONFIG_HASH_LOW": config.hash & 0xFFFF_FFFF,
        "CONFIG_HASH_HIGH": config.hash >> 32,
        "WINDOW_ALIGNMENT": WINDOW_ALIGNMENT,
    }
    if both := operands.keys() & (numbers | addresses).keys():
        raise ValueError(f"names of two things: {both}")
    instructions, shapes, limits = _tables()
    words = [f"(params) == {params.value} ? {params_words(params)}" for params in Params]
    lines = [
        "/* Generated by compact/build.py. */",
        "#include <stdint.h>",
        *(f"#define {name} {value}" for name, value in (operands | numbers).items()),
        *(f"#define {name} 0x{value:x}u" for name, value in addresses.items()),
        *(f"#define ENGINE_{register.name} {register.value}" for register in Register),
        *(f"#define RESULT_{result.name} {result.value}" for result in Result),
        *(f"#define MAILBOX_{member.name} {member.value}" for member in Mailbox),
        *(
            f"#define ENGINE_{register.name}_{bits.name}_{what} {value}"
            for register, parts in PARTS.items()
            for bits in parts
            for what, value in (("LOW", bits.low), ("MAX", f"0x{(1 << bits.width) - 1:x}u"))
        ),
        f"enum unit {{ {', '.join(f'UNIT_{unit.name} = {unit.value}' for unit in Unit)} }};",
        "/* Words of `rows` bytes behind the weights of a block. */",
        f"#define PARAMETER_WORDS(params) ({' : '.join([*words[:-1], words[-1].split('? ')[1]])})",
        "struct instruction { uint8_t unit, first_field, fields, first_limit, limits; };",
        "struct limit { uint8_t field; int8_t minimum, maximum; };",
        f"#define INSTRUCTIONS {{ {', '.join(instructions)} }}",
        f"#define FIELDS {{ {', '.join(shapes)} }}",
        f"#define LIMITS {{ {', '.join(limits)} }}",
    ]
    return "\n".join(lines) + "\n"


def _tables() -> tuple[list[str], list[str], list[str]]:
    """Initializers of three tables: commands, shapes of their fields, operands of a smaller range than their bits."""
    instructions: list[str] = []
    shapes: list[str] = []
    limits: list[str] = []
    for insn in INSNS:
        own = [_limit(index, item) for index, item in enumerate(insn.fields) if _is_limited(item)]
        # END is decoded where the next LOAD would be, and stays in no queue.
        unit = 0 if insn.unit is Unit.CONTROL else insn.unit.value
        row = (unit, len(shapes), len(insn.fields), len(limits), len(own))
        instructions.append(f"[{insn.opcode}] = {{ {', '.join(map(str, row))} }}")
        shapes += [str(item.bits | _SIGNED * _is_signed(item)) for item in insn.fields]
        limits += own
    return instructions, shapes, limits


def _is_signed(item: Field) -> bool:
    """Whether the firmware takes it as signed: also where the highest bit must not be set, which is negative then."""
    return item.signed or item.high == (1 << (item.bits - 1)) - 1


def _is_limited(item: Field) -> bool:
    natural = (1 << (item.bits - item.signed)) - 1
    return item.high < natural or item.low > (-natural - 1 if item.signed else 0)


def _limit(index: int, item: Field) -> str:
    """A row of the table."""
    return f"{{ {index}, {item.low}, {min(NO_MAXIMUM, item.high)} }}"
