# SPDX-License-Identifier: Apache-2.0
"""The Verilator backend: the generated Verilog as a shared library with a memory model, driven by its registers."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from loomwork.arch.config import Config
from loomwork.arch.isa import READABLE_WINDOWS, WRITABLE_WINDOWS, Window
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.registers import BY_NAME
from loomwork.rtl.control import START_CYCLES
from loomwork.sim.backend import Event, RunError, StepStatistics
from loomwork.sim.driver import WINDOW_ALIGNMENT, Driver
from loomwork.sim.library import TRACE_UNITS, build_library
from loomwork.sim.memory import Bytes, MemoryTiming, padded

WATCHDOG_CYCLES = 100_000
ANSWER_CYCLES = 2
"""From the cycle in which a register is written to the one behind its answer."""
PROGRESS_CYCLES = 50_000
"""Cycles between two reports of progress: under a second of simulation."""


class _CEvent(ctypes.Structure):
    _fields_ = (
        ("cycle", ctypes.c_uint64),
        ("unit", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
    )


class VerilatorBackend:
    """Runs accelerator steps on the RTL.

    One model per configuration is built on first use and kept; images follow each other on it without a reset.
    timing: of the external memory. trace: collect the timeline of every run. report: told before long work.
    max_cycles: a run longer than this is given up with RunError. progress: told the cycles done since `start`.
    """

    def __init__(
        self,
        *,
        timing: MemoryTiming | None = None,
        trace: bool = False,
        report: Callable[[str], None] | None = None,
        max_cycles: int = 200_000_000,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._timing = timing or MemoryTiming()
        self._trace = trace
        self._report = report
        self._max_cycles = max_cycles
        self._progress = progress
        self._engines: dict[Config, Engine] = {}

    def run_step(
        self, config: Config, step: AcceleratorStep, inputs: Bytes, output_bytes: int
    ) -> tuple[Bytes, list[StepStatistics]]:
        """See `Backend.run_step`. Raises EngineError when the engine stops with an error."""
        if config not in self._engines:
            self._engines[config] = Engine(config, self._timing, report=self._report)
        engine = self._engines[config]
        outputs = np.zeros((len(inputs), output_bytes), dtype=np.uint8)
        statistics = [
            engine.run(step, image, output, trace=self._trace, max_cycles=self._max_cycles, progress=self._progress)
            for image, output in zip(inputs, outputs, strict=True)
        ]
        return outputs, statistics


class Engine(Driver):
    """One verilated core with its memory, addressed through its registers.

    Raises RunError when the core's identity does not match this version of the command set and configuration.
    """

    def __init__(self, config: Config, timing: MemoryTiming, *, report: Callable[[str], None] | None = None) -> None:
        self._library = _load(build_library(config, report=report))
        self._handle = ctypes.c_void_p(self._library.harness_create())
        self._library.harness_memory(self._handle, timing.latency, timing.stall_percent, timing.seed)
        self._config = config
        self.check_identity(config)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self._library.harness_destroy(self._handle)

    def read(self, register: str) -> int:
        """Read a register by name."""
        return int(self._library.harness_read(self._handle, BY_NAME[register].offset))

    def write(self, register: str, value: int) -> None:
        """Write a register by name."""
        self._library.harness_write(self._handle, BY_NAME[register].offset, value)

    def pause(self) -> None:
        """Let some time pass."""
        self.clock(100)

    def clock(self, cycles: int) -> None:
        """Let time pass."""
        self._library.harness_step(self._handle, cycles)

    def map_windows(self, contents: dict[Window, Bytes], *, response: int = 0) -> None:
        """Put the windows into memory, 4 KiB apart and more, and program their registers.

        contents: bytes of each window, written in place by the engine. response: AXI response code for all of them.
        Raises RunError when the bus has too few address bits for them.
        """
        self._library.harness_clear_regions(self._handle)
        self._contents = contents
        address = WINDOW_ALIGNMENT
        for window in READABLE_WINDOWS:
            data = contents.get(window)
            size = 0 if data is None else data.size
            self.set_window(window, address, size)
            if data is not None and size:
                pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
                writable = window in WRITABLE_WINDOWS
                self._library.harness_add_region(self._handle, address, size, pointer, writable, response)
            # At least one unmapped page behind each window: running over its end meets a decode error.
            address += (size // WINDOW_ALIGNMENT + 2) * WINDOW_ALIGNMENT
            if address > 1 << self._config.address_bits:
                raise RunError(
                    f"the program's windows do not fit below address 2**{self._config.address_bits}, "
                    f"which is all that {self._config.name!r} can address"
                )

    def wait(self, max_cycles: int) -> bool:
        """Clock until the interrupt; False when `max_cycles` went by without."""
        return bool(self._library.harness_wait(self._handle, max_cycles))

    def run(
        self,
        step: AcceleratorStep,
        inputs: Bytes,
        outputs: Bytes,
        *,
        trace: bool,
        max_cycles: int,
        progress: Callable[[int], None] | None = None,
    ) -> StepStatistics:
        """Run one step on one image; `outputs` is filled. Raises EngineError, or RunError when it takes too long."""
        bus = self._config.bus_bytes
        padded_output = padded(outputs, bus)
        self.map_windows(
            {
                Window.COMMANDS: padded(np.frombuffer(step.commands, np.uint8), bus),
                Window.CONSTANTS: padded(np.frombuffer(step.constants, np.uint8), bus),
                Window.INPUTS: padded(inputs, bus),
                Window.OUTPUTS: padded_output,
                Window.WORKSPACE: np.zeros(-(-step.workspace_bytes // bus) * bus, dtype=np.uint8),
            }
        )
        self.write("WATCHDOG", WATCHDOG_CYCLES)
        self._library.harness_trace(self._handle, trace)
        self.start()
        # Events are counted from the program's first cycle.
        origin = int(self._library.harness_now(self._handle)) - ANSWER_CYCLES + START_CYCLES
        done = 0
        while not self.wait(min(PROGRESS_CYCLES, max_cycles - done)):
            done += PROGRESS_CYCLES
            if done >= max_cycles:
                self.reset()
                raise RunError(f"the program did not end within {max_cycles} cycles")
            if progress is not None:
                progress(done)
        self.raise_error(step)
        outputs[:] = padded_output[: outputs.size]
        return StepStatistics(counters=self.counters(), events=self._events(origin) if trace else ())

    def _events(self, origin: int) -> Sequence[Event]:
        pointer = ctypes.POINTER(_CEvent)()
        count = self._library.harness_events(self._handle, ctypes.byref(pointer))
        pending: dict[int, list[_CEvent]] = {}
        events: list[Event] = []
        for index in range(count):
            item = pointer[index]
            if item.kind == 0:
                pending.setdefault(item.unit, []).append(
                    _CEvent(cycle=item.cycle, unit=item.unit, kind=0, offset=item.offset)
                )
            elif pending.get(item.unit):
                first = pending[item.unit].pop(0)
                name = TRACE_UNITS[item.unit].name
                events.append(
                    Event(unit=name, offset=first.offset, start=first.cycle - origin, end=item.cycle - origin)
                )
        return events


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u8p = ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8)
    u32, u64 = ctypes.c_uint32, ctypes.c_uint64
    signatures: dict[str, tuple[object, list[object]]] = {
        "harness_create": (handle, []),
        "harness_destroy": (None, [handle]),
        "harness_memory": (None, [handle, u64, ctypes.c_uint, u32]),
        "harness_clear_regions": (None, [handle]),
        "harness_add_region": (None, [handle, u64, u64, u8p, ctypes.c_bool, ctypes.c_uint]),
        "harness_write": (None, [handle, u32, u32]),
        "harness_read": (u32, [handle, u32]),
        "harness_wait": (ctypes.c_bool, [handle, u64]),
        "harness_step": (None, [handle, u64]),
        "harness_now": (u64, [handle]),
        "harness_trace": (None, [handle, ctypes.c_bool]),
        "harness_events": (u64, [handle, ctypes.POINTER(ctypes.POINTER(_CEvent))]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
