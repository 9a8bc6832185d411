"""ReLU, convolution, batch norm: DARTS's adapter (1x1) and NAS-Bench-201's convolutions.

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution without bias, batch norm; the output has ceil(side / stride) pixels a side.

    A strided 1x1 convolution on fewer than 16 channels in channels-last order writes beyond its memory in the backward
    pass on a CPU (oneDNN issue 6035): the stride of a 1x1 convolution is taken before it.
    """

    def __init__(
        self, c_in: int, c_out: int, affine: bool = True, *, kernel: int = 1, stride: int = 1
    ) -> None:
        before = stride if kernel == 1 else 1
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, kernel, stride // before, (kernel - 1) // 2, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )
        self.stride_before = before

    def set_activation(self, make: Callable[[int], nn.Module]) -> None:
        """Take the activation that is made of the channels in the place of the ReLU."""
        convolution: Any = self[1]
        self[0] = make(convolution.in_channels)

    def forward(self, input: Tensor) -> Tensor:
        """Map `[B, c_in, H, W]` to `[B, c_out, ceil(H/stride), ceil(W/stride)]`."""
        before = self.stride_before
        x = input if before == 1 else input[:, :, ::before, ::before]
        for layer in self:
            x = layer(x)
        return x


def nor_conv(channels: int, stride: int, affine: bool, *, kernel: int) -> nn.Module:
    """Return the operation of NAS-Bench-201: ReLU, convolution, batch norm."""
    return ReLUConvBN(channels, channels, affine, kernel=kernel, stride=stride)
