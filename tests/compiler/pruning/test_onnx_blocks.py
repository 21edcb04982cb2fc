# SPDX-License-Identifier: Apache-2.0
"""Block pruning of ONNX models: the tiles that pruning of the same PyTorch module chooses."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from loomwork.arch.config import MID, TINY
from loomwork.compiler import torch_extra
from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.torch_module import export
from loomwork.compiler.pruning.blocks import prune_blocks
from loomwork.compiler.pruning.onnx_blocks import count_onnx_tiles, prune_onnx_blocks
from tests.compiler.pruning.modules import image, small
from tests.onnx_models import onnxruntime_session


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def matmul_model(weights: np.ndarray, *, shape: tuple[int, ...] = (1, 8)) -> onnx.ModelProto:
    """`y = x @ weights`; an x of rank 4 is flattened first."""
    nodes = [helper.make_node("MatMul", ["x" if len(shape) == 2 else "flat", "w"], ["y"])]
    if len(shape) == 4:
        nodes.insert(0, helper.make_node("Flatten", ["x"], ["flat"], axis=1))
    graph = helper.make_graph(
        nodes,
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, weights.shape[1]))],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export(nn.Sequential(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1, groups=2)), torch.ones(1, 8, 4, 4))


def test_the_same_tiles_as_of_the_module():
    # Without normalization, which the exporter would fold into weights.
    net = small()
    net.norm = nn.Identity()
    model = export(net, image())
    before = weights_of(model)
    pruned = prune_onnx_blocks(model, 0.5, TINY)
    prune_blocks(net, image(), 0.5, TINY)
    after = weights_of(pruned)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(after[name], value.numpy(), err_msg=name)
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(model).items())  # a copy was pruned
    session = onnxruntime_session(pruned)
    (actual,) = session.run(None, {model.graph.input[0].name: image().numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(np.asarray(actual), net.eval()(image()).numpy(), rtol=1e-4, atol=1e-5)
    counts = {count.name: (count.tiles, count.zero) for count in count_onnx_tiles(pruned, TINY)}
    assert counts["hidden.weight"][0] == 32
    total, zero = (sum(values) for values in zip(*counts.values(), strict=True))
    assert zero == round(0.5 * total)


def test_a_matmul_has_its_outputs_behind():
    # 16 rows and 8 columns: a tile is 16 inputs by 8 outputs.
    weights = np.ones((32, 16), np.float32)
    weights[16:, 8:] = 0.5
    expected = np.where(weights == 1, 1, 0)
    pruned = weights_of(prune_onnx_blocks(matmul_model(weights, shape=(1, 32)), 0.25, MID))["w"]
    np.testing.assert_array_equal(pruned, expected)


def test_a_flattened_map_is_pruned_by_pixels():
    # 4 channels of 1x2 pixels, channel by channel: the rows of pixel 0 are the even ones.
    weights = np.ones((8, 4), np.float32)
    weights[::2] = 0.5
    pruned = weights_of(prune_onnx_blocks(matmul_model(weights, shape=(1, 4, 1, 2)), 0.5, TINY))["w"]
    np.testing.assert_array_equal(pruned, [[0] * 4, [1] * 4] * 4)


def test_weights_to_leave_alone_and_convolutions_in_groups(exported: onnx.ModelProto):
    names = [count.name for count in count_onnx_tiles(exported, TINY)]
    assert len(names) == 1
    with pytest.raises(CompileError, match=r"has no layer to prune: it needs a Conv without groups"):
        prune_onnx_blocks(exported, 0.5, TINY, ignored=names)
    with pytest.raises(CompileError, match=rf"^there are no weights 'w' to leave alone; the weights are {names[0]}$"):
        prune_onnx_blocks(exported, 0.5, TINY, ignored=["w"])


def test_bad_models_and_arguments():
    with pytest.raises(CompileError, match=r"^weights 'w' hold values that are not finite"):
        prune_onnx_blocks(matmul_model(np.full((8, 4), np.nan, np.float32)), 0.5, TINY)
    with pytest.raises(CompileError, match=r"^sparsity is the share .* not 2"):
        prune_onnx_blocks(matmul_model(np.ones((8, 4), np.float32)), 2, TINY)
    empty = matmul_model(np.ones((8, 4), np.float32))
    del empty.graph.initializer[:]
    with pytest.raises(CompileError, match=r"^model 'matmul' has no layer to prune: .* pruned before quantization$"):
        prune_onnx_blocks(empty, 0.5, TINY)


def test_without_onnx(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch_extra, "find_spec", lambda name: None)
    with pytest.raises(
        CompileError, match=r"^ONNX models need onnx, not installed here: pip install 'loomwork\[torch\]'$"
    ):
        prune_onnx_blocks(onnx.ModelProto(), 0.5, TINY)
