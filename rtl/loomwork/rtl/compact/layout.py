# SPDX-License-Identifier: Apache-2.0
"""What hardware and firmware of the compact core agree on: addresses, and the registers of the engine.

The header of the firmware is made from this table (`firmware/`).
"""

from dataclasses import dataclass
from enum import IntEnum

from loomwork.arch.config import BANKS, Config, ConfigError
from loomwork.arch.registers import CSR_BYTES, Bits

ROM_BYTES, ROM_STEP_BYTES = 16384, 2048
"""Of the firmware's instructions and constants: at most, and a multiple of."""
DATA_BYTES = 8192
"""Of memory that is the firmware's own, with the copy of the registers of arch/registers.py at its end."""

LIMITS = {"accumulator_depth": 256, "queue_depth": 4, "bank_words": 8192}
"""What the firmware's memory and the fields of the engine's registers hold."""

MEMORY_BASE, ENGINE_BASE, MAILBOX_BASE = 0x1000_0000, 0x2000_0000, 0x3000_0000
"""Where the processor finds the memory, the engine and the mailbox; the firmware lies at 0."""
REGION_SHIFT = 28


ROW_BITS, BANK_BITS, GROUP_BITS = 14, 2, 11
X_BITS = 20
SIZE_BITS = 10
STEP_BITS = 13
"""Of the bytes from pixel to pixel."""
ROW_STEP_BITS = 4
NUMBER_BITS = 10
"""Of a pixel's number in the accumulators."""


class Register(IntEnum):
    """Registers of the engine that the processor writes, one every four bytes; their parts are in PARTS."""

    ROW_ADDRESS = 0
    """Word in the memory where the image row of the first pixel begins."""
    ROW = 1
    """Image row of the first pixel."""
    WRAP = 2
    """Words from a row in the last bank to the next one, signed."""
    HEIGHT = 3
    """Of the image, and of a step to the next row of pixels."""
    X = 4
    """Byte in its image row where the first pixel begins, signed."""
    X_STEP = 5
    """From pixel to pixel, and the length of an image row."""
    SIZE = 6
    """Of the tile."""
    PIXEL = 7
    """Numbers of pixels in the accumulators."""
    WEIGHTS = 8
    """Word in the memory where the weights of the first pass lie, the others behind them."""
    PAD = 9
    """Outside of the image; and the column that is drained."""
    PASS = 10
    """Start the array."""
    BIAS = 11
    """Added to each value."""
    MULTIPLIER = 12
    """Q31."""
    SCALE = 13
    """The rest of the requantization."""
    DRAIN = 14
    """Start: requantize one column of the accumulators and write its bytes to the image rows."""
    VALUE = 15
    """Start: requantize this value."""


PARTS: dict[Register, tuple[Bits, ...]] = {
    Register.ROW: (
        Bits("ROW", 0, ROW_BITS, "image row of the first pixel, signed"),
        Bits("BANK", 14, BANK_BITS, "its bank"),
        Bits("LEFT", 16, GROUP_BITS, "rows in the last bank before the ring ends"),
    ),
    Register.WRAP: (Bits("USUAL", 0, 16, "within a ring"), Bits("RING", 16, 16, "where the ring ends")),
    Register.HEIGHT: (
        Bits("ROWS", 0, 13, "image rows"),
        Bits("STEP", 16, ROW_STEP_BITS, "image rows from one row of pixels to the next"),
    ),
    Register.X_STEP: (
        Bits("STEP", 0, STEP_BITS, "bytes from pixel to pixel"),
        Bits("ROW_BYTES", 16, 16, "bytes of an image row"),
    ),
    Register.SIZE: (
        Bits("WIDTH", 0, SIZE_BITS, "pixels per row"),
        Bits("HEIGHT", 16, SIZE_BITS, "rows of pixels"),
    ),
    Register.PIXEL: (
        Bits("FIRST", 0, NUMBER_BITS, "first pixel"),
        Bits("STEP", 10, ROW_STEP_BITS, "from pixel to pixel"),
        Bits("ROW", 16, NUMBER_BITS, "from row to row of pixels"),
    ),
    Register.PAD: (
        Bits("VALUE", 0, 8, "value outside of the image"),
        Bits("COLUMN", 8, 24, "column of the accumulators"),
    ),
    Register.PASS: (
        Bits("COUNT", 0, SIZE_BITS, "passes"),
        Bits("LANES", 10, 20, "rows of the array whose weights count, one bit each"),
        Bits("DIAGONAL", 30, 1, "there is one word of weights, the diagonal"),
        Bits("OVERWRITES", 31, 1, "the first pass overwrites the accumulators"),
    ),
    Register.SCALE: (
        Bits("SHIFT", 0, 6, "signed"),
        Bits("ROUNDING", 6, 1, "rounding rule"),
        Bits("ZERO_POINT", 8, 8, "zero point"),
        Bits("MINIMUM", 16, 8, "lower clamp"),
        Bits("MAXIMUM", 24, 8, "upper clamp"),
    ),
}
"""What the bits of the engine's registers mean; a register that is not here is one number."""


class Result(IntEnum):
    """What the processor reads of the engine, one every four bytes."""

    BUSY = 0
    """Whether the engine is at work."""
    SCALED = 1
    """The last value, requantized."""
    FINISHED = 2
    """Likewise, with zero point and clamped."""
    ACCUMULATOR = 3
    """What lies in the accumulators at PIXEL and PAD."""


class Mailbox(IntEnum):
    """Between host link and firmware, one every four bytes."""

    OFFSET = 0
    """Read: 1 behind the offset of the register that the host writes, 0 when it writes none. Written: it is done."""
    VALUE = 1
    """Read: what the host writes. Written: whether the interrupt is raised."""
    CYCLES = 2
    """Read: clock cycles since reset."""


@dataclass(frozen=True)
class Layout:
    """How a compact core of a configuration divides its memory; sizes in bytes.

    external: what serves as external memory. Raises ConfigError for a configuration that the compact core has not.
    """

    config: Config
    external: int

    def __post_init__(self) -> None:
        config = self.config
        if config.rows != config.cols or not 4 <= config.rows <= 8:
            raise ConfigError(f"a compact core has 4 x 4 or 8 x 8 PEs, not {config.rows} x {config.cols}")
        if config.bus_bytes != config.rows:
            raise ConfigError(f"a compact core has bus_bytes {config.rows}, as many as rows, not {config.bus_bytes}")
        for name, most in LIMITS.items():
            if (value := getattr(config, name)) > most:
                raise ConfigError(f"a compact core has {name} of at most {most}, not {value}")

    @property
    def data(self) -> int:
        """Where the firmware's own memory begins."""
        return self.external

    @property
    def registers(self) -> int:
        """Where the copy of the registers begins."""
        return self.external + DATA_BYTES - CSR_BYTES

    @property
    def scratchpad(self) -> int:
        """Where the scratchpad begins: bank 0, with the other banks behind it."""
        return self.external + DATA_BYTES

    @property
    def words(self) -> int:
        """Words of `rows` bytes of all."""
        return (self.scratchpad + BANKS * self.config.bank_words * self.config.rows) // self.config.rows

    @property
    def address_bits(self) -> int:
        """Bits of the number of a word."""
        return (self.words - 1).bit_length()
