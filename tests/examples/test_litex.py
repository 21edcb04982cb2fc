# SPDX-License-Identifier: Apache-2.0
"""The LiteX example: its SoC runs the digits classifier from its own memory."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.config import TINY
from loomwork.arch.isa import Window
from loomwork.arch.program import AcceleratorStep, HostStep
from loomwork.arch.registers import BY_NAME
from loomwork.compiler.driver import compile_model
from loomwork.fpga.package import write_package
from loomwork.sim.host import HostRunner
from loomwork.sim.library import VERILATOR_FLAGS
from loomwork.sim.memory import pack_inputs, unpack_outputs, window_bytes
from loomwork.sim.toolchain import BUILD_FLAGS, verilator
from tests.oracle import Oracle

EXAMPLES = Path(__file__).parents[2] / "examples"
RAM_BASE, CORE_BASE = 0x4000_0000, 0xF100_0000


@pytest.fixture(scope="module")
def soc(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The SoC that the example writes, as a simulation."""
    folder = tmp_path_factory.mktemp("litex")
    write_package(TINY, folder / "package")
    command = [sys.executable, EXAMPLES / "litex" / "soc.py", folder / "package", "-o", folder / "soc"]
    path = os.pathsep.join(sys.path)
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, cwd=folder, check=True, capture_output=True)
    assert sorted(path.name for path in (folder / "soc").iterdir()) == ["core.v", "soc.v", "soc_ram.init"]
    assert sorted(path.name for path in folder.iterdir()) == ["package", "soc"]
    tool = verilator()
    harness = Path(__file__).with_name("litex_soc.cpp")
    build = [tool.executable, "--cc", "--build", "-j", "2", "--top-module", "soc", "--Mdir", folder / "objects"]
    build += ["-CFLAGS", "-fPIC", *BUILD_FLAGS, *VERILATOR_FLAGS]
    sources = [folder / "soc" / "soc.v", folder / "soc" / "core.v"]
    subprocess.run([*build, *sources], env=os.environ | tool.env, check=True, capture_output=True)
    includes = [f"-I{folder / 'objects'}", f"-I{tool.root / 'include'}", f"-I{tool.root / 'include' / 'vltstd'}"]
    objects = [folder / "objects" / "libVsoc.a", folder / "objects" / "libverilated.a"]
    link = [
        "g++",
        "-std=gnu++17",
        "-shared",
        "-fPIC",
        *includes,
        harness,
        *objects,
        "-pthread",
        "-o",
        folder / "soc.so",
    ]
    subprocess.run(link, check=True)
    return ctypes.CDLL(str(folder / "soc.so"))


def test_the_soc_classifies_digits(soc: ctypes.CDLL):
    soc.soc_read.restype = ctypes.c_uint32
    soc.soc_irq.restype = ctypes.c_bool
    soc.soc_start()

    def write(register: str, value: int) -> None:
        assert soc.soc_write(CORE_BASE + BY_NAME[register].offset, value) == 0

    def read(register: str) -> int:
        return soc.soc_read(CORE_BASE + BY_NAME[register].offset)

    network = EXAMPLES / "digits" / "digits_int8.tflite"
    program = compile_model(network, TINY)
    images = np.load(EXAMPLES / "digits" / "digits_test.npz")["images"][:3]
    step, softmax = program.steps
    assert isinstance(step, AcceleratorStep)
    assert isinstance(softmax, HostStep)
    assert read("ID") == BY_NAME["ID"].reset
    assert (read("CONFIG_HASH_HIGH") << 32 | read("CONFIG_HASH_LOW")) == TINY.hash
    windows = pack_inputs(step, {"image": images})
    contents = {
        Window.COMMANDS: step.commands,
        Window.CONSTANTS: step.constants,
        Window.INPUTS: windows[0].tobytes(),
        Window.OUTPUTS: bytes(window_bytes(step.outputs)),
    }
    places: dict[Window, int] = {}
    address = RAM_BASE
    for window, data in contents.items():
        places[window] = address
        write(f"{window.name}_BASE_LOW", address)
        write(f"{window.name}_SIZE", -(-len(data) // 4) * 4)
        address += (len(data) // 4096 + 1) * 4096

    def fill(window: Window, data: bytes) -> None:
        for place, word in enumerate(np.frombuffer(data + bytes(-len(data) % 4), "<u4")):
            soc.soc_write(places[window] + 4 * place, int(word))

    fill(Window.COMMANDS, step.commands)
    fill(Window.CONSTANTS, step.constants)
    write("WATCHDOG", 100_000)
    write("IRQ_ENABLE", 3)
    outputs: list[np.ndarray] = []
    for image in windows:
        fill(Window.INPUTS, image.tobytes())
        assert not soc.soc_irq()
        write("CONTROL", BY_NAME["CONTROL"].mask("START"))
        for _ in range(1000):
            soc.soc_clock(100)
            if soc.soc_irq():
                break
        assert read("STATUS") == BY_NAME["STATUS"].mask("DONE"), (read("ERROR_CODE"), read("ERROR_COMMAND"))
        write("IRQ_STATUS", 3)
        size = window_bytes(step.outputs)
        words = [soc.soc_read(places[Window.OUTPUTS] + place) for place in range(0, size, 4)]
        window = np.array(words, "<u4").view(np.uint8)[np.newaxis, :size]
        logits = unpack_outputs(step, window)
        outputs.append(HostRunner(softmax).run(logits)["probabilities"])
    (expected,) = Oracle(network).run_batch([images.reshape(-1, 1, 8, 8, 1)])
    assert np.array_equal(np.stack(outputs).reshape(expected.shape), expected)
    assert len(np.unique(expected.argmax(axis=-1))) == len(images)
