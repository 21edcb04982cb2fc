# SPDX-License-Identifier: Apache-2.0
"""What hardware and firmware of the compact core agree on: addresses, and the registers of the engine.

The header of the firmware is made from this table (`firmware/`).
"""

from dataclasses import dataclass
from enum import IntEnum

from loomwork.arch.config import BANKS, Config, ConfigError
from loomwork.arch.registers import CSR_BYTES

ROM_BYTES, ROM_STEP_BYTES = 16384, 2048
"""Of the firmware's instructions and constants: at most, and a multiple of."""
DATA_BYTES = 8192
"""Of memory that is the firmware's own, with the copy of the registers of arch/registers.py at its end."""

LIMITS = {"accumulator_depth": 256, "queue_depth": 4, "bank_words": 8192}
"""What the firmware's memory and the fields of the engine's registers hold."""

MEMORY_BASE, ENGINE_BASE, MAILBOX_BASE = 0x1000_0000, 0x2000_0000, 0x3000_0000
"""Where the processor finds the memory, the engine and the mailbox; the firmware lies at 0."""
REGION_SHIFT = 28


class Register(IntEnum):
    """Registers of the engine that the processor writes, one every four bytes. Bits are given as high:low."""

    ROW_ADDRESS = 0
    """Word in the memory where the image row of the first pixel begins."""
    ROW = 1
    """13:0 image row of the first pixel, signed; 15:14 its bank; 26:16 rows in bank 3 before the ring ends."""
    WRAP = 2
    """Words from a row in bank 3 to the next one, signed: 15:0 usually, 31:16 where the ring ends."""
    HEIGHT = 3
    """12:0 image rows; 19:16 image rows from one row of pixels to the next."""
    X = 4
    """Byte in its image row where the first pixel begins, signed."""
    X_STEP = 5
    """12:0 bytes from pixel to pixel; 31:16 bytes of an image row."""
    SIZE = 6
    """9:0 pixels per row; 25:16 rows of pixels."""
    PIXEL = 7
    """9:0 first pixel in the accumulators; 13:10 from pixel to pixel; 25:16 from row to row of pixels."""
    WEIGHTS = 8
    """Word in the memory where the weights of the first pass lie, the others behind them."""
    PAD = 9
    """7:0 value outside of the image; 15:8 column of the accumulators that is drained."""
    PASS = 10
    """Start the array: 9:0 passes; 17:10 rows of the array that get weights; 30 the word of weights is the diagonal;
    31 the first pass overwrites the accumulators."""
    BIAS = 11
    """Added to each value."""
    MULTIPLIER = 12
    """Q31."""
    SCALE = 13
    """5:0 shift, signed; 6 rounding; 15:8 zero point; 23:16 lower, 31:24 upper clamp."""
    DRAIN = 14
    """Start: requantize one column of the accumulators and write its bytes to the image rows."""
    VALUE = 15
    """Start: requantize this value."""


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
