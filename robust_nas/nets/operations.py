"""The operations of cell networks as torch modules, NCHW in, NCHW out.

Definitions of DARTS (Liu et al., 2019): ReLU before convolution, batch norm after; separable convolutions apply their
depthwise-pointwise block twice. This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReLUConvBN(nn.Sequential):
    """ReLU, 1x1 convolution, batch norm."""

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out, affine=affine)
        )


class FactorizedReduce(nn.Module):
    """Halves the resolution: two strided 1x1 convolutions, the second one pixel aside, concatenated.

    An odd side is padded by one, so that both halves have ceil(side / 2) pixels.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__()
        # A strided 1x1 convolution on fewer than 16 channels in channels-last order writes beyond its memory in the
        # backward pass on a CPU (oneDNN issue 6035): there the stride is taken before it.
        self.thinned = c_in < 16
        stride = 1 if self.thinned else 2
        self.conv1 = nn.Conv2d(c_in, c_out // 2, 1, stride=stride, bias=False)
        self.conv2 = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=stride, bias=False)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, c_in, H, W]` to `[B, c_out, ceil(H/2), ceil(W/2)]`."""
        halved: Tensor = self.bn(self.halves(F.relu(x)))
        return halved

    def halves(self, x: Tensor) -> Tensor:
        """Both convolutions of a state's ReLU `[B, c_in, H, W]`, concatenated."""
        aside = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        if self.thinned:
            x, aside = x[:, :, ::2, ::2], aside[:, :, ::2, ::2]
        return torch.cat([self.conv1(x), self.conv2(aside)], dim=1)


class SeparableConv(nn.Sequential):
    """`repeats` blocks of ReLU, depthwise convolution, 1x1 convolution, batch norm; the first one strided."""

    def __init__(
        self, channels: int, kernel: int, stride: int, dilation: int, repeats: int, affine: bool
    ) -> None:
        layers: list[nn.Module] = []
        for repeat in range(repeats):
            layers += [
                nn.ReLU(),
                nn.Conv2d(
                    channels,
                    channels,
                    kernel,
                    stride=stride if repeat == 0 else 1,
                    padding=dilation * (kernel - 1) // 2,
                    dilation=dilation,
                    groups=channels,
                    bias=False,
                ),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels, affine=affine),
            ]
        super().__init__(*layers)


def skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    """The identity, or a factorised reduction where the resolution halves."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


# name -> build(channels, stride, affine)
OPERATIONS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "max_pool_3x3": lambda c, stride, affine: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda c, stride, affine: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "skip_connect": skip_connect,
    "sep_conv_3x3": lambda c, stride, affine: SeparableConv(c, 3, stride, 1, 2, affine),
    "sep_conv_5x5": lambda c, stride, affine: SeparableConv(c, 5, stride, 1, 2, affine),
    "dil_conv_3x3": lambda c, stride, affine: SeparableConv(c, 3, stride, 2, 1, affine),
    "dil_conv_5x5": lambda c, stride, affine: SeparableConv(c, 5, stride, 2, 1, affine),
}
