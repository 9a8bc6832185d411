"""The factorised reduction: DARTS's skip connection and adapter where the resolution halves.

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FactorizedReduce(nn.Module):
    """Halves the resolution: two strided 1x1 convolutions, the second one shifted by one pixel, concatenated.

    An odd side is padded by one, so that both halves have ceil(side / 2) pixels.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__()
        # A strided 1x1 convolution on fewer than 16 channels in channels-last order writes beyond its memory in the
        # backward pass on a CPU (oneDNN issue 6035): there the stride is taken before it.
        self.subsampled = c_in < 16
        stride = 1 if self.subsampled else 2
        self.conv1 = nn.Conv2d(c_in, c_out // 2, 1, stride=stride, bias=False)
        self.conv2 = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=stride, bias=False)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)
        self.activation: Callable[[Tensor], Tensor] = F.relu

    def set_activation(self, make: Callable[[int], nn.Module]) -> None:
        """Take the activation that is made of the channels in the place of the ReLU."""
        self.activation = make(self.conv1.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, c_in, H, W]` to `[B, c_out, ceil(H/2), ceil(W/2)]`."""
        halved: Tensor = self.bn(self.halves(self.activation(x)))
        return halved

    def halves(self, x: Tensor) -> Tensor:
        """Return both convolutions of a state behind its activation `[B, c_in, H, W]`, concatenated."""
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        if self.subsampled:
            x, shifted = x[:, :, ::2, ::2], shifted[:, :, ::2, ::2]
        return torch.cat([self.conv1(x), self.conv2(shifted)], dim=1)


def skip_connection(channels: int, stride: int, affine: bool) -> nn.Module:
    """Return the identity, or a factorised reduction where the resolution halves."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
