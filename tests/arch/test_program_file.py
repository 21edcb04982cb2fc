# SPDX-License-Identifier: Apache-2.0
"""The `.lwb` file: round trip, the documented layout, and every way a file can be wrong."""

import copy
import json
import math
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loomwork.arch import program_file
from loomwork.arch.command import Command, encode
from loomwork.arch.config import SMALL, TINY
from loomwork.arch.isa import isa_hash
from loomwork.arch.program import AcceleratorStep, HostStep, Placement, Program, Tensor
from loomwork.arch.program_file import DTYPES, ProgramError, read_program, write_program

HEADER = 48
NOP = encode(Command("REQUANT", dict.fromkeys(("bias", "multiplier", "shift", "zero_point"), 0) |
                     {"minimum": -128, "maximum": 127, "rounding": 0}))  # fmt: skip
END = encode(Command("END"))


PLACE = Placement(tensor="x", offset=16, row_stride=8, rows=3, row_bytes=5)
SAMPLE = Program(
    config=TINY,
    isa_hash=isa_hash(),
    tensors=(
        Tensor(name="größe", shape=(1, 3, 5, 1), dtype="float32"),
        Tensor(name="x", shape=(1, 3, 5, 1), dtype="int8", scale=0.1, zero_point=-3),
        Tensor(name="y", shape=(1, 15), dtype="int8", scale=1e-30, zero_point=127),
    ),
    inputs=("größe",),
    outputs=("y", "x"),
    steps=(
        HostStep(model=b"model", inputs=("größe",), outputs=("x",), operators=(("QUANTIZE", "float input"),)),
        AcceleratorStep(
            commands=NOP + END,
            constants=bytes(range(37)),
            inputs=(PLACE,),
            outputs=(Placement(tensor="y", offset=0, row_stride=15, rows=1, row_bytes=15),),
            workspace_bytes=4096,
        ),
    ),
    report={"layers": [{"name": "conv", "cycles": 12, "share": 0.5}], "totals": {}},
)
"""A program with one step of each kind and every kind of metadata."""

FILE = write_program(SAMPLE)


def metadata_of(file: bytes):
    (length,) = struct.unpack_from("<I", file, 36)
    return json.loads(file[HEADER : HEADER + length])


def with_header(body: bytes, metadata_length: int, **changes: int) -> bytes:
    """A file with correct checksums around a body, built from the documented layout alone."""
    values = {
        "version": 2,
        "isa": isa_hash(),
        "config": TINY.hash,
        "length": HEADER + len(body),
        "crc": zlib.crc32(body),
        "metadata": metadata_length,
    } | changes
    header = b"LOOMWORK" + struct.pack("<IIQQII", *values.values())
    return header + struct.pack("<II", zlib.crc32(header), 0) + body


def with_metadata(text: bytes | str, data: bytes | None = None, **changes: int) -> bytes:
    """FILE with other metadata, and correct lengths and checksums."""
    text = text.encode() if isinstance(text, str) else text
    if data is None:
        (old,) = struct.unpack_from("<I", FILE, 36)
        data = FILE[HEADER + old + -(HEADER + old) % 16 :]
    return with_header(text + bytes(-(HEADER + len(text)) % 16) + data, len(text), **changes)


def changed(path: str, value: object) -> bytes:
    """FILE with one value of its metadata replaced; the path is like "steps.1.commands.offset"."""
    root = metadata_of(FILE)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node = root
    for part in parents:
        node = node[part]
    node[last] = value
    return with_metadata(json.dumps(root))


# Round trip and layout


def test_reading_returns_what_was_written():
    assert read_program(FILE) == SAMPLE


def test_a_file_is_read_like_its_bytes(tmp_path: Path):
    path = tmp_path / "net.lwb"
    path.write_bytes(FILE)
    assert read_program(path) == SAMPLE


