"""The 3x3 poolings of cells, and the operation that gives zeros.

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from torch import Tensor, nn


def max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    """Return a 3x3 max pooling."""
    return nn.MaxPool2d(3, stride, padding=1)


def avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    """Return a 3x3 average pooling that does not count the border."""
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


class Zero(nn.Module):
    """Zeros, as if the edge were absent (NAS-Bench-201's `none`)."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to zeros `[B, C, ceil(H/stride), ceil(W/stride)]`."""
        return x[:, :, :: self.stride, :: self.stride] * 0.0
