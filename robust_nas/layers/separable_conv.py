"""Separable convolutions: depthwise, then 1x1 (DARTS's `sep_conv` and `dil_conv`).

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class SeparableConv(nn.Sequential):
    """`repeats` blocks of ReLU, depthwise convolution, 1x1 convolution, batch norm; the first one strided."""

    def __init__(
        self, channels: int, stride: int, affine: bool, *, kernel: int, dilation: int, repeats: int
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

    def set_activation(self, make: Callable[[int], nn.Module]) -> None:
        """Take activations that are made of the channels in the place of the ReLUs."""
        for index in range(0, len(self), 4):
            convolution: Any = self[index + 1]
            self[index] = make(convolution.in_channels)
