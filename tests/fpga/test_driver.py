# SPDX-License-Identifier: Apache-2.0
"""The C driver: compiled as bare metal compiles it, run on the RTL, and given files and cores that are wrong."""

import json
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.command import Command, encode
from loomwork.arch.config import LIMITS, PRESETS, TINY
from loomwork.arch.isa import Unit, Window
from loomwork.arch.program import Program, Tensor
from loomwork.arch.program_file import write_program
from loomwork.arch.registers import BY_NAME, ErrorCode
from loomwork.compiler.driver import compile_model
from loomwork.sim.backend import run_program
from loomwork.sim.verilator import VerilatorBackend
from tests.fpga.c_driver import (
    BY_TENSOR_NAME,
    C99,
    HEADERS,
    PROGRAM_INPUTS,
    RESULTS,
    ROOT,
    SOURCES,
    TENSORS,
    CDriver,
    DriverError,
    compile_driver,
)
from tests.models import data_path, model_path
from tests.oracle import Oracle
from tests.programs import copy_commands, copy_program, copy_step, program, quantize_copy_program, two_input_program

DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"
LEVELS = ("-O0", "-O1", "-O2", "-O3", "-Os")
COPIED = np.arange(-7, 8, dtype=np.int8)
"""An input of `copy_program`, and its output."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def driver(folder: Path) -> CDriver:
    return CDriver(TINY, folder)


@pytest.fixture(scope="module")
def digits() -> Program:
    return compile_model(DIGITS, TINY)


def fails(name: str, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(DriverError) as caught:
        call(*arguments)
    assert caught.value.name == name


def copies(driver: CDriver) -> bool:
    """Whether the core runs a program as if nothing had happened."""
    driver.memory(1 << 16)
    driver.waiting(100_000, 10)
    driver.watchdog(0)
    driver.open(write_program(copy_program()))
    driver.prepare(0)
    driver.place(0, COPIED)
    driver.run()
    return np.array_equal(driver.take(0, COPIED.size), COPIED)


# How it compiles


def symbols(path: Path) -> list[tuple[str, str]]:
    """Kind and name of every symbol of an object."""
    text = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    return [(line.split()[-2], line.split()[-1]) for line in text.splitlines()]


@pytest.mark.parametrize("width", ["-m64", "-m32"])
@pytest.mark.parametrize("level", LEVELS)
def test_it_needs_nothing_but_memcpy_and_keeps_nothing(level: str, width: str, tmp_path: Path):
    found = [symbol for path in compile_driver(tmp_path, level, width, "-fno-pie") for symbol in symbols(path)]
    defined = {name for kind, name in found if kind == "T"}
    assert {"loomwork_open", "loomwork_run", "run_image"} <= defined
    assert {name for kind, name in found if kind == "U"} - defined == {"memcpy"}
    assert [name for kind, name in found if kind in "bBdDC"] == [], "a variable that is kept from call to call"
    assert all(name.startswith(("loomwork_", "run_image")) for name in defined)


def test_no_function_calls_itself_however_far_around(tmp_path: Path):
    compile_driver(tmp_path, "-O0", "-fcallgraph-info")
    calls: dict[str, set[str]] = {}
    for graph in tmp_path.glob("*.ci"):
        for source, target in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', graph.read_text()):
            calls.setdefault(source.split(":")[-1], set()).add(target.split(":")[-1])
    assert "loomwork_finish" in calls["loomwork_run"]

    def reached(name: str) -> set[str]:
        found: set[str] = set()
        rest = [name]
        while rest:
            for target in calls.get(rest.pop(), set()) - found:
                found.add(target)
                rest.append(target)
        return found

    assert [name for name in calls if name in reached(name)] == []


def test_the_header_is_cxx_too(tmp_path: Path):
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "loomwork_driver.h"\nint main() { return loomwork_result_text(LOOMWORK_RESULT_OK)[0]; }\n'
    )
    objects = compile_driver(tmp_path)
    command = ["g++", "-Wall", "-Wextra", "-Werror", "-I", SOURCES, "-I", HEADERS, source, *objects]
    subprocess.run([*command, "-o", tmp_path / "a"], check=True)
    assert subprocess.run([tmp_path / "a"], check=False).returncode == ord("n")


def test_it_knows_the_widest_bus(driver: CDriver):
    header = (SOURCES / "loomwork_driver.h").read_text()
    assert f"#define LOOMWORK_MAX_BUS_BYTES {LIMITS['bus_bytes'].high}u\n" in header


def test_every_result_and_error_has_a_text_of_its_own(driver: CDriver):
    texts = [driver.result_text(name) for name in RESULTS]
    assert len(set(texts)) == len(texts) >= 20
    assert (RESULTS[0], texts[0]) == ("OK", "no error")
    assert [driver.error_text(code) for code in ErrorCode] == [code.name for code in ErrorCode]
    assert driver.error_text(len(ErrorCode)) == "unknown error"


# What it computes


def test_digits_are_what_the_python_driver_and_tflite_micro_compute(driver: CDriver, digits: Program):
    images = np.load(DIGITS.with_name("digits_test.npz"))["images"][:16]
    data = write_program(digits)
    outputs = np.concatenate([driver.run_file(data, {"image": image})["probabilities"] for image in images])
    python = run_program(digits, {"image": images}, VerilatorBackend())
    assert np.array_equal(outputs, python.outputs["probabilities"])
    expected = Oracle(DIGITS).run_batch([images.reshape(-1, 1, 8, 8, 1)])[0]
    assert np.array_equal(outputs, expected.reshape(outputs.shape))
    assert len(np.unique(outputs.argmax(axis=-1))) > 5
    assert driver.read("COUNT_CYCLES") == python.cycles_per_image[-1]


@pytest.mark.parametrize("config_name", ["tiny", "small"])
def test_keywords_are_what_the_python_driver_and_tflite_micro_compute(config_name: str, folder: Path):
    network = model_path("mlperf_tiny/kws_dscnn_int8.tflite")
    inputs = np.load(data_path("kws01_inputs.npz"))["x"][[0, 300, 900]]
    compiled = compile_model(network, PRESETS[config_name])
    (name,), (target,) = compiled.inputs, compiled.outputs
    driver = CDriver(PRESETS[config_name], folder)
    outputs = np.concatenate([driver.run_file(write_program(compiled), {name: image})[target] for image in inputs])
    assert np.array_equal(outputs, run_program(compiled, {name: inputs}, VerilatorBackend()).outputs[target])
    assert np.array_equal(outputs, Oracle(network).run_batch([inputs[:, np.newaxis]])[0].reshape(outputs.shape))
    assert len(np.unique(outputs, axis=0)) == len(outputs)


def test_programs_of_several_steps_inputs_and_outputs(driver: CDriver):
    first, second = (np.random.default_rng(seed).integers(-128, 128, 15, np.int8) for seed in (1, 2))
    outputs = driver.run_file(write_program(two_input_program()), {"a": first, "b": second})
    assert list(outputs) == ["c", "d"]
    assert np.array_equal(outputs["c"].ravel(), first)
    assert np.array_equal(outputs["d"].ravel(), second)


def test_a_host_step_is_left_to_the_caller(driver: CDriver):
    real = np.linspace(-9, 9, 15, dtype=np.float32)
    outputs = driver.run_file(write_program(quantize_copy_program()), {"real": real})
    assert np.array_equal(outputs["y"].ravel(), np.clip(np.round(real / 0.25) + 3, -128, 127))
    fails("HOST_STEP", driver.prepare, 0)
    assert copies(driver)


def test_the_example_of_the_driver_runs(driver: CDriver):
    driver.memory(1 << 16)
    assert np.array_equal(driver.example(write_program(copy_program()), COPIED, COPIED.size), COPIED)
    fails("WRONG_SIZE", driver.example, write_program(copy_program()), COPIED, COPIED.size - 1)
    fails("WRONG_SIZE", driver.example, write_program(copy_program()), COPIED[1:], COPIED.size)


def test_polling_and_an_early_wake_up_do_what_waiting_does(driver: CDriver):
    for cycles, waits in ((0, 0), (1, 100_000)):
        assert copies(driver)
        driver.waiting(cycles, waits)
        driver.place(0, COPIED[::-1])
        driver.run()
        assert np.array_equal(driver.take(0, COPIED.size), COPIED[::-1])
        assert driver.read("IRQ_ENABLE") == (3 if waits else 0)


def test_a_slow_bus_that_stalls_changes_nothing(folder: Path):
    assert copies(CDriver(TINY, folder, latency=200, stall_percent=40))


def test_caches_are_written_back_and_dropped_around_the_start(driver: CDriver, digits: Program):
    driver.memory(1 << 16)
    driver.waiting(100_000, 10)
    driver.open(write_program(digits))
    driver.log()
    driver.prepare(0)
    assert driver.log() == "c0c1"
    for _ in range(2):
        driver.place(0, np.zeros(64, np.int8))
        driver.run()
        assert driver.log() == "c2i3bSbi3"
    workspace = replace(copy_step(), workspace_bytes=100)
    driver.open(write_program(replace(copy_program(), steps=(workspace,))))
    driver.prepare(0)
    driver.run()
    assert driver.log() == "c0c2i3i4bSbi3"


def test_start_and_finish_are_run_in_two_parts(driver: CDriver):
    assert copies(driver)
    driver.place(0, COPIED[::-1])
    driver.call("start")
    assert driver.busy()
    fails("BUSY", driver.call, "start")
    fails("BUSY", driver.call, "finish")
    while driver.busy():
        pass
    driver.call("finish")
    assert driver.read("IRQ_STATUS") == 0
    assert np.array_equal(driver.take(0, COPIED.size), COPIED[::-1])


# What it reads


def test_tensors_are_those_of_the_program(driver: CDriver, digits: Program):
    for made in (digits, quantize_copy_program(), copy_program()):
        driver.open(write_program(made))
        assert driver.count("tensors") == len(made.tensors)
        for index, tensor in enumerate(made.tensors):
            found = driver.tensor(TENSORS, index)
            assert found == driver.tensor(BY_TENSOR_NAME, name=tensor.name)
            assert (found.name, found.dtype, found.shape) == (tensor.name, tensor.dtype, tensor.shape)
            assert found.values == np.prod(tensor.shape)
            assert found.quantized == (tensor.scale is not None)
            assert json.loads(found.scale) == tensor.scale
            assert found.zero_point == (tensor.zero_point or 0)
        fails("NO_SUCH_ITEM", driver.tensor, TENSORS, len(made.tensors))
        fails("NO_SUCH_ITEM", driver.tensor, BY_TENSOR_NAME, 0, "nobody")
        fails("NO_SUCH_ITEM", driver.tensor, PROGRAM_INPUTS, 1)
        fails("NO_SUCH_ITEM", driver.prepare, len(made.steps))


NAMES = ('a "quoted" \\ name', "tab\tnewline\n", "größe", "層", "😀 beyond the plane", "}],{[", "")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read(name: str, driver: CDriver):
    tensors = [Tensor(name=each, shape=(1, 3, 5, 1), dtype="int8") for each in (name, "y")]
    made = program([copy_step(source=name)], tensors, [name], ["y"])
    assert np.array_equal(driver.run_file(write_program(made), {name: COPIED})["y"].ravel(), COPIED)
    assert driver.tensor(BY_TENSOR_NAME, name=name).name == name


def with_metadata(data: bytes, change: Callable[[str], str]) -> bytes:
    """A program file with other metadata, its lengths and checksums right."""
    length = struct.unpack_from("<I", data, 36)[0]
    payload = data[48 + length + -(48 + length) % 16 :]
    metadata = change(data[48 : 48 + length].decode()).encode()
    body = metadata + bytes(-(48 + len(metadata)) % 16) + payload
    header = data[:24] + struct.pack("<QII", 48 + len(body), zlib.crc32(body), len(metadata))
    return header + struct.pack("<II", zlib.crc32(header), 0) + body


def bare(metadata: str, *, behind: int = 0) -> bytes:
    """A file that ends with its metadata, checksums right; its header says that there are `behind` bytes more of it."""
    body = metadata.encode()
    header = write_program(copy_program())[:24] + struct.pack(
        "<QII", 48 + len(body), zlib.crc32(body), len(body) + behind
    )
    return header + struct.pack("<II", zlib.crc32(header), 0) + body


def test_metadata_may_have_spaces_and_unknown_members(driver: CDriver):
    spaced = with_metadata(
        write_program(copy_program()), lambda text: "\n" + json.dumps({"first": [{}], **json.loads(text)}, indent=3)
    )
    assert np.array_equal(driver.run_file(spaced, {"x": COPIED})["y"].ravel(), COPIED)


MALFORMED = {
    "no steps": ('"steps"', '"stops"'),
    "a list that ends with a comma": ('"inputs":["x"]', '"inputs":["x",]'),
    "a list without commas": ('"inputs":["x"]', '"inputs":["x" "x"]'),
    "no inputs": ('"inputs":["x"]', '"inputs":[]'),
    "an unknown tensor": ('"inputs":["x"]', '"inputs":["z"]'),
    "a number as a name": ('"inputs":["x"]', '"inputs":[5]'),
    "an unknown kind": ('"accelerator"', '"calculator"'),
    "a negative offset": ('"offset":0,"row_bytes"', '"offset":-1,"row_bytes"'),
    "a fraction": ('"offset":0,"row_bytes"', '"offset":0.5,"row_bytes"'),
    "rows of another tensor": ('"rows":3', '"rows":4'),
    "rows that overlap": ('"row_stride":8', '"row_stride":4'),
    "a window of more than 4 GiB": ('"row_stride":8', '"row_stride":4294967295'),
    "a number of more than 32 bits": ('"workspace_bytes":0', '"workspace_bytes":4294967296'),
    "commands behind the end": ('"commands":{"length":96,"offset":0}', '"commands":{"length":96,"offset":4294967280}'),
    "part of a command": ('"commands":{"length":96,', '"commands":{"length":80,'),
    "commands without END": ('"commands":{"length":96,', '"commands":{"length":64,'),
    "constants behind the end": ('"constants":{"length":0,', '"constants":{"length":4000,'),
    "a bus of 3 bytes": ('"bus_bytes":4', '"bus_bytes":3'),
    "65 address bits": ('"address_bits":32', '"address_bits":65'),
    "a float tensor in a window": ('"dtype":"int8"', '"dtype":"float32"'),
    "a dimension of 0": ('"shape":[1,3,5,1]', '"shape":[1,3,5,1,0]'),
    "too many values": ('"shape":[1,3,5,1]', '"shape":[65536,65536,65536,65536]'),
    "a zero point of more than 32 bits": ('"zero_point":3', '"zero_point":2147483648'),
    "cut off": ('"zero_point":3}]}', '"zero_point":3}]'),
    "an unfinished string": ('"zero_point":3}]}', '"zero_point":3,"a":"\\"}]}'),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_metadata_is_refused(case: str, driver: CDriver):
    old, new = MALFORMED[case]
    data = write_program(copy_program())

    def change(text: str) -> str:
        assert old in text, text
        return text.replace(old, new)

    assert with_metadata(data, str) == data
    fails("MALFORMED", driver.open, with_metadata(data, change))
    assert copies(driver)


READER = r"""
#include <stdio.h>
#include <stdlib.h>
#include "loomwork_driver.h"

