"""The skeleton of NAS-Bench-201 (Dong and Yang, ICLR 2020) as torch modules; `spaces/nas_bench_201.py` draws it.

This file needs torch and `network.py` alone: the plain-Python export carries their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.nets.network import CellNetwork, Skeleton, relu


class ResidualReduction(nn.Module):
    """Halves the resolution: two 3x3 convolutions behind ReLU, added to a 1x1 convolution of the 2x2 average.

    At an odd side the last average is over the pixels that are there (the benchmark has even sides alone).
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out, affine=affine)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out, affine=affine)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.activation1: Callable[[Tensor], Tensor] = F.relu
        self.activation2: Callable[[Tensor], Tensor] = F.relu

    def set_activation(self, make: Callable[[int], nn.Module]) -> None:
        """Take activations that are made of the channels in the place of the ReLUs."""
        self.activation1, self.activation2 = make(self.conv1.in_channels), make(self.conv2.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, c_out, ceil(H/2), ceil(W/2)]` of `[B, c_in, H, W]`."""
        hidden = self.norm1(self.conv1(self.activation1(x)))
        shortcut: Tensor = self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))
        residual: Tensor = self.norm2(self.conv2(self.activation2(hidden)))
        return shortcut + residual


class NASBench201Skeleton(Skeleton):
    """Cells see their one input as it is, or through a residual reduction; batch norm and ReLU before the pooling."""

    def adapters(self, place: Any, inputs: int, affine: bool) -> list[nn.Module]:
        """Return a module for the input of a cell."""
        return [ResidualReduction(place.c_p, place.c, affine) if place.reduction_prev else nn.Identity()]

    def begins_stage(self, place: Any) -> bool:
        """Return whether a reduction block precedes the cell."""
        return bool(place.reduction_prev)

    def before_pooling(self, channels: int, activation: Callable[[int], nn.Module] = relu) -> nn.Module:
        """Return batch norm and activation."""
        return nn.Sequential(nn.BatchNorm2d(channels), activation(channels))


class NASBench201Network(CellNetwork):
    """Stem, cells with residual reductions between the stages, batch norm and ReLU, pooling, classifier."""

    def __init__(
        self,
        plans: Iterable[Sequence[Any]],
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        affine: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__(plans, classes, mean, std, affine, NASBench201Skeleton(), activation)
