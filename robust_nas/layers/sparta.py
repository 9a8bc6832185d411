"""Sparta-style activation: a map times its spatial attention, `X * sigmoid(phi(X))`.

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sparta(nn.Module):
    """x sigmoid(phi(x)); phi is a depthwise 3x3 convolution with bias, with `mixed` a 1x1 convolution behind it.

    The kernels start as the identity and draw nothing: at first it is SiLU.
    """

    shared = True  # one module per stage and number of channels

    def __init__(self, channels: int, mixed: bool = False) -> None:
        super().__init__()
        kernel = torch.zeros(channels, 1, 3, 3)
        kernel[:, :, 1, 1] = 1
        self.weight = nn.Parameter(kernel)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mix_weight = nn.Parameter(torch.eye(channels)[:, :, None, None]) if mixed else None

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, C, H, W]` of the same shape."""
        phi = F.conv2d(x, self.weight, self.bias, padding=1, groups=self.weight.shape[0])
        if self.mix_weight is not None:
            phi = F.conv2d(phi, self.mix_weight)
        return x * torch.sigmoid(phi)