def test_the_same_program_gives_the_same_bytes():
    assert write_program(SAMPLE) == FILE
    backwards = {"totals": {}, "layers": [{"share": 0.5, "cycles": 12, "name": "conv"}]}
    assert write_program(replace(SAMPLE, report=backwards)) == FILE


def test_layout_is_as_documented():
    magic, version, isa, config, length, crc, metadata_length, header_crc, zero = struct.unpack_from(
        "<8sIIQQIIII", FILE
    )
    assert (magic, version, isa, config, zero) == (b"LOOMWORK", 2, isa_hash(), TINY.hash, 0)
    assert length == len(FILE)
    assert crc == zlib.crc32(FILE[48:])
    assert header_crc == zlib.crc32(FILE[:40])
    metadata = json.loads(FILE[48 : 48 + metadata_length])
    start = (48 + metadata_length + 15) // 16 * 16
    assert not any(FILE[48 + metadata_length : start])
    host, accelerator = metadata["steps"]
    expected = {"model": b"model", "commands": NOP + END, "constants": bytes(range(37))}
    for step, name in ((host, "model"), (accelerator, "commands"), (accelerator, "constants")):
        place = step[name]
        assert place["offset"] % 16 == 0
        assert FILE[start + place["offset"] :][: place["length"]] == expected[name]


def test_files_put_together_by_hand_are_read():
    assert read_program(with_metadata(json.dumps(metadata_of(FILE), indent=3))) == SAMPLE


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_does_not_know_are_not_written(number: float):
    with pytest.raises(ValueError, match="JSON"):
        write_program(replace(SAMPLE, report={"x": number}))


# Damage: what happens to files on their way


def test_every_truncation_is_refused():
    for length in range(len(FILE)):
        with pytest.raises(ProgramError, match=r"truncated|not a Loomwork program"):
            read_program(FILE[:length])


def test_every_flipped_byte_is_refused():
    for position in range(len(FILE)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(FILE)
            damaged[position] ^= flip
            with pytest.raises(ProgramError):
                read_program(bytes(damaged))


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"", "this is not a Loomwork program: it does not begin with 'LOOMWORK'"),
        (b"PK\x03\x04" + bytes(100), "this is not a Loomwork program: it does not begin with 'LOOMWORK'"),
        (FILE[:20], "the program is truncated: 20 bytes, the header alone has 48"),
        (FILE[:-1], f"the program is truncated: {len(FILE) - 1} bytes instead of {len(FILE)}"),
        (FILE + b"\0", f"the program is too long: {len(FILE) + 1} bytes instead of {len(FILE)}"),
        (FILE[:8] + b"\3" + FILE[9:], "the program is damaged: the checksum of its header (bytes 0 to 47)"),
        (FILE[:-1] + b"!", f"the program is damaged: the checksum of bytes 48 to {len(FILE)} does not match"),
    ],
)
def test_damage_is_named(file: bytes, sentence: str):
    with pytest.raises(ProgramError, match=f"^{re.escape(sentence)}"):
        read_program(file)


def test_other_versions_are_named():
    metadata = json.dumps(metadata_of(FILE))
    with pytest.raises(ProgramError, match="format version 7, this Loomwork reads 2"):
        read_program(with_metadata(metadata, version=7))
    other = isa_hash() ^ 1
    with pytest.raises(ProgramError, match=rf"command set {other:#010x}, this Loomwork has {isa_hash():#010x}: comp"):
        read_program(with_metadata(metadata, isa=other))
    with pytest.raises(ProgramError, match="configuration does not match the fingerprint in its header"):
        read_program(with_metadata(metadata, config=SMALL.hash))


def test_an_error_names_the_file(tmp_path: Path):
    path = tmp_path / "net.lwb"
    path.write_bytes(FILE[:100])
    with pytest.raises(ProgramError, match=f"^{path}: the program is truncated"):
        read_program(path)


