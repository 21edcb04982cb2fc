# SPDX-License-Identifier: Apache-2.0
"""The board as a backend: programs run on an FPGA behind a serial port, with the results of every other backend."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loomwork.arch.config import Config
from loomwork.arch.isa import READABLE_WINDOWS, Window
from loomwork.arch.link import WORD_BYTES
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.registers import BY_NAME, COUNTERS
from loomwork.fpga.host_link import HostLink
from loomwork.sim.backend import RunError, StepStatistics
from loomwork.sim.driver import WINDOW_ALIGNMENT, Driver
from loomwork.sim.memory import Bytes, padded, window_bytes

WATCHDOG_CYCLES = 1_000_000
LONGEST_PAUSE = 0.05
"""Seconds between two looks at a long run."""


class BoardEngine(Driver):
    """The core on a board.

    Raises RunError when the board's core runs other programs than those of `config`.
    """

    def __init__(self, link: HostLink, config: Config) -> None:
        self._link = link
        self.check_identity(config)
        # Whoever was connected before may have left it running, or stopped by an error.
        self.reset()
        self.write("WATCHDOG", WATCHDOG_CYCLES)

    def read(self, register: str) -> int:
        """Read a register by name. Raises LinkError when the board does not answer."""
        return self._link.read_register(BY_NAME[register].offset)

    def write(self, register: str, value: int) -> None:
        """Write a register by name. Raises LinkError when the board does not answer."""
        self._link.write_register(BY_NAME[register].offset, value)

    def pause(self) -> None:
        """Let some time pass."""
        time.sleep(LONGEST_PAUSE)

    def wait(self) -> None:
        """Wait until the program has ended; its watchdog sees to that."""
        pause = 0.0
        while self.is_busy():
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause + 0.001)


@dataclass(frozen=True)
class Layout:
    """Where the windows of a step lie in the board's memory: base and size of each, in bytes."""

    windows: dict[Window, tuple[int, int]]

    @property
    def end(self) -> int:
        """Bytes of memory that this takes."""
        return max(base + size for base, size in self.windows.values() if size)


def lay_out(step: AcceleratorStep, bus_bytes: int) -> Layout:
    """Put the windows of a step one behind the other."""
    sizes = {
        Window.COMMANDS: len(step.commands),
        Window.CONSTANTS: len(step.constants),
        Window.INPUTS: window_bytes(step.inputs),
        Window.OUTPUTS: window_bytes(step.outputs),
        Window.WORKSPACE: step.workspace_bytes,
    }
    windows: dict[Window, tuple[int, int]] = {}
    base = 0
    for window in READABLE_WINDOWS:
        size = -(-sizes[window] // bus_bytes) * bus_bytes
        windows[window] = base, size
        base = -(-(base + size) // WINDOW_ALIGNMENT) * WINDOW_ALIGNMENT
    return Layout(windows)


class BoardBackend:
    """Runs accelerator steps on a board.

    What stays the same from image to image is sent once. link: the session. progress: told the bytes of a program that
    have arrived, and all.
    """

    def __init__(self, link: HostLink, *, progress: Callable[[int, int], None] = lambda _, __: None) -> None:
        self._link = link
        self._progress = progress
        self._engine: BoardEngine | None = None
        self._loaded: AcceleratorStep | None = None

    def run_step(
        self, config: Config, step: AcceleratorStep, inputs: Bytes, output_bytes: int
    ) -> tuple[Bytes, list[StepStatistics]]:
        """See `Backend.run_step`.

        Raises EngineError when the engine stops with an error, LinkError when the board is gone, RunError when its
        core is another one or its memory too small.
        """
        layout = lay_out(step, config.bus_bytes)
        if layout.end > self._link.memory_bytes:
            raise RunError(
                f"the program needs {-(-layout.end // 1024)} KiB of memory, the board has "
                f"{self._link.memory_bytes // 1024} KiB"
            )
        if self._engine is None:
            self._engine = BoardEngine(self._link, config)
        engine = self._engine
        if self._loaded is not step:
            self._load(engine, step, layout)
        outputs = np.zeros((len(inputs), output_bytes), dtype=np.uint8)
        statistics: list[StepStatistics] = []
        for image, output in zip(inputs, outputs, strict=True):
            self._put(layout, Window.INPUTS, image)
            engine.start()
            engine.wait()
            engine.raise_error(step)
            base, size = layout.windows[Window.OUTPUTS]
            output[:] = np.frombuffer(self._link.read_memory(base, size), np.uint8)[:output_bytes]
            statistics.append(StepStatistics(counters=self._counters()))
        return outputs, statistics

    def _load(self, engine: BoardEngine, step: AcceleratorStep, layout: Layout) -> None:
        """Send commands and constants, and say where the windows are."""
        self._loaded = None
        parts = {Window.COMMANDS: step.commands, Window.CONSTANTS: step.constants}
        whole, before = sum(map(len, parts.values())), 0
        for window, content in parts.items():

            def report(done: int, before: int = before) -> None:
                self._progress(before + done, whole)

            self._put(layout, window, np.frombuffer(content, np.uint8), report)
            before += len(content)
        for window, (base, size) in layout.windows.items():
            engine.set_window(window, base, size)
        self._loaded = step

    def _put(
        self, layout: Layout, window: Window, content: Bytes, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        base, _ = layout.windows[window]
        self._link.write_memory(base, padded(content, WORD_BYTES).tobytes(), progress=progress)

    def _counters(self) -> dict[str, int]:
        """All performance counters, by one request: their registers follow each other."""
        first = BY_NAME[f"COUNT_{COUNTERS[0][0].upper()}"].offset
        values = self._link.read_registers(first, len(COUNTERS))
        return {name: value for (name, _), value in zip(COUNTERS, values, strict=True)}
