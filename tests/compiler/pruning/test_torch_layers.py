# SPDX-License-Identifier: Apache-2.0
"""The layers of a module: order, multiply-accumulates, and which dense layers see a flattened map."""

import pytest
import torch
from torch import nn

from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.torch_layers import check_ignored, torch_layers
from tests.compiler.pruning.modules import image, small


def test_layers_of_a_small_network():
    layers = torch_layers(small(), (image(2),))
    assert [(layer.name, layer.macs, layer.flattened, layer.grouped) for layer in layers] == [
        ("first", 16 * 8 * 27, None, False),
        ("depthwise", 16 * 8 * 9, None, True),
        ("second", 16 * 16 * 8, None, False),
        ("hidden", 64 * 8, (16, 2, 2), False),
        ("scores", 8 * 4, None, False),
    ]


@pytest.mark.parametrize("flatten", [nn.Flatten(), nn.Unflatten(1, (6,))])
def test_a_map_is_one_only_where_it_is_flattened(flatten: nn.Module):
    shape = (1, 2, 3, 1) if isinstance(flatten, nn.Flatten) else (1, 6)
    (layer,) = torch_layers(nn.Sequential(flatten, nn.ReLU(), nn.Linear(6, 2)), (torch.ones(shape),))
    assert layer.flattened == ((2, 3, 1) if isinstance(flatten, nn.Flatten) else None)


def test_a_map_ends_at_a_dense_layer():
    layers = torch_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4)), (torch.ones(1, 1, 2, 2),))
    assert [layer.flattened for layer in layers] == [(1, 2, 2), None]


def test_a_layer_that_is_called_twice_comes_once():
    shared = nn.Linear(4, 4)
    (layer,) = torch_layers(nn.Sequential(shared, nn.ReLU(), shared), (torch.ones(1, 4),))
    assert layer.macs == 2 * 16


def test_an_unknown_layer_to_leave_alone():
    layers = torch_layers(small(), (image(),))
    check_ignored(layers, ["first"])
    with pytest.raises(
        CompileError, match=r"there is no layer 'frist' to leave alone; .* are first, depthwise, second,"
    ):
        check_ignored(layers, ["frist"])


def test_the_module_has_no_hooks_afterwards():
    net = small()
    with pytest.raises(CompileError, match=r"fails on example inputs of shape \[1, 3, 5, 9\]"):
        torch_layers(net, (torch.ones(1, 3, 5, 9),))
    assert not any(part._forward_hooks for part in net.modules())
