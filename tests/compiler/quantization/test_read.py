# SPDX-License-Identifier: Apache-2.0
"""Files that are no model, or only a part of one."""

from pathlib import Path

import onnx
import pytest

from loomwork.compiler.quantization import QuantizeError, read_model
from tests.compiler.quantization.graphs import conv_relu_conv, model, node, normal


def saved(folder: Path, network: onnx.ModelProto) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(network.SerializeToString())
    return path


def external(folder: Path) -> Path:
    onnx.save_model(
        conv_relu_conv(),
        folder / "net.onnx",
        save_as_external_data=True,
        location="net.bin",
        size_threshold=0,
    )
    return folder / "net.onnx"


def test_a_model_is_read(tmp_path: Path):
    assert read_model(saved(tmp_path, conv_relu_conv())) == conv_relu_conv()


def test_external_data_is_read(tmp_path: Path):
    network = read_model(external(tmp_path))
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    assert (found["w1"] == normal(4, 3, 3, 3, seed=10)).all()
    assert not any(tensor.external_data for tensor in network.graph.initializer)
    (tmp_path / "net.bin").unlink()
    assert len(network.SerializeToString()) > 4 * (4 * 27 + 5 * 36)


@pytest.mark.parametrize("content", [b"", b"TFL3 and so on, but no ONNX model", bytes(100), b"\x08\x08"])
def test_another_file_is_no_model(tmp_path: Path, content: bytes):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(QuantizeError, match=r"net\.onnx is no ONNX model"):
        read_model(tmp_path / "net.onnx")


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_part_of_a_file_is_refused(tmp_path: Path, share: float):
    path = saved(tmp_path, conv_relu_conv())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        QuantizeError, match=r"net\.onnx is (no ONNX model, or only a part of one: export it again|damaged)"
    ):
        read_model(path)


def test_a_model_that_does_not_hold_together_is_refused(tmp_path: Path):
    network = conv_relu_conv()
    network.graph.node[1].input[0] = "nothing"
    with pytest.raises(QuantizeError, match=r"net\.onnx is damaged: .*nothing.*; export it again$"):
        read_model(saved(tmp_path, network))


def test_an_initializer_of_the_wrong_length_is_refused(tmp_path: Path):
    network = model([node("Add", "x w", "y")], {"x": [3]}, {"y": [3]}, {"w": normal(3)})
    network.graph.initializer[0].raw_data = b"12345678"
    with pytest.raises(QuantizeError, match=r"net\.onnx is damaged: .*"):
        read_model(saved(tmp_path, network))


def test_missing_external_data_is_named(tmp_path: Path):
    path = external(tmp_path)
    (tmp_path / "net.bin").unlink()
    with pytest.raises(
        QuantizeError,
        match=r"net\.onnx keeps initializer w1 in net\.bin, which is not beside it: put the two files into one",
    ):
        read_model(path)


def test_external_data_that_was_cut_off_is_named(tmp_path: Path):
    path = external(tmp_path)
    (tmp_path / "net.bin").write_bytes((tmp_path / "net.bin").read_bytes()[:500])
    with pytest.raises(QuantizeError, match=r"net\.onnx keeps initializer \w+ in net\.bin, which cannot be used: "):
        read_model(path)
