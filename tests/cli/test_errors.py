# SPDX-License-Identifier: Apache-2.0
"""A user's mistake ends in exit code 2 and one sentence that names it, and changes no file."""

import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.command import Command, encode
from loomwork.arch.isa import Unit, isa_hash
from loomwork.arch.program import AcceleratorStep, HostStep
from loomwork.arch.program_file import write_program
from loomwork.cli.arrays import save_arrays
from loomwork.compiler.tflite_writer import ModelBuilder
from tests.programs import copy_commands, copy_program, copy_step, network, quantize_copy_program, two_input_program

RUN = ("run", "copy.lwb", "-i", "x.npy", "-o", "y.npy")
RTL = (*RUN, "--backend", "verilator")


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(workspace: Path, loomwork):
    """Call a command that must be refused with the given sentence."""

    def call(sentence: str, *arguments: object) -> None:
        before = snapshot(workspace)
        finished = loomwork(*arguments)
        assert finished.code == 2, finished
        assert finished.out == ""
        lines = finished.err.splitlines()
        assert len(lines) == 1, finished.err
        assert re.match(f"error: {sentence}", lines[0]), lines[0]
        assert 25 < len(lines[0]) < 400
        assert snapshot(workspace) == before

    return call


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# Programs


def header_for(isa: int | None = None, config: int | None = None) -> bytes:
    """The copy program with another hash and a correct header checksum."""
    file = bytearray(write_program(copy_program()))
    if isa is not None:
        struct.pack_into("<I", file, 12, isa)
    if config is not None:
        struct.pack_into("<Q", file, 16, config)
    struct.pack_into("<I", file, 40, zlib.crc32(file[:40]))
    return bytes(file)


