"""A pre-activation residual network: stem, stages of basic blocks, batch norm, pooling, linear classifier.

    block(x) = shortcut + conv3x3(relu(bn(conv3x3(a)))),  a = relu(bn(x))
    shortcut = conv1x1(a) where channels change or the stride is not 1, else x

The block of wide residual networks (Zagoruyko and Komodakis, 2016), without dropout; convolutions have no bias. The
usual code has a shortcut convolution where channels change alone, and fails in a strided stage that keeps them.
Initialisation as in the usual code: convolutions by He's normal over the fan-out, the classifier's bias zero.

Images are float `[B, C, H, W]` in 0..1. This file needs torch and `normalise.py` alone: the plain-Python
export carries its text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.nets.normalise import Normalise


class StagePlan(NamedTuple):
    """One stage as plain numbers: blocks, their channels, the stride of the first one."""

    depth: int
    width: int
    stride: int


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each behind batch norm and ReLU, added to the shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.stride = stride
        same = c_in == c_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, c_in, H, W]` to `[B, c_out, ceil(H/stride), ceil(W/stride)]`."""
        active = F.relu(self.norm1(x))
        # The stride is taken before the 1x1 convolution: a strided one on fewer than 16 channels in channels-last order
        # writes beyond its memory on a CPU (oneDNN issue 6035).
        shortcut = x if self.shortcut is None else self.shortcut(active[:, :, :: self.stride, :: self.stride])
        residual: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return shortcut + residual


class ResidualNetwork(nn.Module):
    """Stem, stages, pooling, classifier; `forward` gives logits `[B, classes]`."""

    def __init__(
        self,
        plans: list[StagePlan],
        stem: int,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.stem = nn.Conv2d(len(mean), stem, 3, padding=1, bias=False)
        self.stages = nn.Sequential()
        channels = stem
        for depth, width, stride in plans:
            first = BasicBlock(channels, width, stride)
            self.stages.append(nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(depth - 1))))
            channels = width
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in 0..1 to logits `[B, classes]`."""
        features = F.relu(self.norm(self.stages(self.stem(self.normalise(x)))))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits
