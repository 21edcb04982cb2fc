# SPDX-License-Identifier: Apache-2.0
"""The `.lwb` file: a `Program` as bytes, and back.

Layout (little-endian):

| offset | bytes | what |
|---|---|---|
| 0 | 8 | magic `LOOMWORK` |
| 8 | 4 | format version |
| 12 | 4 | ISA hash (arch/isa.py `isa_hash`) |
| 16 | 8 | configuration hash (arch/config.py `Config.hash`) |
| 24 | 8 | length of the whole file |
| 32 | 4 | CRC-32 of everything behind the header |
| 36 | 4 | length of the metadata |
| 40 | 4 | CRC-32 of bytes 0 to 39 |
| 44 | 4 | zero |
| 48 | | metadata: JSON (UTF-8, sorted keys): configuration, tensors, steps, report |
| | | zeros up to a multiple of 16, then the data: commands, constants and host models, each at a multiple of 16 |

A step names its data by offset (from the start of the data) and length. The same program always gives the same bytes.
"""

import hashlib
import json
import math
import reprlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast

from loomwork.arch.command import decode_program
from loomwork.arch.config import Config, ConfigError
from loomwork.arch.isa import COMMAND_BYTES, IsaError, isa_hash
from loomwork.arch.program import AcceleratorStep, HostRuntime, HostStep, Placement, Program, Tensor

MAGIC = b"LOOMWORK"
FORMAT_VERSION = 2
ALIGNMENT = 16
DTYPES = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bool"),
)
MAX_WINDOW_BYTES = (1 << 32) - 1
"""Largest window: what the SIZE registers can hold."""
HEADER_FIELDS: tuple[tuple[str, str], ...] = (
    ("magic", "8s"),
    ("format_version", "I"),
    ("isa_hash", "I"),
    ("config_hash", "Q"),
    ("length", "Q"),
    ("body_crc", "I"),
    ("metadata_length", "I"),
    ("header_crc", "I"),
    ("reserved", "I"),
)
"""Fields of the header, in order, with their formats (as in module `struct`, little-endian, unpadded)."""
_HEADER = struct.Struct("<" + "".join(form for _, form in HEADER_FIELDS))


class ProgramError(ValueError):
    """A program file that cannot be used; one sentence says what is wrong and where."""


def write_program(program: Program) -> bytes:
    """The bytes of a `.lwb` file. Raises ValueError when the report or a scale holds NaN or an infinity."""
    data = bytearray()

    def store(blob: bytes) -> dict[str, int]:
        data.extend(bytes(-len(data) % ALIGNMENT))
        offset = len(data)
        data.extend(blob)
        return {"offset": offset, "length": len(blob)}

    steps: list[dict[str, Any]] = []
    for step in program.steps:
        if isinstance(step, AcceleratorStep):
            steps.append(
                {
                    "kind": "accelerator",
                    "commands": store(step.commands),
                    "constants": store(step.constants),
                    "inputs": [vars(placement) for placement in step.inputs],
                    "outputs": [vars(placement) for placement in step.outputs],
                    "workspace_bytes": step.workspace_bytes,
                }
            )
        else:
            steps.append(
                {
                    "kind": "host",
                    "runtime": step.runtime.value,
                    "model": store(step.model),
                    "inputs": step.inputs,
                    "outputs": step.outputs,
                    "operators": step.operators,
                }
            )
    metadata = json.dumps(
        {
            "config": program.config.to_dict(),
            "tensors": [vars(tensor) for tensor in program.tensors],
            "inputs": program.inputs,
            "outputs": program.outputs,
            "steps": steps,
            "report": program.report,
        },
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    ).encode()
    gap = -(_HEADER.size + len(metadata)) % ALIGNMENT
    body = metadata + bytes(gap) + bytes(data)
    header = _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        program.isa_hash,
        program.config.hash,
        _HEADER.size + len(body),
        zlib.crc32(body),
        len(metadata),
        0,
        0,
    )
    checksum = zlib.crc32(header[:40])
    return header[:40] + struct.pack("<II", checksum, 0) + body


def program_fingerprint(program: Program) -> str:
    """16 hexadecimal digits that tell programs apart: of everything that is executed, and so not of the report.

    What was measured on a program carries it.
    """
    return hashlib.sha256(write_program(replace(program, report={}))).hexdigest()[:16]


def read_program(data: bytes | Path) -> Program:
    """Read a `.lwb` file, from its bytes or its path, and check all of it.

    Raises ProgramError for a file that is not one, is damaged, or was made for another command set or format, and
    OSError when the path cannot be read.
    """
    if isinstance(data, bytes):
        return _read(data)
    try:
        return _read(data.read_bytes())
    except ProgramError as error:
        raise ProgramError(f"{data}: {error}") from None


