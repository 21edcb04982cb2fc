# SPDX-License-Identifier: Apache-2.0
"""The register map: one table from which CSR RTL, driver, C header and docs are made.

32-bit registers behind AXI4-Lite, one every four bytes. Access kinds:
READ (hardware sets it), READ_WRITE (software sets it), WRITE_PULSE (a written 1 acts for one cycle, reads as 0),
STICKY (hardware sets bits, software clears them by writing 1).
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

from loomwork.arch.isa import Window, isa_hash


class Access(Enum):
    """What reading and writing a register does."""

    READ = "r"
    READ_WRITE = "rw"
    WRITE_PULSE = "wp"
    STICKY = "rw1c"


class ErrorCode(IntEnum):
    """Why the engine stopped."""

    NONE = 0
    ILLEGAL_OPCODE = 1
    """No such command."""
    ILLEGAL_OPERAND = 2
    """An operand outside its range in the table, operands that exclude each other, or bits set behind the last one."""
    WINDOW = 3
    """A transfer outside its window, not aligned to the bus, or a write to a window that is read-only."""
    SCRATCHPAD = 4
    """A scratchpad address beyond the last word, or a tile larger than the accumulators."""
    BUS_READ = 5
    """SLVERR or DECERR on a read."""
    BUS_WRITE = 6
    """SLVERR or DECERR on a write."""
    WATCHDOG = 7
    """No command finished for WATCHDOG cycles."""


@dataclass(frozen=True)
class Bits:
    """A named part of a register."""

    name: str
    low: int
    width: int
    doc: str


@dataclass(frozen=True)
class Register:
    """One 32-bit register: name, byte offset, access, reset value, parts."""

    name: str
    offset: int
    access: Access
    doc: str
    bits: tuple[Bits, ...] = ()
    reset: int = 0

    def mask(self, name: str) -> int:
        """The bits of one named part, in place. Raises KeyError for a name the register does not have."""
        for part in self.bits:
            if part.name == name:
                return (1 << part.width) - 1 << part.low
        raise KeyError(f"{self.name} has no part {name!r}")


ID_VALUE = 0x4C4F4F4D
"""'LOOM'."""
INTERFACE_VERSION = 1

COUNTERS: tuple[tuple[str, str], ...] = (
    ("cycles", "cycles from start to done"),
    ("load_busy", "cycles in which LOAD runs a command"),
    ("execute_busy", "cycles in which EXECUTE runs a command"),
    ("drain_busy", "cycles in which DRAIN runs a command"),
    ("store_busy", "cycles in which STORE runs a command"),
    ("stream_busy", "cycles in which STREAM runs a command"),
    ("array_active", "cycles in which a pixel enters the array"),
    ("execute_wait_ticket", "cycles in which EXECUTE waits for another unit's ticket"),
    ("execute_wait_weights", "cycles in which EXECUTE waits for weights"),
    ("execute_wait_accumulator", "cycles in which EXECUTE waits for a free accumulator half"),
    ("drain_wait_ticket", "cycles in which DRAIN waits for another unit's ticket"),
    ("drain_wait_accumulator", "cycles in which DRAIN waits for finished sums"),
    ("drain_wait_bank", "cycles in which DRAIN waits for a scratchpad bank"),
    ("load_wait_ticket", "cycles in which LOAD waits for another unit's ticket"),
    ("store_wait_ticket", "cycles in which STORE waits for another unit's ticket"),
    ("fetch_wait_queue", "cycles in which a command waits for room in its unit's queue"),
    ("read_beats", "beats read on the bus"),
    ("write_beats", "beats written on the bus"),
)
"""Performance counters, in the order of their registers; 32 bits each, cleared by start."""

_FIXED = (
    Register("ID", 0x000, Access.READ, "Reads as 'LOOM'.", reset=ID_VALUE),
    Register("VERSION", 0x004, Access.READ, "Version of this register map.", reset=INTERFACE_VERSION),
    Register("ISA_HASH", 0x008, Access.READ, "Fingerprint of the command set.", reset=isa_hash()),
    Register("CONFIG_HASH_LOW", 0x00C, Access.READ, "Fingerprint of the configuration, bits 31..0."),
    Register("CONFIG_HASH_HIGH", 0x010, Access.READ, "Fingerprint of the configuration, bits 63..32."),
    Register(
        "CONTROL",
        0x014,
        Access.WRITE_PULSE,
        "Start and reset.",
        (
            Bits("START", 0, 1, "Run the program in window COMMANDS from its first command. Ignored while busy."),
            Bits("RESET", 1, 1, "Soft reset: finish what is on the bus, then clear the engine and any error."),
        ),
    ),
    Register(
        "STATUS",
        0x018,
        Access.READ,
        "What the engine does.",
        (
            Bits("BUSY", 0, 1, "A program runs, or a soft reset waits for the bus."),
            Bits("DONE", 1, 1, "The last program reached END and every unit is idle."),
            Bits("ERROR", 2, 1, "The engine stopped; see ERROR_CODE. Only a soft reset clears it."),
        ),
    ),
    Register(
        "IRQ_ENABLE",
        0x01C,
        Access.READ_WRITE,
        "Which events raise the interrupt.",
        (Bits("DONE", 0, 1, "A program ended."), Bits("ERROR", 1, 1, "The engine stopped.")),
    ),
    Register(
        "IRQ_STATUS",
        0x020,
        Access.STICKY,
        "Events since last cleared; the interrupt is the OR of those enabled.",
        (Bits("DONE", 0, 1, "A program ended."), Bits("ERROR", 1, 1, "The engine stopped.")),
    ),
    Register("ERROR_CODE", 0x024, Access.READ, "Why the engine stopped (ErrorCode)."),
    Register("ERROR_COMMAND", 0x028, Access.READ, "Byte offset in the COMMANDS window of the command that failed."),
    Register(
        "WATCHDOG",
        0x02C,
        Access.READ_WRITE,
        "Cycles without a finished command or a bus beat after which the engine stops; 0 = never.",
    ),
)

WINDOWS_OFFSET = 0x040
COUNTERS_OFFSET = 0x0C0
CSR_BYTES = 0x200
"""Size of the register space."""

REGISTERS: tuple[Register, ...] = (
    *_FIXED,
    *(
        register
        for window in Window
        for register in (
            Register(
                f"{window.name}_BASE_LOW",
                WINDOWS_OFFSET + 16 * window,
                Access.READ_WRITE,
                f"First byte of window {window.name}, bits 31..0; a multiple of 4096.",
            ),
            Register(
                f"{window.name}_BASE_HIGH",
                WINDOWS_OFFSET + 16 * window + 4,
                Access.READ_WRITE,
                f"First byte of window {window.name}, bits 63..32 (as far as the bus has address bits).",
            ),
            Register(
                f"{window.name}_SIZE",
                WINDOWS_OFFSET + 16 * window + 8,
                Access.READ_WRITE,
                f"Bytes in window {window.name}; a transfer that would pass its end stops the engine.",
            ),
        )
    ),
    *(
        Register(f"COUNT_{name.upper()}", COUNTERS_OFFSET + 4 * index, Access.READ, f"Counter: {doc}.")
        for index, (name, doc) in enumerate(COUNTERS)
    ),
)

BY_NAME = {register.name: register for register in REGISTERS}
