# SPDX-License-Identifier: Apache-2.0
"""What software does to a core through its registers (docs/driving.md), whatever way it reaches them."""

from abc import ABC, abstractmethod

from loomwork.arch.command import decode
from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, Window, isa_hash
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.registers import BY_NAME, COUNTERS, ID_VALUE, INTERFACE_VERSION, ErrorCode
from loomwork.sim.backend import RunError

WINDOW_ALIGNMENT = 4096
_RESET_POLLS = 1000


class EngineError(RunError):
    """The engine stopped with an error.

    code: why. offset: byte of the failing command in the COMMANDS window.
    """

    def __init__(self, code: ErrorCode, offset: int, command: str) -> None:
        super().__init__(f"the engine stopped with {code.name} at command byte {offset} ({command})")
        self.code = code
        self.offset = offset


class Driver(ABC):
    """A core that is driven by its registers."""

    @abstractmethod
    def read(self, register: str) -> int:
        """Read a register by name."""

    @abstractmethod
    def write(self, register: str, value: int) -> None:
        """Write a register by name."""

    @abstractmethod
    def pause(self) -> None:
        """Let some time pass before looking again."""

    def check_identity(self, config: Config) -> None:
        """Raises RunError when this is no core, or one for other programs than those of a configuration."""
        if (found := self.read("ID")) != ID_VALUE:
            raise RunError(f"there is no Loomwork core: ID reads {found:#010x} instead of {ID_VALUE:#010x}")
        hashes = {
            "VERSION": INTERFACE_VERSION,
            "ISA_HASH": isa_hash(),
            "CONFIG_HASH_LOW": config.hash & 0xFFFF_FFFF,
            "CONFIG_HASH_HIGH": config.hash >> 32,
        }
        for name, expected in hashes.items():
            if (found := self.read(name)) != expected:
                raise RunError(f"the core's {name} is {found:#010x}, the program needs {expected:#010x}")

    def set_window(self, window: Window, base: int, size: int) -> None:
        """Tell the core where a window lies. base: a multiple of WINDOW_ALIGNMENT. size: bytes."""
        self.write(f"{window.name}_BASE_LOW", base & 0xFFFF_FFFF)
        self.write(f"{window.name}_BASE_HIGH", base >> 32)
        self.write(f"{window.name}_SIZE", size)

    def start(self) -> None:
        """Enable the interrupt and start the program."""
        events = BY_NAME["IRQ_ENABLE"].mask("DONE") | BY_NAME["IRQ_ENABLE"].mask("ERROR")
        self.write("IRQ_STATUS", events)
        self.write("IRQ_ENABLE", events)
        self.write("CONTROL", BY_NAME["CONTROL"].mask("START"))

    def is_busy(self) -> bool:
        """Whether a program runs or a soft reset waits."""
        return bool(self.read("STATUS") & BY_NAME["STATUS"].mask("BUSY"))

    def raise_error(self, step: AcceleratorStep) -> None:
        """Raises EngineError when the program of a step was stopped by one; the engine is reset before."""
        if not self.read("STATUS") & BY_NAME["STATUS"].mask("ERROR"):
            return
        code, offset = ErrorCode(self.read("ERROR_CODE")), self.read("ERROR_COMMAND")
        self.reset()
        word = step.commands[offset : offset + COMMAND_BYTES]
        try:
            name = decode(word).mnemonic
        except ValueError:
            name = "not a command"
        raise EngineError(code, offset, name)

    def reset(self) -> None:
        """Soft reset: afterwards the engine is idle and without error. Raises RunError when it does not come back."""
        self.write("CONTROL", BY_NAME["CONTROL"].mask("RESET"))
        for _ in range(_RESET_POLLS):
            if not self.is_busy():
                return
            self.pause()
        raise RunError("the engine did not come back from a soft reset")

    def counters(self) -> dict[str, int]:
        """All performance counters."""
        return {name: self.read(f"COUNT_{name.upper()}") for name, _ in COUNTERS}