def test_files_that_cannot_be_read_stay_the_systems_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_program(tmp_path / "none.lwb")
    with pytest.raises(IsADirectoryError):
        read_program(tmp_path)


# Metadata that is wrong although every checksum is right


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (with_metadata(b"{"), r"metadata \(from byte 48\) is not JSON"),
        (with_metadata(b"\xff\xfe{}"), r"metadata \(from byte 48\) is not JSON: .*utf-8"),
        (with_metadata("[" * 100_000), r"metadata \(from byte 48\) is not JSON: .*recursion"),
        (with_metadata('{"config": NaN}'), r"metadata .* is not JSON: NaN is not a JSON number"),
        (with_metadata("[]"), r"^metadata must be an object, not \[\]"),
        (with_metadata("{}"), "^metadata has no 'config'"),
        (with_header(b"{}", 3), "metadata of 3 bytes passes the end of the file"),
        (changed("config.rows", 3), "configuration is not valid: rows must be a power of two from 2 to 64, not 3"),
        (changed("config.rows", 8), "configuration does not match the fingerprint"),
        (changed("config", 1), "metadata.config must be an object, not 1"),
        (changed("report", None), "metadata.report must be an object, not None"),
        (changed("inputs", []), "metadata.inputs must name at least one tensor"),
        (changed("outputs", []), "metadata.outputs must name at least one tensor"),
        (changed("inputs", ["nobody"]), "metadata.inputs names a tensor 'nobody' that is not in the table"),
        (changed("inputs", [1]), r"metadata.inputs\[0\] must be text, not 1"),
        (changed("inputs", ["x"]), "step 0 reads tensor 'größe', which nothing before it produces"),
        (changed("steps", []), "the program returns tensor 'y', which nothing before it produces"),
        (changed("tensors.1.name", "y"), r"metadata.tensors\[2\] is a second tensor called 'y'"),
        (changed("tensors.1.name", "\ud800"), r"tensors\[1\].name must be text, .*cannot be written as UTF-8"),
        (changed("tensors.1.dtype", "int7"), f"dtype must be one of {', '.join(DTYPES)}, not 'int7'"),
        (changed("tensors.1.scale", True), "scale must be a finite number or null, not True"),
        (changed("tensors.1.zero_point", 1 << 31), "zero_point must be from -2147483648 to 2147483647"),
        (changed("tensors.1.shape", [0]), r"shape\[0\] must be from 1 to 2147483648, not 0"),
        (changed("tensors.1.shape", [1, 3, 5, 2]), "its rows do not hold the 30 values of 'x'"),
        (changed("tensors.1.dtype", "uint8"), "the accelerator holds int8, but 'x' is uint8"),
        (changed("steps.0.kind", "cloud"), r"steps\[0\].kind must be 'accelerator' or 'host', not 'cloud'"),
        (changed("steps.0.runtime", "tvm"), r"steps\[0\].runtime must be one of tflite-micro, onnxruntime, not 'tvm'"),
        (changed("steps.0.operators", [["QUANTIZE"]]), "operators must hold pairs of operator and reason"),
        (changed("steps.0.inputs", []), r"steps\[0\].inputs must name at least one tensor"),
        (
            changed("steps.0.model.length", 1 << 31),
            r"steps\[0\].model passes the end of the file: bytes 0 to 2147483648",
        ),
        (changed("steps.0.model.offset", -1), r"model.offset must be from 0 to 4294967295, not -1"),
        (changed("steps.1.commands.length", 0), "commands must be a multiple of 32 bytes and not empty"),
        (changed("steps.1.commands.length", 33), "commands must be a multiple of 32 bytes and not empty"),
        (changed("steps.1.commands.length", 32), r"steps\[1\]: the last command must be END, not REQUANT"),
        (changed("steps.1.commands.offset", 4), r"steps\[1\]: command at byte 0: opcode"),
        (changed("steps.1.workspace_bytes", 1 << 32), "workspace_bytes must be from 0 to 4294967295"),
        (changed("steps.1.inputs", []), r"steps\[1\].inputs must place at least one tensor"),
        (changed("steps.1.outputs.0.tensor", "z"), r"outputs\[0\] names a tensor 'z' that is not in the table"),
        (changed("steps.1.inputs.0.row_stride", 4), "its rows do not hold the 15 values of 'x'"),
        (changed("steps.1.inputs.0.row_stride", 1 << 31), "ends at byte 6442450960 of its window, which can hold"),
        (changed("steps.1.inputs.0.offset", "0"), "offset must be a whole number, not '0'"),
        (changed("steps.1.inputs.0.offset", True), "offset must be a whole number, not True"),
    ],
)
def test_wrong_metadata_is_refused_and_named(file: bytes, sentence: str):
    with pytest.raises(ProgramError, match=sentence):
        read_program(file)


