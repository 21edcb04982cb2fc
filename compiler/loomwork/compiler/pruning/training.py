# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: the plain training loop that gives a pruned module its accuracy back."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.torch_module import evaluating
from loomwork.compiler.pruning.blocks import BlockMasks
from loomwork.compiler.torch_extra import require_torch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the data. number: from 1. loss: mean cross-entropy. accuracy: share of right answers."""

    number: int
    loss: float
    accuracy: float


def fine_tune(
    module: "torch.nn.Module",
    batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]",
    epochs: int,
    *,
    masks: BlockMasks | None = None,
    learning_rate: float = 0.02,
    weight_decay: float = 5e-4,
    seed: int = 0,
    progress: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train a module in place by stochastic gradient descent with Nesterov momentum 0.9 and cross-entropy.

    batches: pairs of inputs and class numbers, e.g. a `torch.utils.data.DataLoader`; gone through once an epoch. The
    learning rate falls along a cosine from epoch to epoch. masks: what block pruning set to zero stays zero. seed: for
    PyTorch's generator, which is as it was afterwards; with data that take their order from it, equal calls give equal
    weights. Each part of the module is left in the mode it was in. Returns what `progress` was told.

    Raises CompileError when PyTorch is missing, there is no batch, epochs is negative, or the loss is no longer finite.
    """
    require_torch()
    import torch

    if epochs < 0:
        raise CompileError(f"epochs must be 0 or more, not {epochs}")
    optimizer = torch.optim.SGD(
        module.parameters(), lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs))
    done: list[Epoch] = []
    with (
        torch.random.fork_rng(devices=[]),
        _training(module),
        nullcontext() if masks is None else masks.kept(optimizer),
    ):
        torch.manual_seed(seed)
        for number in range(1, epochs + 1):
            epoch = _epoch(module, batches, optimizer, number)
            schedule.step()
            done.append(epoch)
            if progress is not None:
                progress(epoch)
    return done


def _epoch(
    module: "torch.nn.Module",
    batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]",
    optimizer: "torch.optim.Optimizer",
    number: int,
) -> Epoch:
    import torch

    total = loss_sum = 0.0
    correct = 0
    for inputs, labels in batches:
        optimizer.zero_grad()
        scores = module(inputs)
        loss = torch.nn.functional.cross_entropy(scores, labels)
        value = loss.item()
        if not isfinite(value):
            raise CompileError(
                f"training failed: the loss is {value} in epoch {number}; "
                "lower the learning rate, or look for values in the data that are not finite"
            )
        loss.backward()
        optimizer.step()
        total += len(labels)
        loss_sum += value * len(labels)
        correct += int((scores.argmax(1) == labels).sum())
    if not total:
        raise CompileError("there is no batch to train with; give data that can be gone through once an epoch")
    return Epoch(number=number, loss=loss_sum / total, accuracy=correct / total)


def accuracy(module: "torch.nn.Module", batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]") -> float:
    """Share of inputs whose highest score is that of their class, in evaluation mode."""
    import torch

    total = correct = 0
    with evaluating(module), torch.no_grad():
        for inputs, labels in batches:
            correct += int((module(inputs).argmax(1) == labels).sum())
            total += len(labels)
    if not total:
        raise CompileError("there is no batch to measure accuracy with")
    return correct / total


@contextmanager
def _training(module: "torch.nn.Module") -> Generator[None]:
    """Training mode for a while."""
    with evaluating(module):
        module.train()
        yield
