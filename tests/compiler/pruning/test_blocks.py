# SPDX-License-Identifier: Apache-2.0
"""Block pruning of modules: whole tiles are zero, stay zero in training, and the rest is as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from loomwork.arch.config import TINY
from loomwork.compiler import torch_extra
from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.blocks import prune_blocks
from loomwork.compiler.pruning.training import fine_tune
from tests.compiler.pruning.modules import image, small


def zero_blocks(kernel: np.ndarray) -> np.ndarray:
    """Of a kernel `[outputs, taps, channels]`, both multiples of 4, which blocks of 4 x 1 x 4 are zero."""
    outputs, taps, channels = kernel.shape
    blocks = kernel.reshape(outputs // 4, 4, taps, channels // 4, 4)
    return (blocks == 0).all(axis=(1, 4))


def kernels(net: nn.Module) -> dict[str, np.ndarray]:
    """The weights of `Small` whose reduction is whole tiles, as `[outputs, taps, channels]`."""
    state = {name: value.detach().numpy().copy() for name, value in net.state_dict().items()}
    return {
        "second": state["second.weight"].reshape(16, 8, 1).transpose(0, 2, 1),
        "hidden": state["hidden.weight"].reshape(8, 16, 4).transpose(0, 2, 1),
        "scores": state["scores.weight"].reshape(4, 1, 8),
    }


def test_whole_tiles_are_zero_and_other_weights_as_before():
    net = small()
    before = kernels(net)
    masks = prune_blocks(net, image(), 0.5, TINY, scope="layer")
    assert [(count.name, count.tiles, count.zero) for count in masks.counts] == [
        ("first", 14, 7),
        ("second", 8, 4),
        ("hidden", 32, 16),
        ("scores", 2, 1),
    ]
    for name, kernel in kernels(net).items():
        zero = zero_blocks(kernel)
        assert zero.sum() == zero.size / 2
        assert (kernel == 0).sum() == zero.sum() * 16  # nothing beside the tiles
        np.testing.assert_array_equal(kernel[kernel != 0], before[name][kernel != 0])


def test_depthwise_and_ignored_layers_are_left_alone():
    net = small()
    masks = prune_blocks(net, image(), 0.9, TINY, ignored=["first", "scores"])
    assert [count.name for count in masks.counts] == ["second", "hidden"]
    for name in ("first", "depthwise", "scores"):
        assert np.all(net.state_dict()[f"{name}.weight"].numpy() != 0)


def test_training_with_masks_keeps_the_zeros_and_changes_the_others():
    net = small()
    masks = prune_blocks(net, image(), 0.5, TINY)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    batch = image(8), torch.arange(8) % 4
    fine_tune(net, [batch] * 3, 2, masks=masks, learning_rate=0.1)
    assert masks.masks
    for weight, mask in masks.masks:
        assert bool(torch.all(weight[mask == 0] == 0))
    moved = [name for name, value in net.named_parameters() if not torch.equal(value, before[name])]
    assert {"second.weight", "hidden.weight", "hidden.bias"} <= set(moved)


def test_masks_are_applied_only_as_long_as_they_are_kept():
    net = nn.Linear(8, 4)
    masks = prune_blocks(net, torch.ones(1, 8), 0.5, TINY)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)

    def step() -> int:
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        return int((net.weight == 0).sum())

    with masks.kept(optimizer):
        assert step() == 16
    assert step() == 0
    masks.apply()
    assert int((net.weight == 0).sum()) == 16


def test_dilation_decides_which_taps_share_a_tile():
    # Two channels and four rows: two neighbouring taps share a tile, unless they are apart.
    for dilation, tiles in ((1, 2 + 0), (2, 3)):
        net = nn.Conv2d(2, 4, (1, 3), dilation=(1, dilation))
        masks = prune_blocks(net, torch.ones(1, 2, 8, 8), 0, TINY)
        assert masks.counts[0].tiles == tiles


@pytest.mark.parametrize("net", [nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), nn.Sequential(nn.ReLU())])
def test_a_module_without_a_layer_to_prune(net: nn.Module):
    with pytest.raises(
        CompileError, match=r"^module Sequential has no layer to prune: it needs a Conv2d without groups"
    ):
        prune_blocks(net, torch.ones(1, 4, 4, 4), 0.5, TINY)


def test_bad_arguments():
    with pytest.raises(CompileError, match=r"^sparsity is the share .* not 1.2"):
        prune_blocks(small(), image(), 1.2, TINY)
    with pytest.raises(CompileError, match=r"^module Small fails on example inputs of shape \[1, 5, 4, 4\]"):
        prune_blocks(small(), torch.ones(1, 5, 4, 4), 0.5, TINY)


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch_extra, "find_spec", lambda name: None)
    with pytest.raises(CompileError, match=r"need torch, not installed here: pip install 'loomwork\[torch\]'$"):
        prune_blocks(small(), image(), 0.5, TINY)