def test_a_number_too_large_for_a_float_is_no_scale():
    text = json.dumps(metadata_of(FILE)).replace("1e-30", "1e999")
    with pytest.raises(ProgramError, match="scale must be a finite number or null, not inf"):
        read_program(with_metadata(text))


def test_a_long_value_does_not_make_a_long_sentence():
    with pytest.raises(ProgramError) as caught:
        read_program(changed("inputs", "x" * 100_000))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("path", [
    *(f"tensors.1.{key}" for key in ("name", "shape", "dtype", "scale", "zero_point")),
    *("config", "tensors", "inputs", "outputs", "steps", "report"),
    *(f"steps.0.{key}" for key in ("kind", "runtime", "model", "inputs", "outputs", "operators")),
    *(f"steps.1.{key}" for key in ("commands", "constants", "inputs", "outputs", "workspace_bytes")),
    *(f"steps.1.inputs.0.{key}" for key in ("tensor", "offset", "row_stride", "rows", "row_bytes")),
])  # fmt: skip
def test_every_key_is_needed(path: str):
    root = metadata_of(FILE)
    *parents, last = path.split(".")
    node = root
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    del node[last]
    with pytest.raises(ProgramError, match=f"has no '{last}'"):
        read_program(with_metadata(json.dumps(root)))


WILD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 40),
    st.sampled_from([-(1 << 70), 1 << 31, 1 << 32, 1 << 40, 1 << 63, 10**4000]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["x", "y", "", "int8", "float32", "host", "accelerator", "\ud800", "\0"]),
    st.builds(list),
    st.builds(dict),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)),
)


def places(node, path=()):
    """Paths of all values in a JSON tree."""
    yield path
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*path, key))


PLACES = list(places(metadata_of(FILE)))


@st.composite
def mutated_metadata(draw) -> str:
    """The metadata of FILE with up to three values replaced, deleted, or put where they do not belong."""
    root = [metadata_of(FILE)]
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = (0, *draw(st.sampled_from(PLACES)))
        node = root
        try:
            for key in parents:
                node = node[key]
            action = draw(st.sampled_from(["replace", "replace", "replace", "delete", "repeat", "swap"]))
            if action == "delete" and len(parents) > 0:
                del node[last]
            elif action == "repeat" and isinstance(node, list):
                node.append(copy.deepcopy(node[last]))
            elif action == "swap":
                node[last] = metadata_of(FILE)[draw(st.sampled_from(["tensors", "inputs", "steps", "config"]))]
            else:
                node[last] = draw(WILD)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return json.dumps(root[0])


@settings(max_examples=400, deadline=2000)
@given(mutated_metadata())
@example(json.dumps(metadata_of(FILE)))
def test_no_metadata_leads_to_another_error(text: str):
    """Either a program, whose every part is usable, or a ProgramError; never another exception."""
    try:
        program = read_program(with_metadata(text))
    except ProgramError:
        return
    names = {tensor.name for tensor in program.tensors}
    assert {*program.inputs, *program.outputs} <= names
    for step in program.steps:
        if isinstance(step, AcceleratorStep):
            assert step.commands[-32:-31] == END[:1]
            assert sum(p.rows * p.row_bytes for p in (*step.inputs, *step.outputs)) < 1 << 34


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_body_leads_to_another_error(body: bytes, metadata_length: int):
    with pytest.raises(ProgramError):
        read_program(with_header(body, metadata_length))


