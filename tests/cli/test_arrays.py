# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs as NumPy files, good and bad."""

import io
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loomwork.cli.arrays import load_arrays, save_arrays
from loomwork.cli.output import UsageError

A = np.arange(6, dtype=np.int8).reshape(2, 3)
B = np.linspace(0, 1, 4, dtype=np.float32)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=A, b=B)
    return buffer.getvalue()


def test_one_array_is_the_only_input(tmp_path: Path):
    np.save(tmp_path / "x.npy", A)
    (loaded,) = load_arrays(tmp_path / "x.npy", ["image"]).items()
    assert loaded[0] == "image"
    assert np.array_equal(loaded[1], A)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_several_arrays_go_by_name(save, tmp_path: Path):
    save(tmp_path / "x.npz", a=A, b=B)
    loaded = load_arrays(tmp_path / "x.npz", ["whatever"])
    assert list(loaded) == ["a", "b"]
    assert np.array_equal(loaded["a"], A)
    assert np.array_equal(loaded["b"], B)


# Names that NumPy's own functions take for something else, and names that converters make.
@pytest.mark.parametrize("name", ["file", "args", "allow_pickle", "serving_default_input:0", "model/layer 1", "größe"])
def test_any_name_survives_a_round_trip(name: str, tmp_path: Path):
    save_arrays(tmp_path / "y.npz", {name: A, "other": B})
    with np.load(tmp_path / "y.npz") as loaded:
        assert sorted(loaded.files) == sorted([name, "other"])
        assert np.array_equal(loaded[name], A)
    assert np.array_equal(load_arrays(tmp_path / "y.npz", [])["other"], B)


def test_one_output_is_one_array(tmp_path: Path):
    save_arrays(tmp_path / "y.npy", {"only": B})
    assert np.array_equal(np.load(tmp_path / "y.npy"), B)


def test_the_same_arrays_give_the_same_file(tmp_path: Path):
    save_arrays(tmp_path / "1.npz", {"a": A})
    save_arrays(tmp_path / "2.npz", {"a": A})
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_a_wrong_suffix_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(UsageError, match=r"y\.txt must be a \.npy or \.npz file"):
        save_arrays(tmp_path / "y.txt", {"only": B})
    with pytest.raises(UsageError, match=r"y\.txt must be a \.npy or \.npz file"):
        load_arrays(tmp_path / "y.txt", ["x"])
    assert list(tmp_path.iterdir()) == []


def claims(shape: str) -> bytes:
    """An array whose header claims another shape than its data has; the header keeps its length."""
    header = npy(A)
    return re.sub(rb"\(2, 3\), }( *)", lambda m: (f"{shape}, }}".encode()).ljust(len(m[0])), header)


def object_array() -> bytes:
    array = np.empty(1, object)
    array[0] = "code"
    return npy(array)


def archive_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.npy", b"", "is not a NumPy file: it begins with the bytes (none)"),
        ("x.npy", b"hello world", "is not a NumPy file: it begins with the bytes 68 65 6c 6c 6f 20"),
        ("x.npz", b"hello world", "is not a NumPy file"),
        ("x.npy", pickle.dumps([1, 2]), "is not a NumPy file"),
        ("x.npy", object_array(), "cannot be read as a NumPy file: Object arrays cannot be loaded"),
        (
            "x.npz",
            archive_of("x.npy", object_array()),
            "cannot be read as a NumPy file: Object arrays cannot be loaded",
        ),
        ("x.npy", npy(A)[:-1], "cannot be read as a NumPy file: "),
        ("x.npy", npy(A)[:40], "cannot be read as a NumPy file: "),
        ("x.npy", npy(A)[:6], "cannot be read as a NumPy file: "),
        ("x.npz", npz()[:-30], "cannot be read as a NumPy file: "),
        ("x.npz", archive_of("x.npy", npy(A)[:-1]), "cannot be read as a NumPy file: "),
        ("x.npy", claims("(99999, 99999, 99999)"), "cannot be read as a NumPy file: "),
        ("x.npy", claims("(10000000000000000,)"), "cannot be read as a NumPy file: "),
        ("x.npy", claims("(-2, -3)"), "cannot be read as a NumPy file: "),
        ("x.npz", archive_of("x.npy", claims("(10000000000000000,)")), "cannot be read as a NumPy file: "),
    ],
)
def test_a_bad_file_is_named_with_its_fault(name: str, content: bytes, sentence: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_arrays(tmp_path / name, ["x"])
    assert str(caught.value).startswith(f"{tmp_path / name} {sentence}")
    assert "\n" not in str(caught.value)


def test_one_array_does_for_one_input_only(tmp_path: Path):
    np.save(tmp_path / "x.npy", A)
    with pytest.raises(UsageError, match=r"the program has inputs a, b: give them by name in a \.npz file, not in .*x"):
        load_arrays(tmp_path / "x.npy", ["a", "b"])


def test_a_missing_file_stays_the_systems_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "none.npy", ["x"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("content", [npy(A), npz()], ids=["npy", "npz"])
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
@given(data=st.data())
def test_damage_leads_to_no_other_error(content: bytes, data: st.DataObject, tmp_path: Path):
    """A file with changed bytes is read, as what it then says, or refused with a UsageError."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.npz"
    path.write_bytes(damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))])
    try:
        loaded = load_arrays(path, ["x"])
    except UsageError:
        return
    assert all(isinstance(value, np.ndarray | bytes) for value in loaded.values())
