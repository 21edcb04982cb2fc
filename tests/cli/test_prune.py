# SPDX-License-Identifier: Apache-2.0
"""`loomwork prune`: a smaller or sparser ONNX file, or a sentence and no file."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import onnxruntime_session

FACTORIES = """
import torch
from torch import nn

def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))

def fails():
    raise RuntimeError("no weights today")

def number():
    return 3

def map():
    return nn.Conv2d(2, 8, 1)

constant = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with factories, data for them, and an ONNX model."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)  # several threads wait for each other where other tests keep the cores busy
    (tmp_path / "net.py").write_text(FACTORIES)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 2, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x, y=x.mean(axis=(2, 3)).argmax(axis=1))
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8))],
        [numpy_helper.from_array(rng.normal(size=(8, 16)).astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    return tmp_path


def weights(path: Path) -> dict[tuple[int, ...], np.ndarray]:
    """The float constants of a model by shape."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return {array.shape: array for array in arrays if array.dtype == np.float32}


def test_blocks_of_an_onnx_model(folder: Path, loomwork):
    finished = loomwork("prune", "net.onnx", "-o", "out.onnx", "--sparsity", 0.5, "-c", "tiny")
    assert (finished.code, finished.err) == (0, "")
    pruned, before = weights(folder / "out.onnx")[8, 16], weights(folder / "net.onnx")[8, 16]
    zero = (pruned.reshape(2, 4, 4, 4) == 0).all(axis=(1, 3))
    assert zero.sum() == 4
    np.testing.assert_array_equal(pruned[pruned != 0], before[pruned != 0])
    assert re.search(r"^\W*total\W+8\W+4\W*$", finished.out, re.MULTILINE)
    assert "wrote out.onnx" in finished.out


def test_blocks_of_a_module_that_is_fine_tuned(folder: Path, loomwork):
    arguments = ("prune", "net.py:make", "--sparsity", 0.5, "-c", "tiny", "--data", "train.npz", "--epochs", 2)
    finished = loomwork(*arguments, "-o", "out.onnx")
    assert finished.code == 0
    assert [line.split(":")[0] for line in finished.err.splitlines()] == ["epoch 1 of 2", "epoch 2 of 2"]
    pruned = weights(folder / "out.onnx")
    # 8 channels of 2x2 pixels and 3 outputs: two tiles of 4 channels for each pixel.
    zero = [(pruned[3, 32].reshape(3, 2, 4, 2, 2)[:, block, :, y, x] == 0).all() for block, y, x in np.ndindex(2, 2, 2)]
    assert sum(zero) > 0
    session = onnxruntime_session(onnx.load(folder / "out.onnx"))
    assert session.get_inputs()[0].shape == [1, 2, 4, 4]
    assert loomwork(*arguments, "-o", "other.onnx", "--seed", 1).code == 0
    assert not np.array_equal(weights(folder / "other.onnx")[3, 32], pruned[3, 32])


def test_channels_of_a_module(folder: Path, loomwork):
    finished = loomwork(
        *("prune", "net.py:make", "-o", "out.onnx", "--sparsity", 0.5, "--mode", "channels", "-c", "tiny"),
        *("--input-shape", "2,4,4", "--ignore", "0"),
    )
    assert (finished.code, finished.err) == (0, "")
    assert {shape for shape in weights(folder / "out.onnx") if len(shape) > 1} == {(8, 2, 3, 3), (4, 8, 1, 1), (3, 16)}


def test_per_layer(folder: Path, loomwork):
    arguments = ("prune", "net.py:make", "-o", "out.onnx", "--sparsity", 0.5, "-c", "tiny", "--input-shape", "2,4,4")
    assert loomwork(*arguments, "--scope", "layer").code == 0
    kernel = weights(folder / "out.onnx")[8, 8, 1, 1].reshape(2, 4, 2, 4)
    assert (kernel == 0).all(axis=(1, 3)).sum() == 2


BAD = [
    (("net.onnx", "--sparsity", 1.5), "sparsity is the share that is removed, at least 0 and below 1, not 1.5"),
    (("net.py:make", "--sparsity", -1), "sparsity is the share"),
    (("net.py", "--sparsity", 0.5), "net.py: which function makes the network? a factory is FILE.py:NAME"),
    (("net.pt", "--sparsity", 0.5), "net.pt is neither an ONNX file (.onnx) nor a factory; a factory is FILE.py:NAME"),
    (("none.onnx", "--sparsity", 0.5), "there is no file none.onnx"),
    (("none.py:make", "--sparsity", 0.5), "there is no file none.py"),
    (("net.py:mak", "--sparsity", 0.5), "net.py has no 'mak'; a factory is"),
    (("net.py:number", "--sparsity", 0.5), "net.py: number() returns a int; a factory is"),
    (("net.py:constant", "--sparsity", 0.5), "net.py: 'constant' is no function but a int; a factory is"),
    (("net.py:fails", "--sparsity", 0.5), "net.py: fails() fails: RuntimeError: no weights today; a factory is"),
    (("broken.py:make", "--sparsity", 0.5), "broken.py cannot be executed: SyntaxError: "),
    (("net.py:make", "--sparsity", 0.5), "give --data TRAIN.npz or --input-shape C,H,W"),
    (("net.py:make", "--sparsity", 0.5, "--input-shape", "2,x"), "--input-shape takes positive whole numbers"),
    (("net.py:make", "--sparsity", 0.5, "--input-shape", "3,4,4"), "fails on example inputs of shape [1, 3, 4, 4]"),
    (("net.py:make", "--sparsity", 0.5, "--data", "none.npz"), "none.npz: No such file or directory"),
    (("net.py:make", "--sparsity", 0.5, "--data", "net.onnx"), "net.onnx must be a .npz file with arrays x"),
    (("net.py:make", "--sparsity", 0.5, "--data", "text.npz"), "text.npz is not a NumPy file"),
    (("net.py:make", "--sparsity", 0.5, "--data", "x_only.npz"), "x_only.npz has no array y, only x"),
    (
        ("net.py:make", "--sparsity", 0.5, "--data", "empty.npz"),
        "the training data are empty: x has shape [0, 2, 4, 4]",
    ),
    (("net.py:make", "--sparsity", 0.5, "--data", "nan.npz"), "x holds values that are not finite, the first at [0, 0"),
    (("net.py:make", "--sparsity", 0.5, "--data", "wide.npz"), "fails on example inputs of shape [1, 2, 4, 9]"),
    (("net.py:make", "--sparsity", 0.5, "--data", "classes.npz"), "y holds class 3; classes are 0 to 2"),
    (
        ("net.py:map", "--sparsity", 0.5, "--data", "train.npz"),
        "the module returns shape [1, 8, 4, 4]; to be fine-tuned",
    ),
    (("net.onnx", "--sparsity", 0.5, "--data", "train.npz"), "only a PyTorch module can be fine-tuned"),
    (("net.onnx", "--sparsity", 0.5, "--mode", "channels"), "channels are removed from PyTorch modules only"),
    (("net.onnx", "--sparsity", 0.5, "--ignore", "w"), "has no layer to prune"),
    (("text.onnx", "--sparsity", 0.5), "text.onnx is not a valid ONNX file"),
    (("net.py:make", "--sparsity", 0.5, "--mode", "channels", "--input-shape", "2,4,4"), "more than 16 channels"),
]


@pytest.mark.parametrize(("arguments", "text"), BAD)
def test_a_mistake_is_a_sentence_and_leaves_no_file(folder: Path, loomwork, arguments, text: str):
    (folder / "broken.py").write_text("def make(:\n")
    (folder / "text.npz").write_text("text")
    (folder / "text.onnx").write_text("text")
    with np.load(folder / "train.npz") as good:
        x, y = good["x"], good["y"]
    np.savez(folder / "x_only.npz", x=x)
    np.savez(folder / "empty.npz", x=x[:0], y=y[:0])
    np.savez(folder / "nan.npz", x=np.where(x == x[0, 0, 0, 0], np.nan, x), y=y)
    np.savez(folder / "wide.npz", x=np.zeros((4, 2, 4, 9), np.float32), y=y[:4])
    np.savez(folder / "classes.npz", x=x, y=y + 2)
    finished = loomwork("prune", *arguments, "-o", "out.onnx")
    assert finished.code == 2
    assert finished.err.startswith("error: ")
    assert text in finished.err
    assert len(finished.err.splitlines()) == 1
    assert not (folder / "out.onnx").exists()


def test_the_input_is_not_overwritten(folder: Path, loomwork):
    for name, destination in (("net.onnx", "net.onnx"), ("net.py:make", "net.py")):
        finished = loomwork("prune", name, "-o", destination, "--sparsity", 0.5)
        assert finished.code == 2
        assert "it is the same file as an input" in finished.err
