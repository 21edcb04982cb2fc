# SPDX-License-Identifier: Apache-2.0
"""The networks of the experiment."""

import torch
from torch import nn


class DigitsNet(nn.Module):
    """For MNIST, `[n, 1, 28, 28]`: two convolutions with pooling, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 7 * 7, 128)
        self.scores = nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits, `[n, 10]`."""
        x = nn.functional.max_pool2d(torch.relu(self.conv1(image)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.scores(torch.relu(self.hidden(x.flatten(1))))


class Stack(nn.Module):
    """A residual stack of ResNet-8: two 3x3 convolutions, and a 1x1 convolution beside them where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From `[n, inputs, h, w]` to `[n, outputs, h / stride, w / stride]`."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ResNet8(nn.Module):
    """MLPerf Tiny's image classification network for CIFAR-10, `[n, 3, 32, 32]`; https://arxiv.org/abs/2106.07597.

    width: channels of the first stack, 16 in the benchmark; the second and third have two and four times as many.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stacks = nn.Sequential(Stack(width, width, 1), Stack(width, 2 * width, 2), Stack(2 * width, 4 * width, 2))
        self.pool = nn.AvgPool2d(8)
        self.scores = nn.Linear(4 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of the ten classes, `[n, 10]`."""
        x = torch.relu(self.norm(self.conv(image)))
        return self.scores(self.pool(self.stacks(x)).flatten(1))
