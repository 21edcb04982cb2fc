# SPDX-License-Identifier: Apache-2.0
"""Channel pruning: smaller modules, in multiples of the array's columns, with the strongest channels left."""

import pytest
import torch
from torch import nn

from loomwork.compiler import torch_extra
from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.channels import prune_channels
from tests.compiler.pruning.modules import Residual, Small, image, small


def widths(net: nn.Module) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer, as its weights have them."""
    return {
        name: (part.weight.shape[1], part.weight.shape[0])
        for name, part in net.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    }


@pytest.mark.parametrize(
    ("sparsity", "first", "second", "hidden"),
    [(0, 8, 16, 8), (0.3, 4, 12, 4), (0.2, 8, 12, 8), (0.5, 4, 8, 4), (0.9, 4, 4, 4)],
)
def test_what_is_left_is_a_multiple_of_the_columns(sparsity: float, first: int, second: int, hidden: int):
    net = small()
    pruned = prune_channels(net, image(), sparsity, round_to=4)
    assert widths(pruned) == {
        "first": (3, first),
        "depthwise": (1, first),
        "second": (first, second),
        "hidden": (second * 4, hidden),
        "scores": (hidden, 4),
    }
    with torch.no_grad():
        assert pruned(image(2)).shape == (2, 4)
    assert widths(net) == widths(Small())


def test_layers_that_are_added_lose_the_same_channels():
    pruned = prune_channels(Residual(), torch.ones(1, 2, 3, 3), 0.4, round_to=4)
    assert widths(pruned) == {"first": (2, 8), "inner": (8, 8), "scores": (8, 3)}


def test_without_the_channels_that_nothing_depends_on_the_result_is_the_same():
    net = small().eval()
    dead = [1, 2, 4, 7]
    with torch.no_grad():
        for layer in (net.first, net.depthwise, net.norm):
            for parameter in layer.parameters():
                parameter[dead] = 0
        net.second.weight[:, dead] = 0
        expected = net(image(3))
        pruned = prune_channels(net, image(), 0.5, round_to=4, ignored=["second", "hidden"])
        assert widths(pruned)["first"] == (3, 4)
        torch.testing.assert_close(pruned(image(3)), expected)


def test_modes_and_gradients_are_left_as_they_were():
    net = small()
    net.norm.eval()
    net.first.weight.requires_grad_(False)
    pruned = prune_channels(net, image(), 0.5, round_to=4)
    assert [pruned.training, pruned.norm.training] == [True, False]
    assert [name for name, value in pruned.named_parameters() if not value.requires_grad] == ["first.weight"]


def test_convolutions_in_groups_keep_their_channels():
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1))
    pruned = prune_channels(net, torch.ones(1, 2, 3, 3), 0.5, round_to=4)
    assert widths(pruned) == {"0": (2, 8), "1": (4, 8), "2": (8, 4), "3": (4, 3)}


def test_a_module_whose_layers_are_one_block_wide():
    with pytest.raises(
        CompileError, match=r"^module Small has no layer to prune: .* more than 16 channels.*prune blocks"
    ):
        prune_channels(small(), image(), 0.5, round_to=16)
    with pytest.raises(CompileError, match=r"^module ReLU has no layer to prune"):
        prune_channels(nn.ReLU(), image(), 0.5, round_to=4)


def test_bad_arguments():
    with pytest.raises(CompileError, match=r"^sparsity is the share .* not -1"):
        prune_channels(small(), image(), -1, round_to=4)
    with pytest.raises(CompileError, match=r"^round_to must be 1 or more, the columns of the array, not 0$"):
        prune_channels(small(), image(), 0.5, round_to=0)
    with pytest.raises(CompileError, match=r"^module Small fails on example inputs of shape \[1, 5, 4, 4\]"):
        prune_channels(small(), torch.ones(1, 5, 4, 4), 0.5, round_to=4)
    with pytest.raises(CompileError, match=r"there is no layer 'last' to leave alone"):
        prune_channels(small(), image(), 0.5, round_to=4, ignored=["last"])


def test_without_torch_pruning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch_extra, "find_spec", lambda name: None if name == "torch_pruning" else object())
    with pytest.raises(CompileError, match=r"need torch_pruning, not installed here: pip install 'loomwork\[torch\]'$"):
        prune_channels(small(), image(), 0.5, round_to=4)