GOOD = write_program(copy_program())
BAD_PROGRAMS = {
    "empty": (b"", "is not a Loomwork program|this is not a Loomwork program"),
    "another file": (network(), "this is not a Loomwork program: it does not begin with 'LOOMWORK'"),
    "truncated": (GOOD[:-1], f"the program is truncated: {len(GOOD) - 1} bytes instead of {len(GOOD)}"),
    "half": (GOOD[: len(GOOD) // 2], "the program is truncated: "),
    "header only": (GOOD[:30], "the program is truncated: 30 bytes, the header alone has 48"),
    "flipped bit": (GOOD[:99] + bytes([GOOD[99] ^ 4]) + GOOD[100:], "the program is damaged: the checksum of bytes 48"),
    "other command set": (
        header_for(isa=isa_hash() ^ 5),
        f"the program was compiled for command set {isa_hash() ^ 5:#010x}, this Loomwork has {isa_hash():#010x}",
    ),
    "other configuration": (header_for(config=1), "the program's configuration does not match the fingerprint"),
}


@pytest.mark.parametrize("command", ["run", "info", "disasm", "report"])
@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_a_bad_program_is_refused(command: str, name: str, workspace: Path, refused):
    content, sentence = BAD_PROGRAMS[name]
    (workspace / "bad.lwb").write_bytes(content)
    options = {"run": ("-i", "x.npy", "-o", "y.npy"), "report": ("-o", "r.html")}.get(command, ())
    refused(f"bad.lwb: ({sentence})", command, "bad.lwb", *options)


def test_a_program_that_is_truncated_anywhere_is_refused(workspace: Path, loomwork):
    for length in range(0, len(GOOD), 37):
        (workspace / "bad.lwb").write_bytes(GOOD[:length])
        finished = loomwork("run", "bad.lwb", "-i", "x.npy", "-o", "y.npy")
        assert (finished.code, finished.err.count("\n")) == (2, 1), length
        assert finished.err.startswith("error: bad.lwb: ")
    assert not (workspace / "y.npy").exists()


def test_a_program_that_the_engine_refuses_is_named_by_its_command(workspace: Path, refused):
    load, store, end = copy_commands(copy_program().config, 3, 2)
    outside = Command("STORE", {**store.operands, "base": 0xFFFF}, {Unit.LOAD: 1})
    step = replace(copy_step(), commands=encode(load) + encode(outside) + encode(end))
    (workspace / "bad.lwb").write_bytes(write_program(replace(copy_program(), steps=(step,))))
    sentence = r"bad.lwb: step 0: command at byte 32 \(STORE\) cannot be executed \(SCRATCHPAD\): word \d+ of a bank"
    refused(sentence, "run", "bad.lwb", *RUN[2:])


def test_a_program_on_which_the_engine_would_hang_is_named_by_its_command(workspace: Path, refused):
    program = two_input_program()
    first, second = program.steps
    assert isinstance(second, AcceleratorStep)
    load, store, end = copy_commands(program.config, 3, 2)
    hanging = Command("STORE", store.operands, {Unit.LOAD: 2})
    step = replace(second, commands=encode(load) + encode(hanging) + encode(end))
    (workspace / "bad.lwb").write_bytes(write_program(replace(program, steps=(first, step))))
    sentence = r"bad.lwb: step 1: command at byte 32 \(STORE\) can never go on \(WATCHDOG\): it waits for ticket 2"
    refused(sentence, "run", "bad.lwb", "-i", "two.npz", "-o", "y.npz")


def test_a_host_model_that_cannot_be_read_is_named_by_its_operators(workspace: Path, refused):
    program = quantize_copy_program()
    host = program.steps[0]
    assert isinstance(host, HostStep)
    broken = replace(program, steps=(replace(host, model=b"not a model"), program.steps[1]))
    (workspace / "bad.lwb").write_bytes(write_program(broken))
    np.save("real.npy", np.zeros((1, 3, 5, 1), np.float32))
    sentence = "tflite-micro cannot prepare the host operators QUANTIZE: "
    refused(sentence, "run", "bad.lwb", "-i", "real.npy", "-o", "y.npy")


# Inputs


GOOD_IMAGE = np.zeros((2, 3, 5, 1), np.int8)
BAD_INPUTS = {
    "text": ("x.npy", b"1 2 3 4 5", "x.npy is not a NumPy file: it begins with the bytes 31 20 32"),
    "empty": ("x.npy", b"", "x.npy is not a NumPy file: it begins with the bytes \\(none\\)"),
    "pickle": ("x.npy", pickle.dumps(GOOD_IMAGE), "x.npy is not a NumPy file"),
    "pickled objects": ("x.npy", npy(np.array([{}, []], object)), "x.npy cannot be read .* Object arrays cannot be"),
    "truncated": ("x.npy", npy(GOOD_IMAGE)[:-1], "x.npy cannot be read as a NumPy file: "),
    "truncated archive": ("x.npz", b"PK\x03\x04" + bytes(50), "x.npz cannot be read as a NumPy file: "),
    "other suffix": ("x.csv", b"1,2,3", "x.csv must be a .npy or .npz file"),
    "shape": ("x.npy", npy(GOOD_IMAGE[:, :2]), "input 'x' must have shape 1x3x5x1 .* not 2x2x5x1"),
    "type": ("x.npy", npy(GOOD_IMAGE.astype(np.float32)), "input 'x' must be int8, not float32"),
    "64 bits": ("x.npy", npy(GOOD_IMAGE.astype(np.int64)), "input 'x' must be int8, not int64"),
    "no image": ("x.npy", npy(GOOD_IMAGE[:0]), "input 'x' holds no image: its shape is 0x3x5x1"),
    "scalar": ("x.npy", npy(np.array(3, np.int8)), "input 'x' must have shape 1x3x5x1 .* not of a scalar"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_a_bad_input_is_refused(case: str, workspace: Path, refused):
    name, content, sentence = BAD_INPUTS[case]
    (workspace / name).write_bytes(content)
    refused(sentence, "run", "copy.lwb", "-i", name, "-o", "y.npy")


def test_names_in_an_archive_must_be_those_of_the_program(workspace: Path, refused):
    expected = r"'a' \(int8 \[1, 3, 5, 1\]\), 'b' \(int8 \[1, 3, 5, 1\]\)"
    for arrays, sentence in (
        ({"a": GOOD_IMAGE}, f"input 'b' is missing; the program takes {expected}"),
        ({}, f"input 'a', 'b' is missing; the program takes {expected}"),
        ({"a": GOOD_IMAGE, "b": GOOD_IMAGE, "c": GOOD_IMAGE}, f"the program has no input 'c'; it takes {expected}"),
        ({"a": GOOD_IMAGE, "b": GOOD_IMAGE[:1]}, "the inputs hold different numbers of images: {'a': 2, 'b': 1}"),
        ({"a": GOOD_IMAGE, "b": GOOD_IMAGE[0, 0]}, "input 'b' must have shape 1x3x5x1 .* not 5x1"),
    ):
        save_arrays(Path("bad.npz"), arrays)
        refused(sentence, "run", "two.lwb", "-i", "bad.npz", "-o", "y.npz")


def test_several_inputs_or_outputs_need_an_archive(workspace: Path, refused):
    refused("the program has inputs a, b: give them by name in a .npz file", *("run", "two.lwb", *RUN[2:]))
    refused(
        "the program has outputs c, d: --output must be a .npz file, not y.npy",
        *("run", "two.lwb", "-i", "two.npz", "-o", "y.npy"),
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_cannot_be_quantized_are_refused(value: float, workspace: Path, refused):
    real = np.zeros((1, 3, 5, 1), np.float32)
    real[0, 1, 2, 0] = value
    np.save("real.npy", real)
    sentence = rf"input 'real' must hold finite numbers, not {value} as at index \[0, 1, 2, 0\]"
    refused(sentence, "run", "real.lwb", "-i", "real.npy", "-o", "y.npy")


# Models


def model_of(dtype: str = "int8", *, operator: str = "softmax", signature: tuple[int, ...] | None = None) -> bytes:
    """A model of one operator on `[1, 8]`."""
    model = ModelBuilder()
    scale = 0.1 if dtype == "int8" else None
    x = model.input("features", (1, 8), dtype=dtype, scale=scale, shape_signature=signature)
    if operator == "softmax":
        model.output(model.softmax(x))
    else:
        weights = np.ones((4, 8), np.int8)
        model.output(model.fully_connected(x, weights, weight_scale=0.1, scale=0.2, name="dense"))
    return model.build()


def huge_model() -> bytes:
    """Every unit reads the whole image, which does not fit a scratchpad of 16 KiB."""
    model = ModelBuilder()
    x = model.input("panorama", (1, 80, 80, 3), scale=0.1)
    kernel = np.ones((3, 80 * 80 * 3), np.int8)
    model.output(model.fully_connected(x, kernel, weight_scale=0.1, scale=0.5, name="wide"))
    return model.build()


BAD_MODELS = {
    "empty": (b"", "bad.tflite: this is not a TFLite model"),
    "text": (b"hello, this is not a model", "bad.tflite: this is not a TFLite model"),
    "a program": (GOOD, "bad.tflite: this is not a TFLite model"),
    "truncated": (network()[:-40], "bad.tflite: .*(truncated|damaged)"),
    "half": (network()[: len(network()) // 2], "bad.tflite: .*(truncated|damaged)"),
    "floating point": (model_of("float32"), "bad.tflite: no operator can run on the accelerator, .*SOFTMAX"),
    "nothing to accelerate": (model_of(), "bad.tflite: no operator can run on the accelerator, .*SOFTMAX"),
    "dynamic shape": (
        model_of(operator="dense", signature=(1, -1)),
        r"bad.tflite: the model's input 'features' has the dynamic shape \(1, -1\)",
    ),
    "too large": (huge_model(), ".*'wide'.* one row of its output needs .* KiB of scratchpad"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_refused(case: str, workspace: Path, refused):
    content, sentence = BAD_MODELS[case]
    (workspace / "bad.tflite").write_bytes(content)
    refused(sentence, "compile", "bad.tflite", "-o", "bad.lwb", "--report", "bad.json", "--config", "tiny")


def test_a_damaged_model_ends_in_a_sentence_or_a_program(workspace: Path, loomwork):
    """Nothing protects a .tflite file: a changed byte may be a changed weight. But no change leads to a traceback."""
    good, noise = network(), np.random.default_rng(11)
    before = set(snapshot(workspace)) | {"bad.tflite"}
    for _ in range(60):
        damaged = bytearray(good[: noise.integers(8, len(good) + 1)] if noise.random() < 0.4 else good)
        for _ in range(noise.integers(0, 3)):
            damaged[noise.integers(len(damaged))] = noise.integers(256)
        (workspace / "bad.tflite").write_bytes(damaged)
        finished = loomwork("compile", "bad.tflite", "-o", "bad.lwb", "--config", "tiny")
        if finished.code == 0:
            (workspace / "bad.lwb").unlink()
        else:
            assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
            assert finished.err.startswith("error: ")
        assert set(snapshot(workspace)) == before


# Files and folders


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("none.lwb: No such file or directory", ("run", "none.lwb", *RUN[2:])),
        ("none.lwb: No such file or directory", ("info", "none.lwb")),
        ("none.lwb: No such file or directory", ("disasm", "none.lwb")),
        ("none.npy: No such file or directory", ("run", "copy.lwb", "-i", "none.npy", "-o", "y.npy")),
        ("cannot read the model none.tflite: No such file", ("compile", "none.tflite", "-o", "n.lwb")),
        ("folder: Is a directory", ("run", "folder", *RUN[2:])),
        ("folder.npy: Is a directory", ("run", "copy.lwb", "-i", "folder.npy", "-o", "y.npy")),
        ("cannot read the model folder: Is a directory", ("compile", "folder", "-o", "n.lwb")),
        ("cannot write none/y.npy: there is no folder none", (*RUN[:4], "-o", "none/y.npy")),
        ("cannot write folder.npy: it is a folder", (*RUN[:4], "-o", "folder.npy")),
        ("cannot write none/s.json: there is no folder none", (*RTL, "--json", "none/s.json")),
        ("cannot write folder: it is a folder", (*RTL, "--json", "folder")),
        ("y.txt must be a .npy or .npz file", (*RUN[:4], "-o", "y.txt")),
        ("--trace needs --backend verilator: only the RTL", (*RUN, "--trace", "t.json")),
        ("--counters needs --backend verilator: only the RTL", (*RUN, "--counters")),
        ("cannot write none/n.lwb: there is no folder none", ("compile", "net.tflite", "-o", "none/n.lwb")),
        ("cannot write folder: it is a folder", ("compile", "net.tflite", "-o", "folder")),
        ("cannot write none/r: there is no", ("compile", "net.tflite", "-o", "n.lwb", "--report", "none/r")),
        ("cannot write into x.npy: it is not a folder", ("verilog", "-o", "x.npy", "-c", "formal")),
        ("cannot write into x.npy/v: x.npy is not a folder", ("verilog", "-o", "x.npy/v", "-c", "formal")),
        ("there is no folder none; name one with --models", ("bench", "--models", "none")),
        ("no .tflite network found in folder", ("bench", "--models", "folder")),
        ("no network in . has 'zzz' or 'y' in its name", ("bench", "--models", ".", "-k", "zzz", "-k", "y")),
        ("cannot write none/c.json: there is no folder", ("bench", "--models", ".", "--record", "none/c.json")),
        ("cannot write none/b.md: there is no folder", ("bench", "--models", ".", "--markdown", "none/b.md")),
        ("cannot write none/b.json: there is no folder", ("bench", "--models", ".", "--json", "none/b.json")),
        ("examples/digits/digits_int8.tflite is not here: run `loomwork demo` in a checkout", ("demo",)),
    ],
)
def test_a_path_that_cannot_be_used_is_named(sentence: str, arguments: tuple[str, ...], workspace: Path, refused):
    (workspace / "folder").mkdir()
    (workspace / "folder.npy").mkdir()
    refused(sentence, *arguments)


LOST = "it is the same file as an input, which would be lost"


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        (f"cannot write net.tflite: {LOST}", "compile net.tflite -o net.tflite"),
        (f"cannot write link: {LOST}", "compile net.tflite -o link"),
        (f"cannot write folder/../net.tflite: {LOST}", "compile link -o n.lwb --report folder/../net.tflite"),
        (f"cannot write mine.json: {LOST}", "compile net.tflite -o n.lwb -c mine.json --report mine.json"),
        ("cannot write n and folder/../n: two results need two files", "compile net.tflite -o n --report folder/../n"),
        (f"cannot write x.npy: {LOST}", "run copy.lwb -i x.npy -o x.npy"),
        (f"cannot write copy.lwb: {LOST}", "run copy.lwb -i x.npy -o y.npy --backend verilator --json copy.lwb"),
        ("cannot write y.npy and y.npy: two", "run copy.lwb -i x.npy -o y.npy --backend verilator --json y.npy"),
        ("cannot write y.npy and y.npy: two", "run copy.lwb -i x.npy -o y.npy --backend verilator --trace y.npy"),
        ("cannot write b and b: two results need two files", "bench --models . --json b --markdown b"),
        (f"cannot write net.tflite: {LOST}", "bench --models . --json net.tflite"),
        (f"cannot write net.tflite: {LOST}", "bench --models . --record net.tflite"),
        (f"cannot write mine.json: {LOST}", "bench --models . -c mine.json --markdown mine.json"),
    ],
)
def test_a_file_that_would_be_lost_is_kept(sentence: str, arguments: str, workspace: Path, refused):
    (workspace / "folder").mkdir()
    (workspace / "link").symlink_to("net.tflite")
    (workspace / "mine.json").write_text('{"base": "tiny"}')
    refused(re.escape(sentence), *arguments.split())


@pytest.mark.parametrize(
    ("suffix", "sentence"),
    [
        ("PT", "is a PyTorch file; Loomwork reads .tflite and .onnx files: compile the module with .*compile_module"),
        ("h5", "is a Keras file; Loomwork reads .tflite and .onnx files: convert it with tf.lite.TFLiteConverter"),
    ],
)
def test_a_model_of_another_framework_is_called_what_it_is(suffix: str, sentence: str, workspace: Path, refused):
    (workspace / f"net.{suffix}").write_bytes(b"\x08\x07\x12\x07pytorch")
    refused(f"net.{suffix} {sentence}", "compile", f"net.{suffix}", "-o", "n.lwb")


def test_an_onnx_file_that_is_none_is_called_damaged(workspace: Path, refused):
    (workspace / "net.onnx").write_bytes(b"\xff\x07\x12\x07pytorch")
    refused("net.onnx: this is no ONNX model, or it is damaged", "compile", "net.onnx", "-o", "n.lwb")


@pytest.mark.parametrize("command", ["compile net.tflite -o n.lwb", "verilog -o v", "bench --models .", "regress"])
@pytest.mark.parametrize(
    ("config", "content", "sentence"),
    [
        ("huge", None, "no preset and no file is called 'huge'; the presets are formal, nano, tiny"),
        ("mine.json", "{", "mine.json is not a JSON file: "),
        ("mine.json", '{"base": "tiny", "rows": 5}', "mine.json: rows must be a power of two from 2 to 64, not 5"),
        ("mine.json", '{"base": "tiny", "row": 4}', "mine.json: unknown field row; the fields are name, rows"),
    ],
)
def test_a_bad_configuration_is_refused(command, config, content, sentence, workspace: Path, refused):
    if content is not None:
        (workspace / config).write_text(content)
    refused(sentence, *command.split(), "--config", config)


def test_a_file_that_may_not_be_read_is_named(workspace: Path, loomwork, monkeypatch: pytest.MonkeyPatch):
    def forbidden(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", forbidden)  # permissions do not bind root, who may run the tests
    assert loomwork("info", "copy.lwb").err == "error: copy.lwb: Permission denied\n"
    compiled = loomwork("compile", "net.tflite", "-o", "n.lwb")
    assert (compiled.code, compiled.err) == (2, "error: cannot read the model net.tflite: Permission denied\n")


def test_a_full_disk_leaves_nothing_behind(workspace: Path, refused, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    refused("cannot write y.npy: No space left on device", *RUN)


def test_a_mistake_shows_no_traceback_in_a_real_process(workspace: Path):
    command = [sys.executable, "-m", "loomwork.cli.main", "run", "none.lwb", "-i", "x.npy", "-o", "y.npy"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"TERM": "dumb"})
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "error: none.lwb: No such file or directory\n"


def test_a_defect_of_loomwork_does_show_its_traceback(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    from loomwork.cli import info, main

    def defect(_):
        raise KeyError("defect")

    monkeypatch.setattr(info, "read_program", defect)
    monkeypatch.setattr("sys.argv", ["loomwork", "info", "copy.lwb"])
    with pytest.raises(KeyError, match="defect"):
        main.main()
