# SPDX-License-Identifier: Apache-2.0
"""A board in simulation: the verilated system behind a pseudo-terminal, to which any program may talk as to a board."""

import contextlib
import ctypes
import hashlib
import os
import select
import threading
import tty
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Self

from amaranth.back import verilog

from loomwork.arch.config import Config
from loomwork.fpga.boards.compact_system import CompactSystem
from loomwork.fpga.boards.system import System
from loomwork.rtl.compact.build import build_firmware
from loomwork.rtl.compact.layout import Layout
from loomwork.rtl.compact.processor import processor_verilog
from loomwork.sim.library import Simulation, build_simulation, design_fingerprint

DIVISOR = 8
"""Clock cycles per bit. Few, so that the line takes little of the simulated time."""
MEMORY_KIB = 256
PATIENCE = 20.0
"""Seconds to wait for an answer before asking again: simulated time is slow, and nothing is lost on this line."""
STEP_CYCLES = 2000
"""Cycles between two looks at the pseudo-terminal."""

_TOP = "loomwork_board"
_CHUNK = 4096


def board_library(
    config: Config, memory_bytes: int, *, compact: bool = False, report: Callable[[str], None] | None = None
) -> Path:
    """Verilate the system of a configuration into a shared library, or find it in the cache.

    Raises ToolchainError when a tool is missing, RunError when the build fails.
    """
    system = CompactSystem if compact else System
    besides = processor_verilog() if compact else ""
    sources = "".join(
        f"{path.name}\0{path.read_text(encoding='utf-8')}\0"
        for folder in ("link", "boards")
        for path in sorted(Path(str(files("loomwork.fpga").joinpath(folder))).glob("*.py"))
    )
    if compact:
        sources += f"{besides}\0{build_firmware(Layout(config, memory_bytes))}\0"
    fingerprint = f"{design_fingerprint(config)} {memory_bytes} {hashlib.sha256(sources.encode()).hexdigest()}"
    simulation = Simulation(
        name=f"{config.name}-board",
        fingerprint=fingerprint,
        verilog=lambda: verilog.convert(system(config, memory_bytes, DIVISOR), name=_TOP, emit_src=False) + besides,
        top=_TOP,
        harness=files("loomwork.fpga").joinpath("harness/board.cpp").read_text(encoding="utf-8"),
        defines=(f"-DDIVISOR={DIVISOR}",),
    )
    return build_simulation(simulation, report=report)


class SimulatedBoard:
    """Simulates a board in a thread of its own, for as long as its context is open.

    memory_kib: that serves as external memory. compact: whether it has the compact core.
    port: name of the pseudo-terminal's device. spoil: what the line does to bytes on their way, called with
    (bytes, whether they go to the board); nothing unless it is set.
    Raises ToolchainError or RunError when it cannot be built.
    """

    port: str
    spoil: Callable[[bytes, bool], bytes]

    def __init__(
        self,
        config: Config,
        *,
        memory_kib: int = MEMORY_KIB,
        compact: bool = False,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._library = _load(board_library(config, memory_kib * 1024, compact=compact, report=report))
        self.spoil = lambda data, _: data
        self._stop, self._reset = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._ours, theirs = os.openpty()
        tty.setraw(theirs)
        self.port = os.ttyname(theirs)
        # Kept open: a pseudo-terminal that nobody has open any more reports an error instead of waiting.
        self._theirs = theirs
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()

    def unplug(self) -> None:
        """End the simulation; the pseudo-terminal goes with it, as that of a board whose cable is pulled."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            os.close(self._theirs)
            os.close(self._ours)

    def reset(self) -> None:
        """Reset the whole board, as its power switch does."""
        self._reset.set()

    def _run(self) -> None:
        board = ctypes.c_void_p(self._library.board_create())
        buffer = (ctypes.c_uint8 * _CHUNK)()
        try:
            while not self._stop.is_set():
                if self._reset.is_set():
                    self._library.board_reset(board)
                    self._reset.clear()
                readable, _, _ = select.select([self._ours], [], [], 0)
                if readable:
                    sent = self.spoil(os.read(self._ours, _CHUNK), True)
                    self._library.board_send(board, sent, len(sent))
                self._library.board_step(board, STEP_CYCLES)
                count = self._library.board_receive(board, buffer, _CHUNK)
                if count:
                    with contextlib.suppress(BlockingIOError):
                        os.write(self._ours, self.spoil(bytes(buffer[:count]), False))
        finally:
            self._library.board_destroy(board)


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u64 = ctypes.c_void_p, ctypes.c_uint64
    signatures: dict[str, tuple[object, list[object]]] = {
        "board_create": (handle, []),
        "board_destroy": (None, [handle]),
        "board_reset": (None, [handle]),
        "board_send": (None, [handle, ctypes.c_char_p, u64]),
        "board_step": (None, [handle, u64]),
        "board_receive": (u64, [handle, ctypes.POINTER(ctypes.c_uint8), u64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
