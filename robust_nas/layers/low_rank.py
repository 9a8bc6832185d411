"""Low rank: two 1x1 convolutions, or two linear layers, in the place of one.

    W ~ A B,   W [M, C], rank r;   r (C + M) parameters

This file needs torch and `factorised_layer.py` alone: the plain-Python export carries its text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_nas.layers.factorised_layer import (
    FactorisedLayer,
    dense_convolution,
    refuse_ranks,
    settings,
    window,
)


class LowRankConv2d(FactorisedLayer):
    """Two 1x1 convolutions in the place of one; the first carries the stride, the second the bias."""

    def __init__(self, like: nn.Conv2d, rank: int) -> None:
        """Make fresh weights in the place of `like`. Raise `ValueError` for a kernel, groups, or a rank beyond it."""
        super().__init__()
        if like.kernel_size != (1, 1):
            raise ValueError(f"a kernel of {like.kernel_size} is not low-rank in two; tucker-2 is its form")
        refuse_ranks(like, {"rank": (rank, min(like.in_channels, like.out_channels))})
        own = settings(like)
        self.first = nn.Conv2d(like.in_channels, rank, bias=False, **window(like), **own)
        self.second = nn.Conv2d(rank, like.out_channels, 1, bias=like.bias is not None, **own)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, M, H', W']`."""
        mixed: Tensor = self.second(self.first(x))
        return mixed

    def to_dense(self) -> nn.Conv2d:
        """Return the dense convolution that computes the same."""
        weight = self.second.weight.flatten(1) @ self.first.weight.flatten(1)
        return dense_convolution(weight[:, :, None, None], self.second.bias, self.first)


class LowRankLinear(FactorisedLayer):
    """Two linear layers in the place of one; the second carries the bias."""

    def __init__(self, like: nn.Linear, rank: int) -> None:
        """Make fresh weights in the place of `like`. Raise `ValueError` for a rank beyond it."""
        super().__init__()
        refuse_ranks(like, {"rank": (rank, min(like.in_features, like.out_features))})
        own = settings(like)
        self.first = nn.Linear(like.in_features, rank, bias=False, **own)
        self.second = nn.Linear(rank, like.out_features, bias=like.bias is not None, **own)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in_features]` to `[..., out_features]`."""
        mixed: Tensor = self.second(self.first(x))
        return mixed

    def to_dense(self) -> nn.Linear:
        """Return the linear layer that computes the same."""
        dense = nn.Linear(
            self.first.in_features,
            self.second.out_features,
            bias=self.second.bias is not None,
            **settings(self.first),
        )
        with torch.no_grad():
            dense.weight.copy_(self.second.weight @ self.first.weight)
            if self.second.bias is not None:
                dense.bias.copy_(self.second.bias)
        return dense
