# SPDX-License-Identifier: Apache-2.0
"""`loomwork quantize`: from a float network and typical inputs to an int8 network and a report."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import onnxruntime_session

CLASSES = 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with net.onnx, image [N, 2, 4, 4] to scores [N, 3], data.npz and test data.

    test.npz: its labels are what the float network answers, but for the first of 10.
    """
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(3)
    constants = {
        "w": random.standard_normal((4, 2, 3, 3)),
        "dense": random.standard_normal((CLASSES, 16)),
        "bias": random.standard_normal(CLASSES),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "dense", "bias"], ["scores"], name="fc", transB=1),
        ],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save_model(network, tmp_path / "net.onnx")
    images = random.standard_normal((10, 2, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    np.save(tmp_path / "data.npy", images)
    labels = answers(tmp_path / "net.onnx", images).argmax(axis=1)
    labels[0] = (labels[0] + 1) % CLASSES
    np.savez(tmp_path / "test.npz", image=images, label=labels)
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime_session(onnx.load(str(path)))
    return np.concatenate([np.asarray(session.run(["scores"], {"image": image[None]})[0]) for image in images])


def test_a_network_is_quantized(folder: Path, loomwork):
    finished = loomwork("quantize", "net.onnx", "--calibration", "data.npz", "-o", "out.onnx", "--method", "minmax")
    assert finished.code == 0, finished.err
    assert finished.out.endswith("wrote out.onnx\n")
    assert "conv" in finished.out
    assert "Conv + Relu" in finished.out
    assert "chosen: minmax ranges" in finished.out
    network = onnx.load(folder / "out.onnx")
    onnx.checker.check_model(network, full_check=True)
    assert "QuantizeLinear" in [item.op_type for item in network.graph.node]
    images = np.load(folder / "data.npy")
    wanted, got = answers(folder / "net.onnx", images), answers(folder / "out.onnx", images)
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_single_array_serves_a_single_input(folder: Path, loomwork):
    call = ("quantize", "net.onnx", "--method", "mse", "-o")
    assert loomwork(*call, "a.onnx", "--calibration", "data.npz").code == 0
    assert loomwork(*call, "b.onnx", "--calibration", "data.npy").code == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_auto_names_what_it_chose(folder: Path, loomwork):
    finished = loomwork("quantize", "net.onnx", "--calibration", "data.npy", "-o", "out.onnx", "--report", "out.json")
    assert finished.out.endswith("wrote out.onnx and out.json\n")
    report = json.loads((folder / "out.json").read_text())
    assert report["chosen"]["snr_db"] == max(trial["snr_db"] for trial in report["trials"])
    assert f"chosen: {report['chosen']['method']} ranges" in finished.out
    assert f"the best of {len(report['trials'])} ways" in finished.out
    assert [layer["name"] for layer in report["layers"]] == ["image", "conv", "flatten", "fc"]
    assert [("weight_snr_db" in layer) for layer in report["layers"]] == [False, True, False, True]
    assert report["accuracy"] is None
    assert report["outputs"][0]["name"] == "scores"
    assert f"output scores: {report['outputs'][0]['snr_db']:.1f} dB" in finished.out


@pytest.mark.parametrize("labels", ["label", "labels.npy"])
def test_accuracy_before_and_after(folder: Path, loomwork, labels: str):
    if labels == "labels.npy":
        with np.load("test.npz") as arrays:
            np.savez("test.npz", image=arrays["image"])
    call = ("quantize", "net.onnx", "--calibration", "data.npy", "-o", "out.onnx", "--method", "minmax")
    finished = loomwork(*call, "--test", "test.npz", "--labels", labels, "--report", "out.json")
    assert finished.code == 0, finished.err
    accuracy = json.loads((folder / "out.json").read_text())["accuracy"]
    right = answers(folder / "out.onnx", np.load("data.npy")).argmax(axis=1) == np.load("labels.npy")
    assert accuracy == {"float": 0.9, "int8": np.mean(right)}
    assert f"top-1 accuracy: 90.00% before, {np.mean(right):.2%} after" in finished.out


def test_a_shape_is_given_by_name(folder: Path, loomwork):
    call = ("quantize", "net.onnx", "--calibration", "data.npy", "-o", "out.onnx", "--method", "minmax")
    assert loomwork(*call, "--shape", "image=2,2,4,4").code == 0
    sizes = onnx.load(folder / "out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_value for size in sizes] == [2, 2, 4, 4]


def test_steps_can_be_left_out(folder: Path, loomwork):
    call = ("quantize", "net.onnx", "--calibration", "data.npy", "-o", "out.onnx", "--report", "out.json")
    assert loomwork(*call, "--method", "mse", "--no-equalize", "--no-correct-bias").code == 0
    (trial,) = json.loads((folder / "out.json").read_text())["trials"]
    assert (trial["method"], trial["equalized"], trial["bias_corrected"]) == ("mse", False, False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.onnx"], "none.onnx: No such file or directory"),
        (["data.npz"], "data.npz is no ONNX model"),
        (["net.onnx", "--calibration", "none.npy"], "none.npy: No such file or directory"),
        (["net.onnx", "--calibration", "data.csv"], "data.csv must be a .npy or .npz file"),
        (["net.onnx", "--calibration", "net.npz"], "net.npz is not a NumPy file"),
        (
            ["net.onnx", "--calibration", "wrong.npz"],
            "net.onnx: calibration data has picture, but the inputs are image",
        ),
        (["net.onnx", "--shape", "image"], "--shape image: expected the name of an input and its sizes, such as"),
        (["net.onnx", "--shape", "image=1,x"], "--shape image=1,x: expected the name of an input and its sizes"),
        (["net.onnx", "--shape", "image=1,2,4,4", "--shape", "image=1,2,4,4"], "input image has a shape already"),
        (
            ["net.onnx", "--shape", "image=1,2,9,9"],
            "net.onnx: dimension 2 of input image is 4 in the model and 9 in the",
        ),
        (["net.onnx", "--test", "test.npz"], "accuracy takes both --test with inputs and --labels with their classes"),
        (["net.onnx", "--test", "test.npz", "--labels", "x"], "--labels x is neither a file nor an array of test.npz"),
        (["net.onnx", "--test", "test.npz", "--labels", "labels.npy"], "test data has label, but the inputs are image"),
        (["net.onnx", "--test", "data.npz", "--labels", "few.npy"], "there are 3 labels for 10 samples of test data"),
        (["net.onnx", "-o", "net.onnx"], "cannot write net.onnx: it is the same file as an input"),
        (["net.onnx", "--report", "out.onnx"], "cannot write out.onnx and out.onnx: two results need two files"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(folder: Path, loomwork, arguments: list[str], sentence: str):
    np.savez("wrong.npz", picture=np.zeros((1, 2, 4, 4), np.float32))
    np.save("few.npy", np.array([0, 1, 2]))
    Path("net.npz").write_text("no archive")
    options = {"--calibration": "data.npy", "-o": "out.onnx", "--method": "minmax"}
    defaults = [part for name, value in options.items() if name not in arguments for part in (name, value)]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    finished = loomwork("quantize", *arguments, *defaults)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith("error: ")
    assert sentence in finished.err
    assert "Traceback" not in finished.err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_several_inputs_need_names(folder: Path, loomwork):
    network = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["a", "b"], ["y"])],
            "sum",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "ab"],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.save_model(network, folder / "sum.onnx")
    finished = loomwork("quantize", "sum.onnx", "--calibration", "data.npy", "-o", "out.onnx")
    assert finished.code == 2
    assert "the network has inputs a, b: give them by name in a .npz file, not in data.npy" in finished.err
