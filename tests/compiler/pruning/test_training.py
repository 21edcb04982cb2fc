# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: it learns, it repeats itself, and says what is wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.training import accuracy, fine_tune
from loomwork.compiler.pruning.training_data import Batches


def examples(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Points whose class is the larger of two coordinates."""
    x = np.random.default_rng(4).normal(size=(n, 2)).astype(np.float32)
    return x, x.argmax(axis=1)


def trained(seed: int, epochs: int = 4) -> tuple[nn.Linear, list[float]]:
    torch.manual_seed(0)
    net = nn.Linear(2, 2)
    told: list[float] = []
    done = fine_tune(
        net, Batches(*examples(), size=7), epochs, seed=seed, progress=lambda epoch: told.append(epoch.loss)
    )
    assert [epoch.loss for epoch in done] == told
    return net, told


def test_it_learns():
    net, losses = trained(1, epochs=10)
    assert len(losses) == 10
    assert losses[-1] < losses[0] / 2
    assert accuracy(net, Batches(*examples(), shuffled=False)) > 0.9


def test_the_seed_decides():
    first, again, other = (trained(seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pytorch_s_generator_and_the_modes_are_as_before():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    before = torch.random.get_rng_state()
    fine_tune(net, Batches(*examples()), 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(part.training for part in net.modules())
    assert net[1].num_batches_tracked == 1  # it was in training mode meanwhile


def test_accuracy_is_a_share_of_all_examples():
    net = nn.Identity()
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    assert accuracy(net, [(scores[:2], torch.tensor([0, 0])), (scores[2:], torch.tensor([0]))]) == 2 / 3


def test_no_batch():
    with pytest.raises(CompileError, match=r"^there is no batch to train with"):
        fine_tune(nn.Linear(2, 2), [], 1)
    with pytest.raises(CompileError, match=r"^there is no batch to measure"):
        accuracy(nn.Linear(2, 2), [])


def test_bad_epochs():
    with pytest.raises(CompileError, match=r"^epochs must be 0 or more, not -1$"):
        fine_tune(nn.Linear(2, 2), Batches(*examples()), -1)


def test_a_loss_that_is_not_finite():
    net = nn.Linear(2, 2)
    batches = [(torch.full((4, 2), float("nan")), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(CompileError, match=r"^training failed: the loss is nan in epoch 1; lower the learning rate"):
        fine_tune(net, batches, 1)