/* Reads files from standard input, each behind its length, and everything in those that open. */
int main(void)
{
    uint32_t length;
    unsigned good = 0;
    while (fread(&length, 4, 1, stdin) == 1) {
        uint8_t *file = malloc(length);
        struct loomwork_program program;
        struct loomwork_step step;
        struct loomwork_tensor tensor;
        struct loomwork_placement placement;
        char text[20];
        if (fread(file, 1, length, stdin) != length)
            return 3;
        if (loomwork_open(&program, file, length) == LOOMWORK_RESULT_OK) {
            good++;
            for (size_t index = 0; index < program.tensors; index++) {
                if (loomwork_program_tensor(&program, index, &tensor))
                    return 4;
                loomwork_text_copy(tensor.name, text, sizeof text);
                loomwork_find_tensor(&program, text, &tensor);
            }
            for (size_t index = 0; index < program.inputs; index++)
                if (loomwork_program_input(&program, index, &tensor))
                    return 5;
            for (size_t index = 0; index < program.steps; index++) {
                if (loomwork_program_step(&program, index, &step))
                    return 6;
                for (size_t number = 0; number < step.outputs; number++)
                    if (loomwork_step_output(&step, number, &placement))
                        return 7;
                for (const uint8_t *at = step.commands.begin; at != step.commands.end; at++)
                    good += !*at && at == step.constants.begin;
            }
        }
        free(file);
    }
    printf("%u", good);
    return 0;
}
"""


def test_no_damaged_file_makes_it_read_outside_of_the_file(tmp_path: Path, digits: Program):
    (tmp_path / "reader.c").write_text(READER)
    sources = [path for path in sorted(SOURCES.glob("*.c")) if path.stem != "example"]
    checks = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [*C99, *checks, "-I", SOURCES, "-I", HEADERS, tmp_path / "reader.c", *sources, "-o", tmp_path / "reader"]
    subprocess.run(command, check=True)
    noise = np.random.default_rng(5)
    files: list[bytes] = []
    for made in (digits, quantize_copy_program(), two_input_program()):
        data = write_program(replace(made, report={}))
        files.append(data)

        def damaged(text: str) -> str:
            at = int(noise.integers(len(text)))
            piece = '0123456789"\\{}[],:-u'[int(noise.integers(20))]
            return text[:at] + (piece if noise.integers(2) else "") + text[at + int(noise.integers(3)) :]

        files += [with_metadata(data, damaged) for _ in range(700)]
        files += [data[: int(noise.integers(len(data)))] for _ in range(50)]
        files += [with_metadata(data, lambda text: text[: int(noise.integers(len(text)))]) for _ in range(50)]
    ends = (
        "{",
        '{"a',
        '{"a\\',
        '{"a\\u00',
        '{"steps":[{"a":"\\',
        '{"tensors":[],"steps":[],"config":{"bus_bytes":4',
        "[1,",
        "",
        " ",
    )
    files += [bare(text, behind=behind) for text in ends for behind in (0, 1, 40)]
    stream = b"".join(struct.pack("<I", len(data)) + data for data in files)
    done = subprocess.run([tmp_path / "reader"], input=stream, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    # Some damage cannot be seen, such as another letter in the name of an operator.
    assert 3 <= int(done.stdout) < len(files) // 2


# What goes wrong


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def with_header(data: bytes, offset: int, form: str, value: int) -> bytes:
    """A program file with another number in its header, the checksum right."""
    header = bytearray(data[:40])
    struct.pack_into(form, header, offset, value)
    return bytes(header) + struct.pack("<II", zlib.crc32(header), 0) + data[48:]


FILES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": ("NOT_A_PROGRAM", lambda data: b""),
    "another kind": ("NOT_A_PROGRAM", lambda data: b"TFL3" + data),
    "another magic": ("NOT_A_PROGRAM", lambda data: flipped(data, 7)),
    "within the header": ("TRUNCATED", lambda data: data[:47]),
    "the last byte missing": ("TRUNCATED", lambda data: data[:-1]),
    "one byte more": ("TOO_LONG", lambda data: data + b"\0"),
    "a bit of the length": ("DAMAGED_HEADER", lambda data: flipped(data, 25)),
    "a bit of the configuration": ("DAMAGED_HEADER", lambda data: flipped(data, 16)),
    "a bit of the reserved bytes": ("DAMAGED_HEADER", lambda data: flipped(data, 44)),
    "a bit of the metadata": ("DAMAGED", lambda data: flipped(data, 60)),
    "the last bit": ("DAMAGED", lambda data: flipped(data, len(data) - 1)),
    "a newer format": ("WRONG_FORMAT", lambda data: with_header(data, 8, "<I", 3)),
    "another command set": ("WRONG_DRIVER", lambda data: with_header(data, 12, "<I", 1)),
    "metadata longer than the file": ("MALFORMED", lambda data: with_header(data, 36, "<I", 1 << 31)),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_refused_and_the_core_is_ready(case: str, driver: CDriver, digits: Program):
    name, change = FILES[case]
    fails(name, driver.open, change(write_program(digits)))
    assert copies(driver)


def test_a_program_for_another_configuration_is_refused(driver: CDriver):
    driver.open(write_program(copy_program(replace(TINY, queue_depth=8))))
    fails("WRONG_CONFIG", driver.call, "accepts")
    driver.open(with_header(write_program(copy_program()), 16, "<Q", TINY.hash ^ 1 << 63))
    fails("WRONG_CONFIG", driver.call, "accepts")
    driver.open(write_program(copy_program()))
    driver.call("accepts")
    assert copies(driver)


def stored(**changes: int) -> list[Command]:
    load, store, end = copy_commands(TINY, 3, 2)
    return [load, replace(store, operands={**store.operands, **changes}), end]


ENGINE_ERRORS = {
    "read-only window": (stored(window=Window.INPUTS), ErrorCode.WINDOW, 32),
    "beyond the scratchpad": (stored(base=TINY.bank_words), ErrorCode.SCRATCHPAD, 32),
    "no such command": ([b"\x0f" + bytes(31), Command("END")], ErrorCode.ILLEGAL_OPCODE, 0),
    "never finishes": (
        [stored()[0], replace(stored()[1], waits={Unit.LOAD: 2}), Command("END")],
        ErrorCode.WATCHDOG,
        32,
    ),
}


@pytest.mark.parametrize("case", ENGINE_ERRORS)
@pytest.mark.parametrize("waits", [0, 10])
def test_an_engine_error_is_told_and_the_core_is_ready(case: str, waits: int, driver: CDriver):
    commands, code, place = ENGINE_ERRORS[case]
    encoded = b"".join(item if isinstance(item, bytes) else encode(item) for item in commands)
    driver.memory(1 << 16)
    driver.waiting(100_000, waits)
    driver.watchdog(2_000)
    driver.open(write_program(replace(copy_program(), steps=(replace(copy_step(), commands=encoded),))))
    driver.prepare(0)
    driver.place(0, COPIED)
    fails("ENGINE_ERROR", driver.run)
    assert driver.failure == (code, place)
    assert (driver.read("STATUS"), driver.read("IRQ_STATUS")) == (0, 0)
    assert copies(driver)


@pytest.mark.parametrize(("response", "code"), [(2, ErrorCode.BUS_READ), (3, ErrorCode.BUS_READ)])
def test_a_bus_error_is_told_and_the_core_is_ready(response: int, code: ErrorCode, driver: CDriver):
    driver.memory(1 << 16, response=response)
    driver.open(write_program(copy_program()))
    driver.prepare(0)
    fails("ENGINE_ERROR", driver.run)
    assert driver.failure[0] == code
    assert copies(driver)


def test_a_program_that_takes_too_long_is_stopped_and_the_core_is_ready(driver: CDriver):
    assert copies(driver)
    driver.waiting(20, 2)
    fails("TIMEOUT", driver.run)
    assert driver.read("STATUS") == 0
    assert copies(driver)


def test_an_error_that_others_left_is_cleared(driver: CDriver):
    driver.memory(1 << 16, response=2)
    driver.open(write_program(copy_program()))
    driver.prepare(0)
    driver.call("start")
    while driver.busy():
        pass
    assert driver.read("STATUS") & BY_NAME["STATUS"].mask("ERROR")
    assert copies(driver)


MEMORY = 3 * 4096
"""What `copy_program` needs: commands, inputs, outputs."""


def test_memory_for_the_windows_is_checked(driver: CDriver):
    driver.open(write_program(copy_program()))
    driver.memory(MEMORY)
    driver.prepare(0)
    assert driver.memory_bytes == MEMORY
    driver.memory(MEMORY - 1)
    fails("MEMORY_TOO_SMALL", driver.prepare, 0)
    driver.memory(MEMORY, address=4096 + 16)
    fails("MEMORY_UNALIGNED", driver.prepare, 0)
    driver.memory(MEMORY, address=(1 << 32) - MEMORY)
    driver.prepare(0)
    driver.place(0, COPIED)
    driver.run()
    assert np.array_equal(driver.take(0, COPIED.size), COPIED)
    for address in ((1 << 32) - MEMORY + 4096, 1 << 32, (1 << 64) - 4096):
        driver.memory(MEMORY, address=address)
        fails("MEMORY_ADDRESS", driver.prepare, 0)
    wide = replace(TINY, address_bits=64)
    driver.open(write_program(copy_program(wide)))
    driver.memory(MEMORY, address=(1 << 64) - MEMORY)
    driver.prepare(0)
    driver.memory(MEMORY, address=(1 << 64) - MEMORY + 4096)
    fails("MEMORY_ADDRESS", driver.prepare, 0)
    assert copies(driver)


def test_the_last_bus_beat_of_a_window_is_filled_with_zeros(driver: CDriver):
    driver.open(write_program(replace(copy_program(), steps=(replace(copy_step(), constants=b"\1\2\3\4\5"),))))
    driver.memory(1 << 16)
    driver.prepare(0)
    assert driver.memory_at(4096, 9) == b"\1\2\3\4\5\0\0\0\xa5"
    assert copies(driver)


def test_tensors_of_another_size_are_refused(driver: CDriver):
    assert copies(driver)
    fails("WRONG_SIZE", driver.place, 0, COPIED[1:])
    fails("WRONG_SIZE", driver.take, 0, COPIED.size + 1)
    fails("NO_SUCH_ITEM", driver.place, 1, COPIED)
    fails("NO_SUCH_ITEM", driver.take, 1, COPIED.size)


def test_the_window_of_a_tensor_is_filled_row_by_row(driver: CDriver):
    """`copy_step` with another stride at an offset: the commands see the rows where they are used to."""
    step = copy_step()
    (place,) = step.inputs
    load, store, end = copy_commands(TINY, 3, 2)
    load = replace(load, operands={**load.operands, "offset": 64, "row_stride": 24})
    moved = replace(
        step,
        commands=b"".join(map(encode, (load, store, end))),
        inputs=(replace(place, offset=64, row_stride=24),),
    )
    outputs = driver.run_file(write_program(replace(copy_program(), steps=(moved,))), {"x": COPIED})
    assert np.array_equal(outputs["y"].ravel(), COPIED)


# Cores that are not as they should be


class FakeCore:
    """Registers that answer as told: `values` by name, 0 for others; writes are noted."""

    def __init__(self, driver: CDriver, **values: int) -> None:
        identity = {name: BY_NAME[name].reset for name in ("ID", "VERSION", "ISA_HASH")}
        config = {"CONFIG_HASH_LOW": TINY.hash & 0xFFFF_FFFF, "CONFIG_HASH_HIGH": TINY.hash >> 32}
        self.values = {**identity, **config, **values}
        self.written: list[tuple[str, int]] = []
        self.names = {register.offset: name for name, register in BY_NAME.items()}
        driver.registers(lambda offset: self.values.get(self.names[offset], 0), self.write)

    def write(self, offset: int, value: int) -> None:
        self.written.append((self.names[offset], value))


@pytest.fixture
def alone(folder: Path) -> CDriver:
    """A driver for one test, with a program that is ready to run."""
    made = CDriver(TINY, folder)
    made.open(write_program(copy_program()))
    made.prepare(0)
    made.waiting(1, 0)
    return made


@pytest.mark.parametrize(
    ("register", "name"),
    [
        ("ID", "NO_CORE"),
        ("VERSION", "WRONG_VERSION"),
        ("ISA_HASH", "WRONG_ISA"),
        ("CONFIG_HASH_LOW", "WRONG_CONFIG"),
        ("CONFIG_HASH_HIGH", "WRONG_CONFIG"),
    ],
)
def test_another_core_is_told_by_the_register(register: str, name: str, alone: CDriver):
    core = FakeCore(alone)
    alone.call("accepts")
    core.values[register] ^= 1
    fails(name, alone.call, "accepts")


def test_a_core_that_does_not_come_back_from_a_reset_is_given_up(alone: CDriver):
    FakeCore(alone, STATUS=BY_NAME["STATUS"].mask("BUSY"))
    fails("RESET_FAILED", alone.call, "reset")
    fails("BUSY", alone.run)


def test_a_core_that_others_reset_is_told(alone: CDriver):
    FakeCore(alone)  # neither BUSY nor DONE nor ERROR
    fails("INTERRUPTED", alone.run)


def test_registers_are_written_in_the_order_of_the_manual(alone: CDriver):
    alone.memory(1 << 16, address=0x12_3456_7000)
    alone.open(write_program(copy_program(replace(TINY, address_bits=40))))
    alone.prepare(0)
    core = FakeCore(alone, STATUS=BY_NAME["STATUS"].mask("DONE"))
    alone.watchdog(77)
    alone.run()
    windows = [("COMMANDS", 0x7000, 96), ("CONSTANTS", 0x8000, 0), ("INPUTS", 0x8000, 24), ("OUTPUTS", 0x9000, 24)]
    expected = [
        pair
        for name, low, size in (*windows, ("WORKSPACE", 0xA000, 0))
        for pair in ((f"{name}_BASE_LOW", 0x3456_0000 | low), (f"{name}_BASE_HIGH", 0x12), (f"{name}_SIZE", size))
    ]
    assert core.written == [
        *expected,
        ("WATCHDOG", 77),
        ("IRQ_STATUS", 3),
        ("IRQ_ENABLE", 0),
        ("CONTROL", 1),
        ("IRQ_STATUS", 3),
    ]


def test_registers_may_lie_in_memory(alone: CDriver):
    registers = np.zeros(0x200 // 4, np.uint32)
    registers[0], registers[1], registers[2] = (BY_NAME[name].reset for name in ("ID", "VERSION", "ISA_HASH"))
    registers[3:5] = TINY.hash & 0xFFFF_FFFF, TINY.hash >> 32
    registers[0x18 // 4] = BY_NAME["STATUS"].mask("DONE")
    alone.register_memory(registers)
    alone.call("accepts")
    alone.run()
    assert registers[0x48 // 4] == 96  # COMMANDS_SIZE
    assert registers[0x14 // 4] == BY_NAME["CONTROL"].mask("START")
    assert registers[0x2C // 4] == 1_000_000  # WATCHDOG
