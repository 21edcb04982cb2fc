# SPDX-License-Identifier: Apache-2.0
"""A verilated compact core, which programs run on as on a board but without the serial line between."""

import ctypes
from collections.abc import Callable
from pathlib import Path

from amaranth.back import verilog

from loomwork.arch.config import Config
from loomwork.rtl.compact.build import build_firmware
from loomwork.rtl.compact.core import CompactCore
from loomwork.rtl.compact.layout import Layout
from loomwork.rtl.compact.processor import processor_verilog
from loomwork.sim.library import Simulation, build_simulation, design_fingerprint

_TOP = "loomwork_compact"
_HARNESS = Path(__file__).with_name("harness.cpp")


def core_library(config: Config, memory_bytes: int) -> Path:
    """Verilate a compact core, or find it in the cache."""
    layout = Layout(config, memory_bytes)
    firmware = build_firmware(layout)

    def design() -> str:
        return verilog.convert(CompactCore(layout, firmware), name=_TOP, emit_src=False) + processor_verilog()

    return build_simulation(
        Simulation(
            name=f"{config.name}-compact",
            fingerprint=f"{design_fingerprint(config)} {memory_bytes} {firmware} {processor_verilog()}",
            verilog=design,
            top=_TOP,
            harness=_HARNESS.read_text(encoding="utf-8"),
            defines=(),
        )
    )


class DirectLink:
    """The methods of `HostLink` that `BoardBackend` needs, on a core in this process."""

    def __init__(self, config: Config, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        library = ctypes.CDLL(str(core_library(config, memory_bytes)))
        library.core_create.restype = ctypes.c_void_p
        library.core_access.restype = ctypes.c_int64
        library.core_step.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        library.core_irq.restype = ctypes.c_uint32
        self._library = library
        self._core = ctypes.c_void_p(library.core_create())
        self.step(10_000)  # until its firmware has begun

    def _access(self, of_registers: bool, write: bool, address: int, value: int = 0) -> int:
        found = self._library.core_access(self._core, of_registers, write, address, value)
        assert found >= 0, "the core does not answer"
        return found

    def step(self, cycles: int) -> None:
        self._library.core_step(self._core, cycles)

    @property
    def irq(self) -> bool:
        """Whether the interrupt is raised."""
        return bool(self._library.core_irq(self._core))

    def read_memory(self, address: int, count: int) -> bytes:
        words = [self._access(False, False, address + at) for at in range(0, count, 4)]
        return b"".join(word.to_bytes(4, "little") for word in words)[:count]

    def write_memory(self, address: int, data: bytes, *, progress: Callable[[int], None] = lambda _: None) -> None:
        for at in range(0, len(data), 4):
            self._access(False, True, address + at, int.from_bytes(data[at : at + 4], "little"))

    def read_registers(self, offset: int, count: int) -> list[int]:
        return [self.read_register(offset + 4 * index) for index in range(count)]

    def read_register(self, offset: int) -> int:
        self.step(1000)  # polling shall not take longer than computing
        return self._access(True, False, offset)

    def write_register(self, offset: int, value: int) -> None:
        self._access(True, True, offset, value)
