"""Generalised depthwise-separable convolutions (Dbouk and Shanbhag, NeurIPS 2021).

    W_c ~ P_c D_c, channel c filtered by g_c kernels of its own, then a 1x1 convolution;   G = sum_c g_c

Weights W [M, C, K1, K2]; G (K1 K2 + M) parameters, and as many multiply-adds of an output pixel.
This file needs torch and `factorised_layer.py` alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from robust_nas.layers.factorised_layer import (
    FactorisedLayer,
    dense_convolution,
    settings,
    window,
)


def gather_channels(x: Tensor, index: Tensor) -> Tensor:
    """Return the channels `[B, len(index), H, W]` that `index` names, in the memory order of `x`."""
    # index_select and indexing give channels-first memory whatever they take, and the layers behind pay for it.
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels).index_select(1, index)
        return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)
    return x.index_select(1, index)


torch.fx.wrap("gather_channels")  # the choice is made when it runs, not when it is traced


class GDWSConv2d(FactorisedLayer):
    """A generalised depthwise-separable convolution: channel c filtered by `g[c]` kernels, then mixed by a 1x1 one.

    Stride, padding and dilation are the depthwise stage's, the bias is the pointwise one's. Where every channel has the
    same number of kernels, they stand in blocks of one kernel a channel, and nothing is gathered.
    """

    index: Tensor

    def __init__(self, like: nn.Conv2d, g: Sequence[int]) -> None:
        """Make fresh weights in the place of `like`. Raise `ValueError` for a grouped one, or a g that does not fit."""
        super().__init__()
        self.g = tuple(g)
        if like.groups != 1:
            raise ValueError(
                f"a convolution of {like.groups} groups cannot be depthwise-separable in this form"
            )
        most = min(like.out_channels, like.kernel_size[0] * like.kernel_size[1])
        if len(self.g) != like.in_channels or not 0 <= min(self.g) <= max(self.g) <= most or not any(self.g):
            raise ValueError(
                f"g has {len(self.g)} numbers from {min(self.g, default=0)} to {max(self.g, default=0)}; "
                f"{like.in_channels} numbers from 0 to {most}, not all 0, are needed"
            )
        own, kernel = settings(like), window(like)
        even = len(set(self.g)) == 1
        sizes = [like.in_channels] * self.g[0] if even else [sum(self.g)]
        self.depthwise = nn.ModuleList(
            nn.Conv2d(size, size, groups=size, bias=False, **kernel, **own) for size in sizes
        )
        self.pointwise = nn.Conv2d(sum(self.g), like.out_channels, 1, bias=like.bias is not None, **own)
        index = torch.tensor(
            [channel for channel, kernels in enumerate(self.g) for _ in range(kernels)],
            device=like.weight.device,
        )
        self.register_buffer("index", index, persistent=False)
        self.even = even

    def fill(self, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None) -> None:
        """Take the factors D `[G, K1, K2]` and P `[M, G]`, both sorted by input channel, and the bias `[M]`."""
        # Sorted by channel it is c0 c0 c1 c1 ...; in blocks c0 c1 ... c0 c1 ...
        if self.even:
            order = torch.arange(len(self.index)).view(len(self.g), -1).T.flatten().to(depthwise.device)
            depthwise, pointwise = depthwise[order], pointwise[:, order]
        with torch.no_grad():
            start = 0
            for block in self.depthwise:
                weight: Any = block.weight
                weight.copy_(depthwise[start : start + len(weight), None])
                start += len(weight)
            self.pointwise.weight.copy_(pointwise[:, :, None, None])
            if bias is not None and self.pointwise.bias is not None:
                self.pointwise.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, M, H', W']`."""
        if self.even:
            maps: list[Tensor] = [block(x) for block in self.depthwise]
            mixed: Tensor = self.pointwise(maps[0] if len(maps) == 1 else torch.cat(maps, 1))
            return mixed
        return self.pointwise(self.depthwise[0](gather_channels(x, self.index)))  # type: ignore[no-any-return]

    def to_dense(self) -> nn.Conv2d:
        """Return the dense convolution that computes the same."""
        first: Any = self.depthwise[0]
        kernels = torch.cat(list(self.depthwise.parameters()))[:, 0]  # [G, K1, K2]
        size = len(self.g)
        channels = (
            torch.arange(size, device=kernels.device).repeat(len(self.depthwise)) if self.even else self.index
        )
        to_outputs = self.pointwise.weight[:, :, 0, 0]
        weight = to_outputs.new_zeros(len(to_outputs), size, *kernels.shape[1:])
        weight.index_add_(1, channels, to_outputs[:, :, None, None] * kernels)
        return dense_convolution(weight, self.pointwise.bias, first)