def _read(data: bytes) -> Program:
    if data[: len(MAGIC)] != MAGIC:
        raise ProgramError("this is not a Loomwork program: it does not begin with 'LOOMWORK'")
    if len(data) < _HEADER.size:
        raise ProgramError(f"the program is truncated: {len(data)} bytes, the header alone has {_HEADER.size}")
    _, version, isa, config_hash, length, checksum, metadata_length, header_checksum, reserved = _HEADER.unpack(
        data[: _HEADER.size]
    )
    if zlib.crc32(data[:40]) != header_checksum or reserved:
        raise ProgramError("the program is damaged: the checksum of its header (bytes 0 to 47) does not match")
    if version != FORMAT_VERSION:
        raise ProgramError(f"the program has format version {version}, this Loomwork reads {FORMAT_VERSION}")
    if length != len(data):
        raise ProgramError(f"the program is {'truncated' if len(data) < length else 'too long'}: "
                           f"{len(data)} bytes instead of {length}")  # fmt: skip
    body = data[_HEADER.size :]
    if zlib.crc32(body) != checksum:
        raise ProgramError(f"the program is damaged: the checksum of bytes {_HEADER.size} to {length} does not match")
    if isa != isa_hash():
        raise ProgramError(
            f"the program was compiled for command set {isa:#010x}, this Loomwork has {isa_hash():#010x}: compile again"
        )
    if metadata_length > len(body):
        raise ProgramError(f"the program's metadata of {metadata_length} bytes passes the end of the file")
    try:
        metadata = json.loads(body[:metadata_length].decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"the program's metadata (from byte {_HEADER.size}) is not JSON: {error}") from None
    start = metadata_length + -(_HEADER.size + metadata_length) % ALIGNMENT
    program = _Reader(body[start:]).program(_Node(metadata, "metadata"), isa)
    if program.config.hash != config_hash:
        raise ProgramError("the program's configuration does not match the fingerprint in its header")
    return program


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class _Node:
    """A value of the metadata with its place, so that an error can name it."""

    def __init__(self, value: object, place: str) -> None:
        self.value = value
        self.place = place

    def __getitem__(self, key: str) -> "_Node":
        members = self._as(dict, "an object")
        if key not in members:
            raise ProgramError(f"{self.place} has no {key!r}")
        return _Node(members[key], f"{self.place}.{key}")

    def _as(self, kind: type, name: str) -> Any:
        if not isinstance(self.value, kind) or (kind is not bool and isinstance(self.value, bool)):
            raise ProgramError(f"{self.place} must be {name}, not {reprlib.repr(self.value)}")
        return self.value

    def mapping(self) -> Mapping[str, Any]:
        return cast(Mapping[str, Any], self._as(dict, "an object"))

    def items(self) -> list["_Node"]:
        values = self._as(list, "a list")
        return [_Node(value, f"{self.place}[{index}]") for index, value in enumerate(values)]

    def text(self) -> str:
        value = self._as(str, "text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ProgramError(f"{self.place} must be text, not {value!r}, which cannot be written as UTF-8") from None
        return value

    def whole(self, low: int = 0, high: int = MAX_WINDOW_BYTES) -> int:
        value = self._as(int, "a whole number")
        if not low <= value <= high:
            raise ProgramError(f"{self.place} must be from {low} to {high}, not {reprlib.repr(value)}")
        return value

    def names(self, known: Mapping[str, Tensor]) -> tuple[str, ...]:
        names = tuple(item.text() for item in self.items())
        if not names:
            raise ProgramError(f"{self.place} must name at least one tensor")
        for name in names:
            if name not in known:
                raise ProgramError(f"{self.place} names a tensor {name!r} that is not in the table")
        return names


class _Reader:
    """Builds a program from checked metadata and the data behind it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def program(self, root: _Node, isa: int) -> Program:
        try:
            config = Config.from_dict(root["config"].mapping())
        except ConfigError as error:
            raise ProgramError(f"the program's configuration is not valid: {error}") from None
        tensors: dict[str, Tensor] = {}
        for node in root["tensors"].items():
            tensor = self._tensor(node)
            if tensor.name in tensors:
                raise ProgramError(f"{node.place} is a second tensor called {tensor.name!r}")
            tensors[tensor.name] = tensor
        steps = tuple(self._step(step, tensors) for step in root["steps"].items())
        inputs, outputs = root["inputs"].names(tensors), root["outputs"].names(tensors)
        available = set(inputs)
        for index, step in enumerate(steps):
            _require(_consumed(step), available, f"step {index} reads")
            available.update(_produced(step))
        _require(outputs, available, "the program returns")
        return Program(
            config=config,
            isa_hash=isa,
            tensors=tuple(tensors.values()),
            inputs=inputs,
            outputs=outputs,
            steps=steps,
            report=root["report"].mapping(),
        )

    def _tensor(self, node: _Node) -> Tensor:
        dtype = node["dtype"].text()
        if dtype not in DTYPES:
            raise ProgramError(f"{node.place}.dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        scale, zero_point = node["scale"].value, node["zero_point"].value
        if scale is not None and not (isinstance(scale, float) and math.isfinite(scale)):
            raise ProgramError(f"{node.place}.scale must be a finite number or null, not {reprlib.repr(scale)}")
        if zero_point is not None:
            zero_point = node["zero_point"].whole(-(1 << 31), (1 << 31) - 1)
        shape = tuple(item.whole(1, 1 << 31) for item in node["shape"].items())
        return Tensor(name=node["name"].text(), shape=shape, dtype=dtype, scale=scale, zero_point=zero_point)

    def _step(self, node: _Node, tensors: Mapping[str, Tensor]) -> AcceleratorStep | HostStep:
        kind = node["kind"].text()
        if kind == "accelerator":
            commands = self._blob(node["commands"])
            if not commands or len(commands) % COMMAND_BYTES:
                raise ProgramError(f"{node.place}.commands must be a multiple of {COMMAND_BYTES} bytes and not empty")
            try:
                decoded = decode_program(commands)
            except IsaError as error:
                raise ProgramError(f"{node.place}: {error}") from None
            if decoded[-1].mnemonic != "END":
                raise ProgramError(f"{node.place}: the last command must be END, not {decoded[-1].mnemonic}")
            return AcceleratorStep(
                commands=commands,
                constants=self._blob(node["constants"]),
                inputs=self._placements(node["inputs"], tensors),
                outputs=self._placements(node["outputs"], tensors),
                workspace_bytes=node["workspace_bytes"].whole(),
            )
        if kind == "host":
            pairs = [[part.text() for part in item.items()] for item in node["operators"].items()]
            if any(len(pair) != 2 for pair in pairs):
                raise ProgramError(f"{node.place}.operators must hold pairs of operator and reason")
            runtime = node["runtime"].text()
            if runtime not in tuple(HostRuntime):
                raise ProgramError(
                    f"{node.place}.runtime must be one of {', '.join(HostRuntime)}, not {reprlib.repr(runtime)}"
                )
            return HostStep(
                runtime=HostRuntime(runtime),
                model=self._blob(node["model"]),
                inputs=node["inputs"].names(tensors),
                outputs=node["outputs"].names(tensors),
                operators=tuple((pair[0], pair[1]) for pair in pairs),
            )
        raise ProgramError(f"{node.place}.kind must be 'accelerator' or 'host', not {kind!r}")

    def _placements(self, node: _Node, tensors: Mapping[str, Tensor]) -> tuple[Placement, ...]:
        placements = tuple(self._placement(item, tensors) for item in node.items())
        if not placements:
            raise ProgramError(f"{node.place} must place at least one tensor")
        return placements

    def _placement(self, node: _Node, tensors: Mapping[str, Tensor]) -> Placement:
        placement = Placement(
            tensor=node["tensor"].text(),
            offset=node["offset"].whole(),
            row_stride=node["row_stride"].whole(1),
            rows=node["rows"].whole(1),
            row_bytes=node["row_bytes"].whole(1),
        )
        tensor = tensors.get(placement.tensor)
        if tensor is None:
            raise ProgramError(f"{node.place} names a tensor {placement.tensor!r} that is not in the table")
        if tensor.dtype != "int8":
            raise ProgramError(f"{node.place}: the accelerator holds int8, but {tensor.name!r} is {tensor.dtype}")
        values = math.prod(tensor.shape)
        if placement.rows * placement.row_bytes != values or placement.row_stride < placement.row_bytes:
            raise ProgramError(f"{node.place}: its rows do not hold the {values} values of {tensor.name!r}")
        end = placement.offset + placement.rows * placement.row_stride
        if end > MAX_WINDOW_BYTES:
            raise ProgramError(f"{node.place} ends at byte {end} of its window, which can hold {MAX_WINDOW_BYTES}")
        return placement

    def _blob(self, node: _Node) -> bytes:
        offset, length = node["offset"].whole(), node["length"].whole()
        if offset + length > len(self._data):
            raise ProgramError(
                f"{node.place} passes the end of the file: bytes {offset} to {offset + length} of {len(self._data)}"
            )
        return self._data[offset : offset + length]


def _consumed(step: AcceleratorStep | HostStep) -> tuple[str, ...]:
    return tuple(item if isinstance(item, str) else item.tensor for item in step.inputs)


def _produced(step: AcceleratorStep | HostStep) -> tuple[str, ...]:
    return tuple(item if isinstance(item, str) else item.tensor for item in step.outputs)


def _require(names: tuple[str, ...], available: set[str], what: str) -> None:
    for name in names:
        if name not in available:
            raise ProgramError(f"{what} tensor {name!r}, which nothing before it produces")
