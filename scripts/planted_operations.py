"""Operations that carry no information about the image, for searches in which one other operation is plainly best.

    noise(x) = sqrt(3) (frac(m x) - 1/2),   without a gradient: half as large as a normalised map, and nothing to learn

Each has a factor m of its own. `simulate_search_verdict.py --real` searches a space of these and of `sep_conv_3x3`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from robust_nas.operations import Cost, Operation


class Scrambled(nn.Module):
    """The digits of the input behind a factor, which look like uniform noise of variance 1/4."""

    def __init__(self, factor: float, stride: int) -> None:
        super().__init__()
        self.factor, self.stride = factor, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, C, H', W']` of `[B, C, H, W]`."""
        x = x.detach()[:, :, :: self.stride, :: self.stride]
        return 3**0.5 * (torch.frac((self.factor * x).abs()) - 0.5)


class Noise(Operation):
    """A scrambled copy of the input."""

    factor: ClassVar[float] = 1e4

    @classmethod
    def cost(cls, channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        """Return no parameters and no MACs."""
        return Cost(0, 0)

    @classmethod
    def build(cls, channels: int, stride: int, affine: bool) -> nn.Module:
        """Return the module; the factor is the class's."""
        return Scrambled(cls.factor, stride)


class OtherNoise(Noise):
    """The same by another factor."""

    factor: ClassVar[float] = 1.3e4


class ThirdNoise(Noise):
    """The same by a third factor."""

    factor: ClassVar[float] = 1.7e4