# The page for those who write a loader

PAGE = (Path(__file__).parents[2] / "docs/reference/program.md").read_text(encoding="utf-8")


def table_rows(heading: str) -> list[list[str]]:
    """Cells of the rows of the first table behind a heading, without its header."""
    lines = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


def test_page_lists_the_header_as_it_is_written():
    formats = {4: "I", 8: "Q"}
    rows = table_rows("Header")
    position = 0
    packed = "<"
    for offset, size, _, _ in rows:
        assert int(offset) == position
        position += int(size)
        packed += "8s" if offset == "0" else formats[int(size)]
    assert packed == program_file._HEADER.format
    assert position == HEADER
    assert f"`{program_file.MAGIC.decode()}`" in rows[0][3]
    assert f"{program_file.FORMAT_VERSION}" in rows[1][3]


def test_pages_struct_is_the_table():
    sizes = {"char": 1, "uint32_t": 4, "uint64_t": 8}
    struct_text = PAGE.split("struct lwb_header {")[1].split("};")[0]
    members = re.findall(r"^ *(\w+) +(\w+)(?:\[(\d+)\])?;", struct_text, re.MULTILINE)
    assert [sizes[kind] * int(count or 1) for kind, _, count in members] == [
        int(row[1]) for row in table_rows("Header")
    ]


def test_page_lists_every_key_and_no_other():
    # These two are there where they are true.
    config = replace(SAMPLE.config, block_sparsity=True, deep_pipeline=True)
    metadata = metadata_of(write_program(replace(SAMPLE, config=config)))
    host, accelerator = metadata["steps"]
    documented = {heading: [row[0].strip("`") for row in table_rows(heading)] for heading in (
        "Metadata", "Configuration", "Tensors", "Accelerator steps", "Placements", "Host steps")}  # fmt: skip
    assert sorted(documented["Metadata"]) == sorted(metadata)
    assert sorted(documented["Configuration"]) == sorted(metadata["config"])
    assert sorted(documented["Tensors"]) == sorted(metadata["tensors"][0])
    assert sorted(documented["Accelerator steps"]) == sorted(accelerator)
    assert sorted(documented["Placements"]) == sorted(accelerator["inputs"][0])
    assert sorted(documented["Host steps"]) == sorted(host)


def test_page_names_the_types_and_limits():
    (dtype,) = [row[2] for row in table_rows("Tensors") if row[0] == "`dtype`"]
    assert tuple(re.findall(r'`"(\w+)"`', dtype)) == DTYPES
    assert f"{program_file.ALIGNMENT} bytes" in PAGE
    assert f"{program_file.MAX_WINDOW_BYTES:,}" in PAGE


def test_pages_example_computes_the_fingerprint_of_a_configuration():
    """The page says how the configuration hash is made; done by that recipe it is the one in the file."""
    import hashlib

    values = {key: value for key, value in metadata_of(FILE)["config"].items() if key != "name"}
    text = json.dumps(values, sort_keys=True)
    assert "sorted by key" in PAGE
    assert hashlib.sha256(text.encode()).digest()[:8] == FILE[16:24]


def test_data_survives_being_large():
    constants = np.arange(1 << 16, dtype=np.uint16).tobytes()
    host, accelerator = SAMPLE.steps
    assert isinstance(accelerator, AcceleratorStep)
    large = replace(accelerator, constants=constants)
    assert read_program(write_program(replace(SAMPLE, steps=(host, large)))).steps[1] == large
