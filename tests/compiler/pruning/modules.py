# SPDX-License-Identifier: Apache-2.0
"""Small modules that the tests of pruning share."""

import torch
from torch import nn


class Small(nn.Module):
    """Convolutions 3 -> 8 -> 16 with a depthwise one between them, a dense layer that sees a flattened map, another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 1)
        self.hidden = nn.Linear(16 * 2 * 2, 8)
        self.scores = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.depthwise(self.first(x))))
        x = nn.functional.max_pool2d(torch.relu(self.second(x)), 2)
        x = nn.functional.dropout(torch.relu(x.flatten(1)), training=self.training)
        return self.scores(torch.relu(self.hidden(x)))


class Residual(nn.Module):
    """A sum of two convolutions, so that their channels have to go together."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, channels, 1)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.scores = nn.Linear(channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.scores((x + self.inner(torch.relu(x))).mean((2, 3)))


def small() -> Small:
    torch.manual_seed(5)
    return Small()


def image(n: int = 1) -> torch.Tensor:
    """What `Small` takes."""
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(n))
