# SPDX-License-Identifier: Apache-2.0
"""The shape of one accelerator: every size that the generator and the compiler share."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

BANKS = 4
"""Scratchpad banks. Image row `y` lives in bank `y % BANKS`, so four neighbouring rows are read in one cycle."""


class ConfigError(ValueError):
    """A configuration that cannot be built; the message names the field, the value and what is possible."""


_KINDS: dict[Any, str] = {int: "a whole number", str: "text", bool: "true or false"}
"""The types of fields in plain words."""


@dataclass(frozen=True)
class Limit:
    """What one field of `Config` may be: `low` to `high`, and not more than the field `at_most` if that is set."""

    low: int
    high: int
    power_of_two: bool = True
    at_most: str | None = None


LIMITS: dict[str, Limit] = {
    "rows": Limit(2, 64),
    "cols": Limit(2, 64, at_most="rows"),
    "bus_bytes": Limit(2, 64, at_most="rows"),
    "requant_lanes": Limit(1, 64, at_most="cols"),
    "accumulator_depth": Limit(16, 1024),
    "queue_depth": Limit(2, 16),
    "stream_beats": Limit(32, 1024),
    "scratchpad_kib": Limit(1, 1024, power_of_two=False),
    "address_bits": Limit(24, 64, power_of_two=False),
}
"""Legal values of every number in a configuration."""
MAX_BANK_WORDS = 1 << 16
"""Scratchpad words per bank that a command can address."""


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """One accelerator configuration.

    name: identifier used in file names and messages.
    rows: PEs down a column = bytes of the reduction consumed per cycle = bytes of a scratchpad word.
    cols: PEs along a row = output channels computed at once.
    scratchpad_kib: on-chip activation memory in KiB, divided evenly over four banks.
    accumulator_depth: output pixels held by one half of the double-buffered accumulators.
    bus_bytes: bytes per beat of the AXI4 data bus.
    requant_lanes: channels that the drain requantizes per cycle.
    address_bits: width of an AXI address.
    queue_depth: commands that wait in front of each unit.
    stream_beats: bus beats of weights that are fetched ahead; covers the latency of external memory.
    residual_add: whether the drain holds the multipliers for ADD.
    elementwise_multiply: whether the drain can multiply two tensors, for MULTIPLY.
    depthwise: whether the array has the column buses for DEPTHWISE.
    activation_table: whether the drain holds the table for activation functions.
    block_sparsity: whether EXECUTE can leave out passes, for SKIP.
    deep_pipeline: whether more registers lie in and between the units, for a faster clock at some cycles per command.

    Raises ConfigError when a value is out of range.
    """

    name: str
    rows: int
    cols: int
    scratchpad_kib: int
    accumulator_depth: int
    bus_bytes: int
    requant_lanes: int
    address_bits: int = 32
    queue_depth: int = 4
    stream_beats: int = 128
    residual_add: bool = True
    elementwise_multiply: bool = True
    depthwise: bool = True
    activation_table: bool = True
    block_sparsity: bool = False
    deep_pipeline: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not field.type:
                # As JSON has it, where most configurations come from.
                raise ConfigError(f"{field.name} must be {_KINDS[field.type]}, not {json.dumps(value, default=repr)}")
        if not self.name.isidentifier():
            raise ConfigError(f"name must be an identifier (letters, digits, _), not {self.name!r}")
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            in_range = limit.low <= value <= limit.high
            if not in_range or (limit.power_of_two and not _is_power_of_two(value)):
                kind = "a power of two from" if limit.power_of_two else "from"
                raise ConfigError(f"{name} must be {kind} {limit.low} to {limit.high}, not {value}")
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if limit.at_most and value > (most := getattr(self, limit.at_most)):
                raise ConfigError(f"{name} must not exceed {limit.at_most} ({most}), not {value}")
        if self.bank_words > MAX_BANK_WORDS:
            raise ConfigError(
                f"scratchpad_kib={self.scratchpad_kib} gives {self.bank_words} words per bank, "
                f"more than the {MAX_BANK_WORDS} a command can address"
            )

    @property
    def scratchpad_bytes(self) -> int:
        """Bytes of activation memory."""
        return self.scratchpad_kib * 1024

    @property
    def bank_words(self) -> int:
        """Words of `rows` bytes in one scratchpad bank."""
        return self.scratchpad_bytes // (BANKS * self.rows)

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates the array performs per cycle when it is full."""
        return self.rows * self.cols

    @property
    def psum_bits(self) -> int:
        """Bits of a partial sum at the foot of a column: `rows` products of 16 bits."""
        return 16 + (self.rows - 1).bit_length()

    @property
    def weight_tile_bytes(self) -> int:
        """Bytes of the weights of one pass: `rows` x `cols` int8."""
        return self.rows * self.cols

    @property
    def depthwise_taps(self) -> int:
        """Array rows that share one column bus in depthwise mode: neighbouring taps of one kernel row."""
        return min(self.rows, max(4, self.rows // BANKS))

    @property
    def depthwise_groups(self) -> int:
        """Column buses in depthwise mode: kernel rows in one pass, each from another scratchpad bank."""
        return min(BANKS, self.rows // self.depthwise_taps)

    @property
    def channel_groups(self) -> int:
        """Cycles the drain spends on the `cols` channels of one pixel."""
        return self.cols // self.requant_lanes

    @property
    def hash(self) -> int:
        """64-bit fingerprint of every field but the name; programs and bitstreams carry it.

        Two configurations with equal sizes run the same programs, whatever they are called.
        """
        values = self.to_dict()
        del values["name"]
        text = json.dumps(values, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def to_dict(self) -> dict[str, int | str | bool]:
        """Plain values, in the order of declaration; `from_dict` reverses it.

        `block_sparsity` and `deep_pipeline` are only there when they are true: a configuration without them keeps the
        fingerprint, and its programs the bytes, from before there were these fields.
        """
        later = ("block_sparsity", "deep_pipeline")
        return {name: value for name, value in asdict(self).items() if value or name not in later}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Make a configuration from plain values (a JSON object).

        Raises ConfigError for an unknown, missing or ill-typed field.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ConfigError(f"unknown field {', '.join(unknown)}; the fields are {', '.join(known)}")
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
        if missing:
            raise ConfigError(f"missing field {', '.join(missing)}")
        return cls(**values)


FORMAL = Config(
    name="formal", rows=2, cols=2, scratchpad_kib=1, accumulator_depth=16, bus_bytes=2, requant_lanes=2, stream_beats=32
)
"""The smallest: for proofs and for tests of odd shapes."""

NANO = Config(
    name="nano", rows=4, cols=4, scratchpad_kib=64, accumulator_depth=64, bus_bytes=4, requant_lanes=1, stream_beats=64
)
"""16 MAC/cycle, for an iCE40UP5K."""

TINY = Config(
    name="tiny", rows=4, cols=4, scratchpad_kib=16, accumulator_depth=32, bus_bytes=4, requant_lanes=2, stream_beats=64
)
"""16 MAC/cycle with little memory: quick to build, used by the tests."""

SMALL = Config(name="small", rows=8, cols=8, scratchpad_kib=64, accumulator_depth=128, bus_bytes=8, requant_lanes=8)
"""64 MAC/cycle."""

MID = Config(name="mid", rows=16, cols=8, scratchpad_kib=128, accumulator_depth=256, bus_bytes=16, requant_lanes=8)
"""128 MAC/cycle, for an ECP5-85F."""

BASE = Config(name="base", rows=16, cols=16, scratchpad_kib=256, accumulator_depth=256, bus_bytes=16, requant_lanes=16)
"""256 MAC/cycle, the benchmark shape."""

LARGE = Config(
    name="large", rows=32, cols=32, scratchpad_kib=512, accumulator_depth=256, bus_bytes=32, requant_lanes=32
)
"""1024 MAC/cycle."""

PRESETS: dict[str, Config] = {config.name: config for config in (FORMAL, NANO, TINY, SMALL, MID, BASE, LARGE)}
"""Configurations by name, smallest first."""


def load_config(name_or_file: str) -> Config:
    """Find a preset by name, or read a JSON file of the fields of `Config`.

    A file may say `"base": PRESET` and then only what differs. Raises ConfigError, naming the presets or what is wrong
    with the file.
    """
    if name_or_file in PRESETS:
        return PRESETS[name_or_file]
    path = Path(name_or_file)
    if not path.exists() or path.is_dir():  # what is neither is a file or a pipe
        raise ConfigError(f"no preset and no file is called {name_or_file!r}; the presets are {', '.join(PRESETS)}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object of configuration fields")
    origin = values.pop("base", None)
    if origin is not None:
        if not isinstance(origin, str) or origin not in PRESETS:
            raise ConfigError(f"{path}: base must be one of {', '.join(PRESETS)}, not {origin!r}")
        name = path.stem if path.is_file() else "custom"  # a pipe's name is a number
        values = {**PRESETS[origin].to_dict(), "name": name, **values}
    try:
        return Config.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
