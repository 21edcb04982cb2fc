# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules to ONNX: ONNX Runtime computes what the module does; what cannot be exported is a sentence."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from loomwork.compiler import torch_extra
from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.torch_module import LONGEST_REASON, export
from tests.onnx_models import onnxruntime_session


class ConvNet(nn.Module):
    """Convolution 3 -> 32, ReLU, max-pool, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.hidden = nn.Linear(32 * 4 * 4, 16)
        self.scores = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.features(image)))
        x = nn.functional.max_pool2d(x, 2)
        x = torch.relu(self.hidden(x.flatten(1)))
        return self.scores(x)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def conv_net() -> ConvNet:
    torch.manual_seed(3)
    net = ConvNet()
    for _ in range(3):  # so that the running mean and variance are not 0 and 1
        net(torch.randn(8, 3, 8, 8) * 2 + 1)
    return net


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_onnx_runtime_computes_what_the_module_does():
    net = conv_net()
    model = export(net, torch.zeros(1, 3, 8, 8))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime_session(model)
    net.eval()
    for seed in range(3):
        image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        (actual,) = session.run(None, {model.graph.input[0].name: image.numpy()})
        with torch.no_grad():
            expected = net(image).numpy()
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-4, atol=1e-5)


def test_shapes_are_fixed_weights_are_inside_and_sources_are_not():
    model = export(conv_net(), (torch.zeros(2, 3, 8, 8),), opset=18)
    assert [shape_of(value) for value in (*model.graph.input, *model.graph.output)] == [[2, 3, 8, 8], [2, 10]]
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    sizes = {tuple(tensor.dims) for tensor in model.graph.initializer}
    assert {(32, 3, 3, 3), (16, 512), (10, 16)} <= sizes
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert __file__.encode() not in model.SerializeToString()


def test_the_module_is_left_in_the_modes_it_was_in():
    net = conv_net()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export(net, torch.zeros(1, 3, 8, 8))
    assert [part.training for part in (net, net.features, net.norm)] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_module_that_does_not_export():
    with pytest.raises(
        CompileError, match=r"^module Branching cannot be exported to ONNX: .*; write forward"
    ) as caught:
        export(Branching(), torch.ones(1, 3))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < LONGEST_REASON + 200


def test_a_module_that_fails_on_the_example():
    with pytest.raises(
        CompileError, match=r"^module ConvNet fails on example inputs of shape \[1, 4, 8, 8\]: .*; give inputs"
    ):
        export(conv_net(), torch.zeros(1, 4, 8, 8))


def test_a_module_with_two_results():
    with pytest.raises(CompileError, match=r"^module Pair returns a tuple; forward has to return one tensor$"):
        export(Pair(), torch.zeros(1, 3))


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch_extra, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(CompileError, match=r"need torch, not installed here: pip install 'loomwork\[torch\]'$"):
        export(nn.ReLU(), torch.zeros(1, 3))
