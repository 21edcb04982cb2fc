# SPDX-License-Identifier: Apache-2.0
"""The compact cores that the tests run on, and programs of hand-made commands on them."""

from dataclasses import dataclass, replace
from functools import cache

from loomwork.arch.command import Command, encode
from loomwork.arch.config import NANO, TINY, Config
from loomwork.arch.isa import Window
from loomwork.arch.registers import BY_NAME, ErrorCode
from loomwork.rtl.compact.layout import Layout
from tests.rtl.compact.core import DirectLink

FOUR = replace(NANO, name="compact_four", accumulator_depth=128, block_sparsity=True)
EIGHT = replace(NANO, name="compact_eight", rows=8, cols=8, bus_bytes=8, requant_lanes=2)
BARE = replace(
    TINY,
    name="compact_bare",
    residual_add=False,
    elementwise_multiply=False,
    depthwise=False,
    activation_table=False,
    block_sparsity=False,
)
"""Without everything that a configuration can leave out."""
MEMORY_BYTES = {FOUR.name: 256 << 10, EIGHT.name: 256 << 10, BARE.name: 64 << 10}
BUSY, DONE, ERROR = (BY_NAME["STATUS"].mask(name) for name in ("BUSY", "DONE", "ERROR"))
START, RESET = (BY_NAME["CONTROL"].mask(name) for name in ("START", "RESET"))
EVENTS = BY_NAME["IRQ_STATUS"].mask("DONE") | BY_NAME["IRQ_STATUS"].mask("ERROR")
PAGE = 4096
LONGEST = 20_000_000
"""Cycles after which a program counts as one that never ends."""


@dataclass(frozen=True)
class Stop:
    """How a program has ended: NONE when it reached END."""

    code: ErrorCode
    offset: int


class Machine:
    """A core, its registers by name, and windows that it places itself with gaps between them."""

    def __init__(self, config: Config, memory_bytes: int) -> None:
        self.config = config
        self.layout = Layout(config, memory_bytes)
        self.link = DirectLink(config, memory_bytes)
        self.bases: dict[Window, int] = {}
        self.sizes: dict[Window, int] = {}

    def read(self, register: str) -> int:
        return self.link.read_register(BY_NAME[register].offset)

    def write(self, register: str, value: int) -> None:
        self.link.write_register(BY_NAME[register].offset, value)

    def place(self, contents: dict[Window, bytes]) -> None:
        """Put windows into the memory, each at a page of its own with at least a free one behind it."""
        base = PAGE
        for window in Window:
            content = contents.get(window, b"")
            assert base + len(content) <= self.link.memory_bytes
            self.link.write_memory(base, content + bytes(-len(content) % 4))
            self.set_window(window, base, len(content))
            base += -(-len(content) // PAGE) * PAGE + PAGE

    def set_window(self, window: Window, base: int, size: int) -> None:
        self.bases[window], self.sizes[window] = base, size
        self.write(f"{window.name}_BASE_LOW", base)
        self.write(f"{window.name}_SIZE", size)

    def load(self, commands: list[Command] | bytes, contents: dict[Window, bytes]) -> None:
        data = commands if isinstance(commands, bytes) else b"".join(map(encode, commands))
        self.place({Window.COMMANDS: data, **contents})

    def start(self) -> None:
        self.write("CONTROL", START)

    def reset(self) -> None:
        self.write("CONTROL", RESET)
        assert not self.wait(100_000) & (BUSY | ERROR)

    def wait(self, cycles: int = LONGEST) -> int:
        """The status when the core has ended, or after so many cycles."""
        status = self.read("STATUS")  # which takes a thousand cycles
        for _ in range(cycles // 1000 - 1):
            if not status & BUSY:
                break
            status = self.read("STATUS")
        return status

    def ended(self, cycles: int = LONGEST) -> Stop:
        """Wait for the end of the program; fails when there is none."""
        status = self.wait(cycles)
        assert not status & BUSY, f"the program does not end within {cycles} cycles"
        assert status in (DONE, ERROR)
        return Stop(ErrorCode(self.read("ERROR_CODE")), self.read("ERROR_COMMAND"))

    def run(self, commands: list[Command] | bytes, contents: dict[Window, bytes]) -> Stop:
        self.load(commands, contents)
        self.start()
        return self.ended()

    def content(self, window: Window) -> bytes:
        return self.link.read_memory(self.bases[window], self.sizes[window])

    def memory(self) -> bytes:
        return self.link.read_memory(0, self.link.memory_bytes)


@cache
def machine(config: Config) -> Machine:
    """The core of a configuration, which all tests of a process share; each leaves it idle."""
    return Machine(config, MEMORY_BYTES[config.name])
