# SPDX-License-Identifier: Apache-2.0
"""Configurations: limits, derived sizes, files."""

import hashlib
import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from loomwork.arch.config import BANKS, BASE, PRESETS, TINY, Config, ConfigError, load_config


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_presets(config: Config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.bank_words * config.rows * BANKS == config.scratchpad_kib * 1024
    assert config.channel_groups * config.requant_lanes == config.cols
    assert config.bank_words % 2 == 0, "even and odd words"


def test_derived_sizes_of_the_benchmark_shape():
    assert (BASE.macs_per_cycle, BASE.weight_tile_bytes, BASE.bank_words) == (256, 256, 4096)


@pytest.mark.parametrize(
    ("rows", "taps", "groups"), [(2, 2, 1), (4, 4, 1), (8, 4, 2), (16, 4, 4), (32, 8, 4), (64, 16, 4)]
)
def test_rows_are_shared_by_kernel_rows_in_depthwise_mode(rows: int, taps: int, groups: int):
    config = replace(TINY, rows=rows, cols=2, bus_bytes=2, requant_lanes=1)
    assert (config.depthwise_taps, config.depthwise_groups) == (taps, groups)


@pytest.mark.parametrize("rows", [2, 4, 8, 16, 32, 64])
def test_partial_sums_fit(rows: int):
    config = replace(TINY, rows=rows, cols=2, bus_bytes=2, requant_lanes=1)
    assert rows * -128 * -128 < 1 << config.psum_bits - 1
    assert rows * -128 * 127 >= -(1 << config.psum_bits - 1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rows": 3}, "rows must be a power of two from 2 to 64, not 3"),
    ({"rows": 128}, "rows must be a power of two from 2 to 64, not 128"),
    ({"rows": 0}, "rows must be a power of two from 2 to 64, not 0"),
    ({"rows": -4}, "rows must be a power of two from 2 to 64, not -4"),
    ({"rows": 4.0}, "rows must be a whole number, not 4.0"),
    ({"rows": True}, "rows must be a whole number, not true"),
    ({"rows": "4"}, 'rows must be a whole number, not "4"'),
    ({"residual_add": 1}, "residual_add must be true or false, not 1"),
    ({"elementwise_multiply": "no"}, 'elementwise_multiply must be true or false, not "no"'),
    ({"depthwise": 0}, "depthwise must be true or false, not 0"),
    ({"activation_table": None}, "activation_table must be true or false, not null"),
    ({"block_sparsity": 1}, "block_sparsity must be true or false, not 1"),
    ({"deep_pipeline": "yes"}, 'deep_pipeline must be true or false, not "yes"'),
    ({"name": 5}, "name must be text, not 5"),
    ({"name": "two words"}, "name must be an identifier (letters, digits, _), not 'two words'"),
    ({"name": "../x"}, "name must be an identifier (letters, digits, _), not '../x'"),
    ({"cols": 1}, "cols must be a power of two from 2 to 64, not 1"),
    ({"cols": 8}, "cols must not exceed rows (4), not 8"),
    ({"bus_bytes": 8}, "bus_bytes must not exceed rows (4), not 8"),
    ({"bus_bytes": 1}, "bus_bytes must be a power of two from 2 to 64, not 1"),
    ({"requant_lanes": 8}, "requant_lanes must not exceed cols (4), not 8"),
    ({"requant_lanes": 3}, "requant_lanes must be a power of two from 1 to 64, not 3"),
    ({"accumulator_depth": 8}, "accumulator_depth must be a power of two from 16 to 1024, not 8"),
    ({"accumulator_depth": 2048}, "accumulator_depth must be a power of two from 16 to 1024, not 2048"),
    ({"queue_depth": 1}, "queue_depth must be a power of two from 2 to 16, not 1"),
    ({"stream_beats": 16}, "stream_beats must be a power of two from 32 to 1024, not 16"),
    ({"scratchpad_kib": 0}, "scratchpad_kib must be from 1 to 1024, not 0"),
    ({"scratchpad_kib": 1025}, "scratchpad_kib must be from 1 to 1024, not 1025"),
    ({"address_bits": 23}, "address_bits must be from 24 to 64, not 23"),
    ({"address_bits": 65}, "address_bits must be from 24 to 64, not 65"),
    (
        {"rows": 2, "cols": 2, "bus_bytes": 2, "scratchpad_kib": 1024},
        "scratchpad_kib=1024 gives 131072 words per bank, more than the 65536 a command can address",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[str(changes) for changes, _ in REFUSED])
def test_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Config.from_dict(TINY.to_dict() | changes)


def test_every_field_is_checked():
    checked = {name for changes, _ in REFUSED for name in changes}
    assert checked == {field.name for field in fields(Config)}


def test_hash_is_of_everything_but_the_name():
    assert replace(TINY, name="other").hash == TINY.hash
    hashes = {config.hash for config in PRESETS.values()}
    assert len(hashes) == len(PRESETS)
    for changes in (
        {"queue_depth": 8},
        {"residual_add": False},
        {"elementwise_multiply": False},
        {"depthwise": False},
        {"activation_table": False},
        {"block_sparsity": True},
        {"deep_pipeline": True},
        {"address_bits": 33},
        {"stream_beats": 32},
    ):
        assert replace(TINY, **changes).hash != TINY.hash
    assert all(0 <= value < 1 << 64 for value in hashes)


def test_a_configuration_without_later_fields_keeps_the_hash_from_before_there_were_any():
    """Of `tiny`, as the first release had it: its programs and bitstreams are still each other's."""
    names = [field.name for field in fields(Config) if field.name not in ("name", "block_sparsity", "deep_pipeline")]
    values = {name: getattr(TINY, name) for name in names}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()
    assert TINY.hash == int.from_bytes(digest[:8], "little")


def test_unknown_and_missing_fields():
    with pytest.raises(ConfigError, match=r"^unknown field colour, size; the fields are name, rows, "):
        Config.from_dict(TINY.to_dict() | {"colour": 1, "size": 2})
    values = TINY.to_dict()
    del values["rows"], values["bus_bytes"]
    with pytest.raises(ConfigError, match=r"^missing field rows, bus_bytes$"):
        Config.from_dict(values)


def write(path: Path, values: Any) -> str:
    path.write_text(json.dumps(values))
    return str(path)


def test_presets_and_files_are_found(tmp_path: Path):
    assert load_config("base") is BASE
    assert load_config(write(tmp_path / "whole.json", TINY.to_dict())) == TINY
    small_memory = load_config(write(tmp_path / "lean.json", {"base": "base", "scratchpad_kib": 64}))
    assert small_memory == replace(BASE, name="lean", scratchpad_kib=64)
    named = load_config(write(tmp_path / "x.json", {"base": "base", "name": "mine"}))
    assert named.name == "mine"


def test_a_configuration_may_come_through_a_pipe():
    reader, writer = os.pipe()
    os.write(writer, b'{"base": "base", "scratchpad_kib": 64}')
    os.close(writer)
    try:
        assert load_config(f"/dev/fd/{reader}") == replace(BASE, name="custom", scratchpad_kib=64)
    finally:
        os.close(reader)


def test_what_load_config_refuses(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^no preset and no file is called 'huge'; the presets are formal, nano, "):
        load_config("huge")
    with pytest.raises(ConfigError, match=r"^no preset and no file is called "):
        load_config(str(tmp_path))
    path = tmp_path / "bad.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))} is not a JSON file: "):
        load_config(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))} is not a JSON file: "):
        load_config(str(path))
    with pytest.raises(ConfigError, match=r"must hold a JSON object of configuration fields$"):
        load_config(write(path, [1]))
    with pytest.raises(ConfigError, match=r"bad\.json: base must be one of formal, .*, not 'huge'$"):
        load_config(write(path, {"base": "huge"}))
    with pytest.raises(ConfigError, match=r"bad\.json: base must be one of formal, .*, not \['base'\]$"):
        load_config(write(path, {"base": ["base"]}))
    with pytest.raises(ConfigError, match=r"bad\.json: cols must not exceed rows \(16\), not 32$"):
        load_config(write(path, {"base": "base", "cols": 32}))
