"""Tucker-2: three convolutions in the place of one.

    W ~ A . core . B,   1x1 convolution C -> r_in, kernel on r_in -> r_out, 1x1 convolution r_out -> M

Weights W [M, C, K1, K2]; C r_in + r_in r_out K1 K2 + r_out M parameters. The core may be in factors itself.
This file needs torch and `factorised_layer.py` alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.layers.factorised_layer import (
    FactorisedLayer,
    dense_convolution,
    refuse_ranks,
    settings,
    window,
)


class Tucker2Conv2d(FactorisedLayer):
    """Three convolutions in the place of one: 1x1 to `rank_in` channels, the kernel to `rank_out`, 1x1 to the outputs.

    Stride, padding and dilation are the middle one's, the bias is the last one's.
    """

    def __init__(self, like: nn.Conv2d, rank_in: int, rank_out: int) -> None:
        """Make fresh weights in the place of `like`.

        Raise `ValueError` for a grouped one, or ranks beyond its channels.
        """
        super().__init__()
        refuse_ranks(
            like, {"rank_in": (rank_in, like.in_channels), "rank_out": (rank_out, like.out_channels)}
        )
        own = settings(like)
        self.first = nn.Conv2d(like.in_channels, rank_in, 1, bias=False, **own)
        self.core = nn.Conv2d(rank_in, rank_out, bias=False, **window(like), **own)
        self.last = nn.Conv2d(rank_out, like.out_channels, 1, bias=like.bias is not None, **own)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, M, H', W']`."""
        mixed: Tensor = self.last(self.core(self.first(x)))
        return mixed

    def to_dense(self) -> nn.Conv2d:
        """Return the dense convolution that computes the same."""
        core: Any = self.core.to_dense() if isinstance(self.core, FactorisedLayer) else self.core
        last = self.last.weight[:, :, 0, 0]
        weight = torch.einsum("mo,oihw,ic->mchw", last, core.weight, self.first.weight[:, :, 0, 0])
        bias = self.last.bias
        if core.bias is not None:  # a core in GDWS form that was fitted
            bias = last @ core.bias if bias is None else last @ core.bias + bias
        return dense_convolution(weight, bias, core)
