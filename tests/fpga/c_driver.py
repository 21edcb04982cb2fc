# SPDX-License-Identifier: Apache-2.0
"""The C driver, compiled and linked to the Verilator model of a core, called through ctypes.

driver = CDriver(TINY, folder)
outputs = driver.run_file(write_program(program), {"image": image})   # one image; host steps by tflite-micro
"""

import ctypes
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loomwork.arch.config import Config
from loomwork.arch.registers import BY_NAME
from loomwork.sim.library import build_library
from tests.oracle import Oracle

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "fpga" / "loomwork" / "fpga" / "driver"
HEADERS = ROOT / "docs" / "reference"
C99 = ("gcc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
FREESTANDING = (*C99, "-ffreestanding")
ADDRESS = 0x40_0000

RESULTS = re.findall(r"^    X\((\w+), \"", (SOURCES / "loomwork_driver.h").read_text(), re.MULTILINE)
"""Names of `enum loomwork_result`, by value."""

READ_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
WRITE_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
PROGRAM_INPUTS, PROGRAM_OUTPUTS, TENSORS, STEP_INPUTS, STEP_OUTPUTS, BY_TENSOR_NAME = range(6)
COUNTS = ("steps", "inputs", "outputs", "tensors", "step inputs", "step outputs", "kind")


class DriverError(RuntimeError):
    """A function of the driver returned something else than OK; `name` is what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class TensorInfo:
    name: str
    dtype: str
    scale: str
    shape: tuple[int, ...]
    values: int
    quantized: bool
    zero_point: int


def compile_driver(folder: Path, *options: str) -> list[Path]:
    """The driver's objects, compiled for a system without a library and without a single warning."""
    objects = []
    for source in sorted(SOURCES.glob("*.c")):
        target = folder / f"{source.stem}.o"
        command = [*FREESTANDING, *options, "-I", HEADERS, "-c", source, "-o", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        objects.append(target)
    return objects


class CDriver:
    """The driver with a core of its own. Every call that does not return OK raises DriverError."""

    def __init__(self, config: Config, folder: Path, *, latency: int = 40, stall_percent: int = 0) -> None:
        model = build_library(config)
        library = folder / f"driver-{config.name}.so"
        if not library.exists():
            objects = compile_driver(folder, "-fPIC", "-O1")
            options = ["-fPIC", "-shared", "-I", SOURCES, "-I", HEADERS, Path(__file__).with_name("driver_host.c")]
            subprocess.run([*C99, *options, *objects, model, "-o", library], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.host_create.restype = ctypes.c_void_p
        self._library.host_create.argtypes = [ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint32]
        for name in ("host_log", "loomwork_result_text", "loomwork_error_text"):
            getattr(self._library, name).restype = ctypes.c_char_p
        for name in ("host_model", "host_count", "host_memory_bytes"):
            getattr(self._library, name).restype = ctypes.c_size_t
        for name in ("host_read", "host_failure"):
            getattr(self._library, name).restype = ctypes.c_uint32
        self._host = ctypes.c_void_p(self._library.host_create(latency, stall_percent, 7))
        self._keep: list[object] = []
        self.memory(1 << 20)
        self.waiting(100_000, 1_000)

    def __del__(self) -> None:
        if hasattr(self, "_host"):
            self._library.host_destroy(self._host)

    def _plain(self, function: str, *arguments: object) -> int:
        return getattr(self._library, f"host_{function}")(self._host, *arguments)

    def call(self, function: str, *arguments: object) -> None:
        """Call a function that returns a result."""
        result = self._plain(function, *arguments)
        if result:
            raise DriverError(RESULTS[result])

    def memory(self, length: int, *, address: int = ADDRESS, response: int = 0) -> None:
        """Give the driver memory for windows, full of what was there before. response: of the bus to the core."""
        self._memory = np.full(max(length, 1), 0xA5, np.uint8)
        pointer = self._memory.ctypes.data_as(ctypes.c_void_p)
        self._plain("memory", pointer, ctypes.c_size_t(length), ctypes.c_uint64(address), response)

    def memory_at(self, place: int, length: int) -> bytes:
        """Bytes of that memory as the processor sees them."""
        return self._memory[place : place + length].tobytes()

    def waiting(self, cycles: int, waits: int) -> None:
        """Wait for the interrupt, up to `waits` times `cycles`; 0 times: the driver polls STATUS."""
        self._plain("waiting", ctypes.c_uint64(cycles), waits)

    def watchdog(self, cycles: int) -> None:
        self._plain("watchdog", cycles)

    def registers(self, read: Callable[[int], int], write: Callable[[int, int], None]) -> None:
        """Registers of another core than the model."""
        functions = READ_FUNCTION(lambda _, offset: read(offset)), WRITE_FUNCTION(lambda _, *both: write(*both))
        self._keep.append(functions)
        self._plain("registers", *functions, None)

    def register_memory(self, registers: np.ndarray) -> None:
        """Registers that lie in memory."""
        self._plain("registers", None, None, registers.ctypes.data_as(ctypes.c_void_p))

    def open(self, data: bytes) -> None:
        # At an odd address: nothing in a file may need an alignment.
        self._file = np.frombuffer(b"\0" + data, np.uint8).copy()
        pointer = ctypes.c_void_p(self._file.ctypes.data + 1)
        self.call("open", pointer, ctypes.c_size_t(len(data)))

    def prepare(self, step: int) -> None:
        self.call("step", ctypes.c_size_t(step))
        self.call("prepare")

    def place(self, index: int, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values)
        pointer = values.ctypes.data_as(ctypes.c_void_p)
        self.call("place", ctypes.c_size_t(index), pointer, ctypes.c_size_t(values.size))

    def take(self, index: int, count: int) -> np.ndarray:
        values = np.zeros(count, np.int8)
        self.call("take", ctypes.c_size_t(index), values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(count))
        return values

    def example(self, data: bytes, image: np.ndarray, output_values: int) -> np.ndarray:
        """`run_image` of the driver's example."""
        image, output = np.ascontiguousarray(image), np.zeros(output_values, np.int8)
        self.call(
            "example",
            *(data, ctypes.c_size_t(len(data))),
            *(image.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(image.size)),
            *(output.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(output.size)),
        )
        return output

    def run(self) -> None:
        self.call("run")

    def read(self, register: str) -> int:
        return self._plain("read", BY_NAME[register].offset)

    def busy(self) -> bool:
        return bool(self._plain("busy"))

    def log(self) -> str:
        """What happened since the last call, see driver_host.c."""
        self._library.host_log.argtypes = [ctypes.c_void_p]
        return self._library.host_log(self._host).decode()

    @property
    def failure(self) -> tuple[int, int]:
        """Code and command byte of the last engine error."""
        return self._plain("failure", 0), self._plain("failure", 1)

    @property
    def memory_bytes(self) -> int:
        return self._plain("memory_bytes")

    def count(self, what: str) -> int:
        return self._plain("count", COUNTS.index(what))

    def model(self) -> bytes:
        """The model of a host step."""
        length = ctypes.c_size_t()
        return ctypes.string_at(self._plain("model", ctypes.byref(length)), length.value)

    def tensor(self, where: int, index: int = 0, name: str = "") -> TensorInfo:
        numbers, text = (ctypes.c_int64 * 40)(), ctypes.create_string_buffer(300)
        self.call("tensor", where, ctypes.c_size_t(index), name.encode(), numbers, text)
        found, dtype, scale = (text.raw[place : place + 100].split(b"\0")[0].decode() for place in (0, 100, 200))
        shape = tuple(numbers[4 : 4 + numbers[1]])
        return TensorInfo(found, dtype, scale, shape, numbers[0], bool(numbers[2]), numbers[3])

    def result_text(self, name: str) -> str:
        return self._library.loomwork_result_text(RESULTS.index(name)).decode()

    def error_text(self, code: int) -> str:
        return self._library.loomwork_error_text(code).decode()

    def run_file(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a program on one image, all names and shapes from the file by the driver."""
        self.open(data)
        self.call("accepts")
        given = [self.tensor(PROGRAM_INPUTS, index).name for index in range(self.count("inputs"))]
        values = {name: inputs[name] for name in given}
        for step in range(self.count("steps")):
            self.call("step", ctypes.c_size_t(step))
            sources = [self.tensor(STEP_INPUTS, index) for index in range(self.count("step inputs"))]
            targets = [self.tensor(STEP_OUTPUTS, index) for index in range(self.count("step outputs"))]
            if self.count("kind"):
                model = Oracle(self.model())
                arrays = [values[source.name].reshape(source.shape) for source in sources]
                values |= zip((target.name for target in targets), model.run(arrays), strict=True)
                continue
            self.memory(self.memory_bytes)
            self.call("prepare")
            for index, source in enumerate(sources):
                self.place(index, values[source.name])
            self.run()
            values |= {target.name: self.take(index, target.values) for index, target in enumerate(targets)}
        results = [self.tensor(PROGRAM_OUTPUTS, index) for index in range(self.count("outputs"))]
        return {result.name: values[result.name].reshape(result.shape) for result in results}
